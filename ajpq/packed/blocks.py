"""Codes of few distinct blocks as a codebook: its words, and which word stands at each place.

A block is a kernel of a convolution, or, where kernels have one tap, as many consecutive input
channels as a row has room for. Kernels are what compresses best: on the trained ResNet-20, with
64 words for each layer, blocks of nine taps of one kernel leave 0.28 of the weights' variance and
blocks of nine input channels at one tap 0.43, because neighbouring taps resemble each other. A
kernel also stays whole when channels are removed or permuted.

Nothing in a network says that it has codebooks. The writer looks for them in rows of 8 bits, where
a quantizer puts levels that no narrower grid has, and takes the smaller of the two codings. Words
are numbered by how often they occur, so that the histogram models of :mod:`ajpq.packed.histograms`
hold for their numbers too: a number of ``n`` words is a code of ``number_bits(n)`` bits, and the
code that is nearer to zero stands for the word that is more frequent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ajpq.packed.codes import Group, coded_bits
from ajpq.packed.container import damaged

WIDTH = 8
"""Of the rows that may have codebooks."""
MOST_WORDS = 256
_LONGEST = 255
_CHANNELS = (2, 4, 8, 16)
_PROBED = 2 * MOST_WORDS
_DESCRIPTION_BITS = 16.0


@dataclass(frozen=True)
class Blocks:
    """Shape of a codebook.

    Attributes:
        length: codes of a block.
        words: distinct blocks.
    """

    length: int
    words: int

    def parts(self, count: int) -> list[tuple[int, int]]:
        """Width and number of the codes of words and of numbers, in place of ``count`` codes."""
        return [(WIDTH, self.words * self.length), (number_bits(self.words), count // self.length)]


@dataclass(frozen=True, eq=False)
class Coding:
    """How a file holds the codes of one width in one layer.

    Attributes:
        groups: for the stream: the codes as they are, or words and numbers.
        blocks: shape of the codebook, None without one.
    """

    groups: tuple[Group, ...]
    blocks: Blocks | None = None


def number_bits(words: int) -> int:
    """Width of the codes that tell so many words apart."""
    return max(2, (words - 1).bit_length())


def smallest_coding(group: Group) -> Coding:
    """The one that takes fewest bits; ordinary codes cost little more than a glance."""
    plain = Coding((group,))
    found = [plain, *_codebooks(group)]
    return plain if len(found) == 1 else min(found, key=lambda own: float(_bits([own])[0]))


def smallest_bits(groups: Iterable[Group]) -> np.ndarray:
    """``[G]`` bits that each group takes in its smallest coding."""
    return _bits([smallest_coding(group) for group in groups])


def _bits(codings: Sequence[Coding]) -> np.ndarray:
    bits = coded_bits(group for own in codings for group in own.groups)
    ends = np.cumsum([0, *(len(own.groups) for own in codings)]).tolist()
    coded = np.array([float(bits[first:last].sum()) for first, last in pairwise(ends)])
    return coded + [0.0 if own.blocks is None else _DESCRIPTION_BITS for own in codings]


def _codebooks(group: Group) -> Iterator[Coding]:
    bits, codes = group
    if bits != WIDTH:
        return
    for length in _lengths(codes.shape):
        blocks = np.ascontiguousarray(codes).reshape(-1, length)
        if _may_be_few(blocks):
            yield from _codebook(blocks)


def _lengths(shape: Sequence[int]) -> tuple[int, ...]:
    """Blocks that are looked for in codes ``[rows, input channels, ...taps]``."""
    taps = math.prod(shape[2:])
    if taps > 1:
        return (taps,) if taps <= _LONGEST else ()
    return tuple(length for length in _CHANNELS if shape[1] % length == 0)


def _may_be_few(blocks: np.ndarray) -> bool:
    """Do the first blocks begin in few enough ways? Almost no ordinary codes do."""
    probe = blocks[:_PROBED]
    width = 1 << min(3, probe.shape[1].bit_length() - 1)
    starts = np.array(probe[:, :width]).view(f"i{width}").reshape(-1)
    starts.sort()
    different = 1 + np.count_nonzero(starts[1:] != starts[:-1])
    return bool(different <= min(MOST_WORDS, len(probe) // 2))


def _codebook(blocks: np.ndarray) -> Iterator[Coding]:
    """``[N, length]`` blocks in the order of the file, if there are few distinct ones."""
    length = blocks.shape[1]
    whole = blocks.view(np.dtype((np.void, length))).reshape(-1)
    words, place, counts = np.unique(whole, return_inverse=True, return_counts=True)
    if len(words) > min(MOST_WORDS, len(blocks) // 2):
        return
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    ordered = words[order].view(np.int8).reshape(-1, length)
    numbers = number_bits(len(words)), _codes_of(rank[place.reshape(-1)])
    yield Coding(((WIDTH, ordered), numbers), Blocks(length, len(words)))


def joined_blocks(words: np.ndarray, numbers: np.ndarray, blocks: Blocks) -> np.ndarray:
    """``[N * length]`` int8 codes of a codebook as it was read.

    Raises:
        AjpqError: a number that no word has.
    """
    known = _codes_of(np.arange(blocks.words)).view(np.uint8)
    table = np.zeros((256, blocks.length), np.int8)
    table[known] = words.reshape(-1, blocks.length)
    said = numbers.tobytes()
    if said.translate(None, known.tobytes()):
        raise damaged("a codebook has fewer words than are used")
    # translated, for an index takes 8 bytes per number: what is read is limited by its memory
    codes = np.empty((len(numbers), blocks.length), np.int8)
    for place in range(blocks.length):
        own = said.translate(table[:, place].tobytes())
        codes[:, place] = np.frombuffer(own, np.int8)
    return codes.reshape(-1)


def _codes_of(ranks: np.ndarray) -> np.ndarray:
    """0, 1, 2, 3, 4 ... as 0, -1, 1, -2, 2 ...: int8."""
    return np.where(ranks % 2, -(ranks + 1) // 2, ranks // 2).astype(np.int8)


def described(layers: Iterable[Iterable[Coding]]) -> bytes:
    """Two bytes for each layer, length and number of words minus one; nothing without codebooks."""
    blocks = [next((own.blocks for own in layer if own.blocks), None) for layer in layers]
    pairs = [(0, 0) if own is None else (own.length, own.words - 1) for own in blocks]
    return bytes(byte for pair in pairs for byte in pair) if any(blocks) else b""


def blocks_of(description: bytes, layers: int) -> list[Blocks | None]:
    """Inverse of :func:`described` for so many layers.

    Raises:
        AjpqError: for another number, or shapes that :func:`described` does not describe.
    """
    pairs = list(zip(description[::2], description[1::2], strict=False))
    found = [None if pair == (0, 0) else Blocks(pair[0], pair[1] + 1) for pair in pairs]
    possible = all(own is None or own.length > 1 for own in found)
    if len(description) != 2 * layers or not any(found) or not possible:
        raise damaged("its codebooks are impossible")
    return found


def check_blocks(blocks: Blocks | None, codes: int, row_size: int) -> None:
    """Do blocks fill the rows of 8 bits, and are there no more words than places?

    Args:
        codes: of 8 bits in the layer.

    Raises:
        AjpqError: they do not.
    """
    if blocks is not None and (row_size % blocks.length or blocks.words * blocks.length > codes):
        raise damaged("a codebook does not fit its layer")
