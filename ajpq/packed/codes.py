"""Entropy coding: one ANS stream for the whole file.

The stream holds groups, each with a histogram model of its own, and then bits as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
from constriction import stream

from ajpq.packed import histograms
from ajpq.packed.container import damaged
from ajpq.packed.histograms import LARGEST_LEVEL, VARIANTS, Model
from ajpq.packed.numbers import Numbers, chunks, joined

Coder: TypeAlias = stream.stack.AnsCoder
Group = tuple[int, np.ndarray]
"""Width, and the int8 codes of all rows of this width in one layer, in order."""


def count_codes(bits: int, codes: np.ndarray) -> np.ndarray:
    """``[2**bits]`` how often each code occurs, the most negative one first."""
    counts = np.bincount(codes.reshape(-1).view(np.uint8), minlength=256)
    half = 2 ** (bits - 1)
    return np.concatenate([counts[256 - half :], counts[:half]])


def _fitted(groups: Iterable[Group]) -> tuple[np.ndarray, list[Model]]:
    """Bits and the model of every group; equal widths are fitted together."""
    groups = list(groups)
    models: list[Model | None] = [None] * len(groups)
    costs = np.zeros(len(groups))
    for bits in sorted({bits for bits, _ in groups}):
        places = [place for place, group in enumerate(groups) if group[0] == bits]
        counts = np.stack([count_codes(bits, groups[place][1]) for place in places])
        costs[places], fitted = histograms.fit(counts, bits)
        for place, model in zip(places, fitted, strict=True):
            models[place] = model
    return costs, [model for model in models if model is not None]


def coded_bits(groups: Iterable[Group]) -> np.ndarray:
    """``[G]`` bits that each group takes in a stream, from histograms alone."""
    return _fitted(groups)[0]


def stream_bytes(bits: float) -> int:
    """Bytes of a whole stream of so many :func:`coded_bits`."""
    return 4 * round(bits / 32 + 1) if bits else 0  # the coder ends with about one spare word


@cache
def _step_coder() -> stream.model.Categorical:
    return stream.model.Categorical(histograms.step_probabilities(), perfect=False)


def _code_coder(model: Model) -> stream.model.Categorical:
    table = histograms.probabilities(model.levels, model.bits, model.variant)
    return stream.model.Categorical(table, perfect=False)


def encode(groups: Iterable[Group], numbers: Sequence[Numbers] = ()) -> bytes:
    """Models and codes of all groups, then low bits, as little-endian words.

    Args:
        numbers: whose low bits to store; their classes are among the groups.
    """
    groups = list(groups)
    _, models = _fitted(groups)
    coder = Coder()  # a stack: what is read first is written last
    for own in reversed(numbers):
        for bits, shift, those in reversed(chunks(own.low_bits)):
            symbols = own.low[those] >> shift & 2**bits - 1
            coder.encode_reverse(symbols.astype(np.int32), stream.model.Uniform(2**bits))
    for (bits, codes), model in reversed(list(zip(groups, models, strict=True))):
        symbols = codes.reshape(-1).astype(np.int32) + 2 ** (bits - 1)
        coder.encode_reverse(symbols, _code_coder(model))
        steps = histograms.level_steps(model.levels).astype(np.int32)
        coder.encode_reverse(steps, _step_coder())
        coder.encode_reverse(model.variant, stream.model.Uniform(len(VARIANTS)))
    return coder.get_compressed().astype("<u4").tobytes()


def open_stream(data: bytes) -> Coder:
    """A stream to read from.

    Raises:
        AjpqError: not whole words, or none that the coder could have written.
    """
    try:
        return Coder(np.frombuffer(data, "<u4").astype(np.uint32))
    except ValueError as error:
        raise damaged(error) from error


def decode_groups(coder: Coder, sizes: Iterable[tuple[int, int]]) -> list[np.ndarray]:
    """The int8 codes of the next groups.

    Args:
        sizes: width and number of codes of every group.

    Raises:
        AjpqError: the stream does not belong to these groups.
    """
    return [_decode_group(coder, bits, count) for bits, count in sizes]


def decode_low(coder: Coder, low_bits: np.ndarray) -> np.ndarray:
    """The next low bits, uint32: so many for every number."""
    return joined(low_bits, lambda bits, count: coder.decode(stream.model.Uniform(2**bits), count))


def close_stream(coder: Coder) -> None:
    """Check that nothing is left.

    Raises:
        AjpqError: the stream does not belong to what was read from it.
    """
    if not coder.is_empty():
        raise damaged("codes are left over")


def _decode_group(coder: Coder, bits: int, count: int) -> np.ndarray:
    variant = int(coder.decode(stream.model.Uniform(len(VARIANTS))))
    steps = coder.decode(_step_coder(), histograms.bucket_count(bits, variant))
    levels = histograms.levels_of_steps(steps)
    if levels.min() < 0 or levels.max() > LARGEST_LEVEL:
        raise damaged("a histogram is impossible")
    symbols = coder.decode(_code_coder(Model(bits, variant, levels)), count)
    return (symbols - 2 ** (bits - 1)).astype(np.int8)
