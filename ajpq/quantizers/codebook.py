"""Weighted k-means on blocks of weights, with a price for the bits that name a centroid.

Every weight ``w`` has an importance ``g >= 0``, in GWK the magnitude of its gradient. A centroid is
the weighted mean of its members, coordinate by coordinate (GWK, shared in words only: the formula
is a reconstruction)::

    c_j = sum_i g_i w_i / sum_i g_i        over the blocks i of cluster j

and a block belongs where ``sum g (w - c_j)**2 + rate * bits_j`` is least, ``bits_j`` being the
length of the code that says ``j`` (entropy-constrained vector quantization, Chou, Lookabaugh and
Gray, IEEE Trans. ASSP 37, 1989). With a rate of 0 and equal importances this is Lloyd's k-means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST_RATE = 4.0
_HALVINGS = 10
_FEW = 4
_SHARES = torch.linspace(0.25, 1.0, 16)


@dataclass(frozen=True, eq=False)
class Codebook:
    """Centroids ``[K, d]`` and the length ``[K]`` of their codes in bits."""

    centroids: Tensor
    bits: Tensor


def assigned(blocks: Tensor, importance: Tensor, book: Codebook, rate: float = 0.0) -> Tensor:
    """``[N]`` int64: the cheapest centroid of every block; the first of equals.

    Args:
        blocks: ``[N, d]``.
        importance: ``[N, d]``.
        rate: weighted squared error that one bit is worth.
    """
    # the term g * w**2 is the same for all centroids
    known = torch.cat([importance, importance * blocks], 1)
    asked = torch.cat([book.centroids.square(), -2 * book.centroids], 1)
    with torch.autocast(blocks.device.type, enabled=False):  # bf16 would choose by its rounding
        return torch.addmm(rate * book.bits, known, asked.T).argmin(1)


def means(blocks: Tensor, importance: Tensor, members: Tensor, centroids: Tensor) -> Tensor:
    """``[K, d]`` weighted means of the members; a coordinate without importance stays."""
    total = torch.zeros_like(centroids).index_add_(0, members, importance)
    moment = torch.zeros_like(centroids).index_add_(0, members, importance * blocks)
    return torch.where(
        total > 0, moment / total.clamp_min(torch.finfo(total.dtype).tiny), centroids
    )


def code_lengths(members: Tensor, words: int) -> Tensor:
    """``[K]`` bits of an ideal code for these members; half a member more for each centroid."""
    counts = torch.bincount(members, minlength=words) + 0.5
    return (counts.sum() / counts).log2()


def refined(
    blocks: Tensor, importance: Tensor, book: Codebook, rate: float, rounds: int
) -> Codebook:
    """The codebook after so many rounds of assigning blocks and moving centroids."""
    for _ in range(rounds):
        members = assigned(blocks, importance, book, rate)
        book = Codebook(
            means(blocks, importance, members, book.centroids),
            code_lengths(members, len(book.centroids)).to(blocks.dtype),
        )
    return book


def spread(blocks: Tensor, words: int) -> Codebook:
    """Centroids to start from, far from each other, all with codes of one length.

    The seeding of k-means++ (Arthur and Vassilvitskii, SODA 2007), from a generator of its own.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = [int(torch.randint(len(blocks), (), generator=generator))]
    distance = (blocks - blocks[chosen[0]]).square().sum(1)
    while len(chosen) < words:
        # where all are taken, any will do
        weights = distance if distance.sum() > 0 else torch.ones_like(distance)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        distance = distance.minimum((blocks - blocks[chosen[-1]]).square().sum(1))
    return Codebook(blocks[chosen].clone(), torch.zeros(words))


def on_grid(centroids: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Codes ``[K, d]`` of ``width`` bits and the step ``[]`` that they count.

    The last code stands for the largest centroid. With 4 bits and fewer most centroids would then
    become zero: there it stands for that share of the largest which loses least squared error, of a
    quarter to all.
    """
    top = 2 ** (width - 1) - 1
    shares = _SHARES.to(centroids.dtype) if width <= _FEW else centroids.new_ones(1)
    steps = centroids.abs().max() / top * shares
    steps = torch.where(steps > 0, steps, torch.ones(()))
    codes = (centroids / steps.view(-1, 1, 1)).round().clamp(-top, top)
    errors = (codes * steps.view(-1, 1, 1) - centroids).square().sum((1, 2))
    best = int(errors.argmin())
    return codes[best], steps[best]


def rate_within(bits_at: Callable[[float], float], budget: float) -> float:
    """The least rate at which so many bits are enough, found by halving an interval.

    Args:
        bits_at: of a rate; falls as it rises.

    Returns:
        0 where that is enough, and 4, which leaves hardly a centroid, where nothing is.
    """
    if bits_at(0.0) <= budget:
        return 0.0
    low, high = 0.0, _LARGEST_RATE
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if bits_at(middle) <= budget else (middle, high)
    return high
