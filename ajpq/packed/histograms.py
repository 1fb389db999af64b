"""Compact histogram models of codes: how often each code of one width occurs in one layer.

A model is a variant and one small integer per bucket of codes: the logarithm of how much rarer the
codes of this bucket are than the most frequent ones, in steps of a half or a quarter octave.
Buckets of many codes at large widths, and buckets that ignore the sign, keep the model of a small
layer small. The same arithmetic on integers and powers of two gives equal probabilities on every
machine, which the decoder relies on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

VARIANTS = ((True, 2), (True, 4), (False, 2), (False, 4))  # (ignores the sign, steps per octave)
LARGEST_LEVEL = 63
FIRST_LEVEL = 8
_TOP = float(1 << 20)
_ODDS = 256
"""All codes but the most frequent one hold at least 1/257 of the probability: a code costs at least
0.0056 bits, so the length of a file bounds how many codes it may claim to hold."""


@dataclass(frozen=True, eq=False)
class Model:
    """One histogram model. ``levels``: int64 in 0..63, one per bucket."""

    bits: int
    variant: int
    levels: np.ndarray


@cache
def _buckets(bits: int, ignores_sign: bool) -> np.ndarray:
    """``[2**bits]`` bucket of every code from the most negative one upwards."""
    codes = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    magnitude, top = np.abs(codes), 2 ** (bits - 1) - 1
    coarse = 1 + (np.maximum(magnitude, 1) - 1) // max(1, 2 ** (bits - 5))
    bucket = np.where(magnitude == 0, 0, coarse)
    bucket = np.where(magnitude >= top, magnitude + top, bucket)  # clipping piles up at the ends
    bucket = np.where(magnitude == 0, 0, bucket)
    return np.unique(bucket if ignores_sign else bucket * np.sign(codes), return_inverse=True)[1]


@cache
def _bucket_matrix(bits: int, ignores_sign: bool) -> np.ndarray:
    """``[2**bits, buckets]``: ones where a code belongs to a bucket."""
    buckets = _buckets(bits, ignores_sign)
    return np.eye(buckets.max() + 1)[buckets]


def bucket_count(bits: int, variant: int) -> int:
    """How many levels a model of this variant has."""
    return _bucket_matrix(bits, VARIANTS[variant][0]).shape[1]


def _levels(histograms: np.ndarray, bits: int, variant: int) -> np.ndarray:
    """``[G, 2**bits]`` counts to ``[G, buckets]`` levels."""
    ignores_sign, steps = VARIANTS[variant]
    matrix = _bucket_matrix(bits, ignores_sign)
    mean = np.maximum(histograms @ matrix, 0.5) / matrix.sum(0)  # a code never seen: half a count
    rarity = np.log2(mean.max(1, keepdims=True) / mean)
    return np.minimum(np.rint(rarity * steps), LARGEST_LEVEL).astype(np.int64)


@cache
def _frequency_table(steps: int, codes: int) -> np.ndarray:
    """``[64]`` integer-valued frequency of every level."""
    frequency = np.rint(_TOP * np.exp2(-np.arange(LARGEST_LEVEL + 1) / steps))
    return np.maximum(frequency, np.ceil(_TOP / (_ODDS * (codes - 1))))


def probabilities(levels: np.ndarray, bits: int, variant: int) -> np.ndarray:
    """``[..., buckets]`` levels to ``[..., 2**bits]`` float64 probabilities of the codes."""
    ignores_sign, steps = VARIANTS[variant]
    table = _frequency_table(steps, 2**bits)
    frequency = table[levels][..., _buckets(bits, ignores_sign)]
    return frequency / frequency.sum(-1, keepdims=True)


@cache
def step_probabilities() -> np.ndarray:
    """``[127]`` fixed probabilities of a level minus the one before it, -63..63."""
    distance = np.abs(np.arange(-LARGEST_LEVEL, LARGEST_LEVEL + 1))
    # 2**(-distance / 2) as exact integers; the 8 is the tail that lone rare codes need
    weight = np.floor(4096 * np.where(distance % 2, 0.7071, 1.0) * 0.5 ** (distance // 2)) + 8
    return weight / weight.sum()


def level_steps(levels: np.ndarray) -> np.ndarray:
    """``[..., buckets]`` levels to symbols 0..126 of :func:`step_probabilities`."""
    before = np.full((*levels.shape[:-1], 1), FIRST_LEVEL)
    return np.diff(levels, prepend=before, axis=-1) + LARGEST_LEVEL


def levels_of_steps(symbols: np.ndarray) -> np.ndarray:
    """Inverse of :func:`level_steps`; a damaged stream may give levels outside 0..63."""
    return FIRST_LEVEL + np.cumsum(symbols.astype(np.int64) - LARGEST_LEVEL, axis=-1)


def _coded_bits(histograms: np.ndarray, bits: int, variant: int) -> tuple[np.ndarray, np.ndarray]:
    """``[G]`` bits of model and codes together, and the ``[G, buckets]`` levels."""
    levels = _levels(histograms, bits, variant)
    codes = -(histograms * np.log2(probabilities(levels, bits, variant))).sum(1)
    model = -np.log2(step_probabilities()[level_steps(levels)]).sum(1)
    return codes + model + np.log2(len(VARIANTS)), levels


def fit(histograms: np.ndarray, bits: int) -> tuple[np.ndarray, list[Model]]:
    """The cheapest model of every histogram.

    Args:
        histograms: ``[G, 2**bits]`` counts, the most negative code first.

    Returns:
        ``[G]`` bits that model and codes take in the stream, and the models.
    """
    tried = [_coded_bits(histograms, bits, variant) for variant in range(len(VARIANTS))]
    costs = np.stack([cost for cost, _ in tried])
    best = costs.argmin(0)
    models = [Model(bits, int(v), tried[v][1][row]) for row, v in enumerate(best)]
    return costs.min(0), models
