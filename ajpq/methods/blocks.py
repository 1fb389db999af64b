"""A layer as blocks of weights that share a codebook."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ajpq.methods.base import STORED
from ajpq.packed import smallest_bits
from ajpq.quantizers import rows
from ajpq.quantizers.codebook import (
    Codebook,
    assigned,
    means,
    on_grid,
    rate_within,
    refined,
)


@dataclass(frozen=True, eq=False)
class Blocks:
    """The rows of a layer that have a codebook.

    Attributes:
        weight: ``[O, ...]``, all rows.
        coded: ``[O]`` bool: these.
        gain: ``[O]`` what a row is divided by before it is cut into blocks.
        importance: ``[N, d]`` of all weights in the blocks, 1 on average.
        rate: what a bit of the code for a centroid costs.
        widths: ``[O]`` of the grids that centroids are on.
    """

    weight: Tensor
    coded: Tensor
    gain: Tensor
    importance: Tensor
    book: Codebook
    rate: float
    widths: Tensor

    @property
    def values(self) -> Tensor:
        """``[N, d]`` the blocks."""
        return cut(self.weight, self.coded, self.gain, self.importance.shape[1])

    def codes(self) -> tuple[Tensor, Tensor]:
        """Codes ``[O, ...]`` and steps ``[O]`` of the nearest centroids; zeros in other rows."""
        blocks = self.values
        members = assigned(blocks, self.importance, self.book, self.rate)
        centroids = means(blocks, self.importance, members, self.book.centroids)
        codes, steps = torch.zeros_like(self.weight), self.gain.clone()
        own = members.view(int(self.coded.sum()), -1)
        widths = self.widths[self.coded]
        for width in widths.unique().tolist():
            words, step = on_grid(centroids, width)
            row = self.coded & (self.widths == width)
            codes[row] = words[own[widths == width]].reshape(-1, *self.weight.shape[1:])
            steps[row] *= step
        return codes, steps

    def moved(self) -> Blocks:
        """With centroids and code lengths of another round."""
        book = refined(self.values, self.importance, self.book, self.rate, 1)
        return replace(self, book=book)


def block_length(weight: Tensor, channels: int) -> int:
    """A kernel's taps, or of one tap so many input channels, or fewer that divide a row."""
    taps = math.prod(weight.shape[2:])
    if taps > 1:
        return taps
    return next(d for d in (16, 8, 4, 2, 1) if d <= channels and weight.shape[1] % d == 0)


def cut(weight: Tensor, coded: Tensor, gain: Tensor, length: int) -> Tensor:
    """``[N, length]`` blocks of the rows that are coded, divided by their gain."""
    return (weight / rows(gain, weight))[coded].reshape(-1, length)


def deviations(weight: Tensor) -> Tensor:
    """``[O]`` standard deviation of every row; 1 where all weights are equal."""
    found = weight.flatten(1).std(1)
    return torch.where(found > 0, found, torch.ones(()))


def importance_of(gradient: Tensor, coded: Tensor, length: int, exponent: float) -> Tensor:
    """``[N, length]`` powers of gradient magnitudes, 1 on average; all 1 without a gradient."""
    own = gradient[coded].reshape(-1, length)
    powers = own.pow(exponent) if own.any() else torch.ones_like(own)
    return powers / powers.mean()


def packed_bits_per_weight(layers: Collection[Blocks]) -> float:
    """What they take in the packed file, words included, for each weight that is in a block."""
    codes = (layer.codes()[0][layer.coded] for layer in layers)
    groups = [(STORED, own.to(torch.int8).contiguous().numpy()) for own in codes]
    return float(smallest_bits(groups).sum()) / sum(own.size for _, own in groups)


def at_rate_within(layers: Collection[Blocks], budget: float) -> list[Blocks]:
    """All at the least rate at which they take no more bits per weight than the budget."""

    def at(rate: float) -> list[Blocks]:
        return [replace(layer, rate=rate) for layer in layers]

    return at(rate_within(lambda rate: packed_bits_per_weight(at(rate)), budget))
