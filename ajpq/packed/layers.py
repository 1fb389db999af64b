"""Operators with weights as a packed file describes them, before and after their codes are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ajpq.packed.blocks import WIDTH, Blocks, blocks_of, check_blocks, joined_blocks
from ajpq.packed.codes import Group
from ajpq.packed.container import damaged
from ajpq.packed.limits import fits, inflate
from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS, Network, Operator, Weights


@dataclass(frozen=True, eq=False)
class Layer:
    """Sizes of one operator's weights.

    Attributes:
        shape: of the codes, ``[O, ...]``.
        bits: ``[O]`` uint8, the width of each row.
        blocks: shape of the codebook of its rows of 8 bits, if they have one.
    """

    shape: tuple[int, ...]
    bits: np.ndarray
    blocks: Blocks | None = None

    @property
    def row_size(self) -> int:
        """Weights of one row."""
        size = 1
        for length in self.shape[1:]:
            size *= length  # of Python: a hostile shape must not overflow
        return size

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Width and number of codes, the narrowest first."""
        widths, rows = np.unique(self.bits, return_counts=True)
        pairs = zip(widths.tolist(), rows.tolist(), strict=True)
        return [(bits, count * self.row_size) for bits, count in pairs if 0 < bits < FLOAT_BITS]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Width and number of what the stream holds of them, in its order."""
        found = []
        for bits, count in self.groups:
            blocks = self._blocks_at(bits)
            found += [(bits, count)] if blocks is None else blocks.parts(count)
        return found

    @property
    def reals(self) -> int:
        """Weights that are real values."""
        return int((self.bits == FLOAT_BITS).sum()) * self.row_size

    @property
    def held_bytes(self) -> int:
        """Bytes of the codes in memory."""
        return len(self.bits) * self.row_size * (4 if self.reals else 1)

    def _blocks_at(self, bits: int) -> Blocks | None:
        return self.blocks if bits == WIDTH else None

    def place(self, parts: Iterator[np.ndarray], reals: np.ndarray) -> np.ndarray:
        """``[O, ...]`` codes from all ``parts`` and from real values, in order.

        Raises:
            AjpqError: a codebook has fewer words than its numbers say.
        """
        real = self.bits == FLOAT_BITS
        codes = np.zeros(self.shape, dtype=np.float32 if real.any() else np.int8)
        for bits, _ in self.groups:
            blocks, own = self._blocks_at(bits), next(parts)
            if blocks is not None:
                own = joined_blocks(own, next(parts), blocks)
            codes[self.bits == bits] = own.reshape(-1, *self.shape[1:])
        codes[real] = reals.reshape(-1, *self.shape[1:])
        return codes


def weighted(network: Network) -> list[tuple[Operator, Weights]]:
    """The operators that have weights, in execution order."""
    return [(op, op.weights) for op in network.operators if op.weights is not None]


def layer_of(weights: Weights) -> Layer:
    """What a file says of these weights."""
    return Layer(weights.codes.shape, weights.bits)


def split_rows(shapes: Iterable[Sequence[int]], widths: bytes) -> list[Layer]:
    """The layers of these shapes, given the widths of all their rows.

    Raises:
        AjpqError: another number of rows, or a width that does not exist.
    """
    values, found, start = np.frombuffer(widths, np.uint8), [], 0
    for shape in shapes:
        found.append(Layer(tuple(shape), values[start : start + shape[0]]))
        start += shape[0]
    if start != len(values) or not np.isin(values, [*range(9), FLOAT_BITS]).all():
        raise damaged("its row widths are impossible")
    return found


def with_blocks(layers: Sequence[Layer], section: bytes) -> list[Layer]:
    """The layers with the codebooks that a section describes; an empty section has none.

    Raises:
        AjpqError: a codebook that does not fit its layer.
    """
    if not section:
        return list(layers)
    found = []
    described = blocks_of(inflate(section, 2 * len(layers)), len(layers))
    for layer, blocks in zip(layers, described, strict=True):
        check_blocks(blocks, dict(layer.groups).get(WIDTH, 0), layer.row_size)
        found.append(replace(layer, blocks=blocks))
    return found


def check_sizes(layers: Sequence[Layer], size: int, reals: int) -> None:
    """Nothing is allocated before the claimed sizes agree with the length of the file.

    Args:
        size: bytes of the file.
        reals: bytes of real values.

    Raises:
        AjpqError: they do not.
    """
    if reals != 4 * sum(layer.reals for layer in layers) or not layers_fit(layers, size):
        raise damaged("its sizes contradict each other")


def layers_fit(layers: Sequence[Layer], size: int) -> bool:
    """:func:`ajpq.packed.limits.fits` for all of them."""
    coded = sum(count for layer in layers for _, count in layer.groups)
    held = sum(layer.held_bytes for layer in layers)
    return fits(size, held, coded, sum(len(layer.bits) for layer in layers))


def groups_of(name: str, weights: Weights) -> Iterator[Group]:
    """The codes of an operator by width; zero rows must be zero and are not stored.

    Raises:
        AjpqError: codes that do not fit the width of their row, naming the operator.
    """
    for bits in np.unique(weights.bits).tolist():
        if bits == FLOAT_BITS:
            continue
        rows = weights.codes[weights.bits == bits]
        least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if bits else (0, 0)
        codes = rows.astype(np.int8)
        if rows.min() < least or rows.max() > most or (codes != rows).any():
            raise AjpqError(f"operator {name!r} has codes that do not fit {bits} bits")
        if bits:
            yield bits, codes


def widths_of(network: Network) -> bytes:
    """One byte per weight row."""
    return b"".join(own.bits.astype(np.uint8).tobytes() for _, own in weighted(network))


def reals_of(network: Network) -> bytes:
    """The values of 32-bit rows."""
    rows = [own.codes[own.bits == FLOAT_BITS] for _, own in weighted(network)]
    return b"".join(values.astype("<f4").tobytes() for values in rows)


def spread(rows: np.ndarray, values: np.ndarray, fill: float) -> np.ndarray:
    """``[O]`` float32: values where ``rows [O]`` is True, and ``fill`` elsewhere."""
    found = np.full(len(rows), fill, dtype=np.float32)
    found[rows] = values
    return found
