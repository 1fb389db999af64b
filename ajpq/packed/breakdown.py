"""Where the bytes of a packed file are, and how few its contents could take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ajpq.packed.blocks import Coding, smallest_coding
from ajpq.packed.codes import coded_bits
from ajpq.packed.container import VERSION, Section, frame_bytes, split, version_of
from ajpq.packed.file import read, unpack
from ajpq.packed.layers import groups_of, layer_of, weighted
from ajpq.packed.numbers import Numbers
from ajpq.packed.rows import numbers_of, stored_rows
from hw_models.errors import AjpqError
from hw_models.network import Operator, Weights


@dataclass(frozen=True)
class LayerBytes:
    """Bytes of one operator with weights.

    Attributes:
        codes: those that stand for themselves.
        words: the words of its codebook and its shape.
        numbers: which word stands where.
        reals: the values of 32-bit rows.
    """

    name: str
    codes: int
    words: int
    numbers: int
    scales: int
    biases: int
    widths: int
    reals: int

    @property
    def total(self) -> int:
        """All of them."""
        coded = self.codes + self.words + self.numbers
        return coded + self.scales + self.biases + self.widths + self.reals


@dataclass(frozen=True)
class Breakdown:
    """The bytes of a file; ``header`` and the layers' totals add up to its size exactly.

    Attributes:
        header: checksum, table of sections, and the compressed structure.
        layers: operators with weights, in execution order.
        entropy_bytes: what the contents beside the header would take if every symbol took its
            empirical entropy and the decoder knew all histograms. Symbols and their groups are:
            the codes of each layer and width, or the words of its codebook and their numbers; the
            widths of each layer's rows; and, over the whole file, the classes of scales and those
            of biases (:mod:`ajpq.packed.numbers`), whose low bits count as they are. A value of a
            32-bit row takes 4 bytes.
    """

    header: int
    layers: tuple[LayerBytes, ...]
    entropy_bytes: float

    @property
    def total(self) -> int:
        """Bytes of the file."""
        return self.header + sum(layer.total for layer in self.layers)


def breakdown(file: bytes | str | Path) -> Breakdown:
    """Where the bytes of a packed file are.

    Sections that layers share are divided in whole bytes: the stream in proportion to the bits
    that each layer's codes (with their histograms), scales and biases take by their share of it,
    the compressed widths in proportion to the rows, and the shapes of codebooks among those layers
    that have one.

    Raises:
        AjpqError: see :func:`ajpq.packed.unpack`; or a file of version 1, which is not so divided.
    """
    data = read(file) if isinstance(file, str | Path) else file
    if version_of(data) != VERSION:
        raise AjpqError(
            f"only packed files of version {VERSION} are broken down: load this one, of version "
            f"{version_of(data)}, and save it again"
        )
    network, sections = unpack(data), split(data)
    operators, numbers = weighted(network), numbers_of(network)
    counts = [int(stored_rows(weights).sum()) for _, weights in operators]
    scales, biases = (_by_layer(own, counts) for own in numbers)
    filled = sum(1 for content in sections.values() if content)
    coded = [_codings(op, weights) for op, weights in operators]
    layers = zip(coded, operators, strict=True)
    content = sum(_content_bits(codings, weights) for codings, (_, weights) in layers)
    return Breakdown(
        frame_bytes(filled) + len(sections[Section.STRUCTURE]),
        _layers(operators, coded, sections, scales, biases),
        (content + sum(scales) + sum(biases)) / 8,
    )


def _layers(
    operators: Sequence[tuple[Operator, Weights]],
    coded: Sequence[list[Coding]],
    sections: Mapping[int, bytes],
    scales: Sequence[float],
    biases: Sequence[float],
) -> tuple[LayerBytes, ...]:
    """Every section divided among the operators; bits of their scales and biases are given."""
    kinds = zip(*map(_kinds_of_bits, coded), strict=True)
    bits = [own for kind in kinds for own in kind]
    stream = _divided(len(sections[Section.STREAM]), [*bits, *scales, *biases])
    shapes = _divided(
        len(sections[Section.CODEBOOKS]), [any(own.blocks for own in layer) for layer in coded]
    )
    rows = [len(weights.bits) for _, weights in operators]
    widths = _divided(len(sections[Section.WIDTHS]), rows)
    count = len(operators)
    names = [op.name for op, _ in operators]
    reals = [4 * layer_of(weights).reals for _, weights in operators]
    codes, words, *rest = (stream[start * count : (start + 1) * count] for start in range(5))
    words = [own + shape for own, shape in zip(words, shapes, strict=True)]
    return tuple(map(LayerBytes, names, codes, words, *rest, widths, reals))


def _codings(op: Operator, weights: Weights) -> list[Coding]:
    return [smallest_coding(group) for group in groups_of(op.name, weights)]


def _kinds_of_bits(codings: Sequence[Coding]) -> tuple[float, float, float]:
    """Bits of codes that stand for themselves, of words, and of numbers."""
    plain = [group for own in codings if not own.blocks for group in own.groups]
    books = [own.groups for own in codings if own.blocks]
    kinds = plain, [words for words, _ in books], [numbers for _, numbers in books]
    codes, words, numbers = (float(coded_bits(groups).sum()) for groups in kinds)
    return codes, words, numbers


def _content_bits(codings: Sequence[Coding], weights: Weights) -> float:
    """Entropy of the codes, widths and real values of one operator."""
    coded = sum(entropy_bits(codes) for own in codings for _, codes in own.groups)
    return coded + entropy_bits(weights.bits) + 32 * layer_of(weights).reals


def entropy_bits(symbols: np.ndarray) -> float:
    """Empirical entropy of all symbols together."""
    return float(_surprise(symbols.reshape(-1)).sum())


def _surprise(symbols: np.ndarray) -> np.ndarray:
    """``[N]`` bits of each symbol, by how often it occurs among all."""
    _, place, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    bits: np.ndarray = np.log2(max(len(symbols), 1) / counts)[place]
    return bits


def _by_layer(numbers: Numbers, counts: Sequence[int]) -> list[float]:
    """Bits of the numbers of each layer."""
    bits = _surprise(numbers.classes) + numbers.low_bits
    ends = np.cumsum([0, *counts])
    return [float(bits[a:b].sum()) for a, b in pairwise(ends)]


def _divided(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to ``total``, nearly in proportion: by largest remainders."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    shares = [total * weight / whole for weight in weights]
    found = [math.floor(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda place: found[place] - shares[place])
    for place in order[: total - sum(found)]:
        found[place] += 1
    return found
