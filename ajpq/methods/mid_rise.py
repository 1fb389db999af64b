"""Grids whose middle is a threshold: ``2**b`` levels, none of them zero."""

from __future__ import annotations

import torch
from torch import Tensor

from ajpq.quantizers import rows

_ROUNDS = 60


def half_levels(bits: Tensor) -> Tensor:
    """Levels on either side of zero; the last one is ``half_levels - 1/2`` steps away from it."""
    return 2.0 ** (bits - 1)


def mid_rise_codes(position: Tensor, half: Tensor) -> Tensor:
    """The nearest of ``-half + 1/2, ..., -1/2, 1/2, ..., half - 1/2``, without a gradient."""
    below = position.detach().floor()
    return torch.maximum(torch.minimum(below, half - 1), -half) + 0.5


@torch.no_grad()
def mid_rise_steps(weight: Tensor, bits: Tensor) -> Tensor:
    """``[O]`` steps of ``weight [O, ...]``, of little squared error; 1 for rows of zeros.

    Codes for a given step and the best step for given codes take turns, from the step at which a
    uniform distribution of the same mean size would fill the grid.
    """
    half = rows(half_levels(bits), weight)
    mean = weight.abs().flatten(1).mean(1)
    steps = torch.where(mean > 0, 2 * mean / half_levels(bits), 1.0)
    for _ in range(_ROUNDS):
        codes = mid_rise_codes(weight / rows(steps, weight), half)
        best = (weight * codes).flatten(1).sum(1) / codes.square().flatten(1).sum(1)
        steps = torch.where(mean > 0, best, 1.0)
    return steps
