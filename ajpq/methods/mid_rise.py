"""Grids whose middle is a threshold: ``2**b`` levels, none of them zero."""

from __future__ import annotations

import torch
from torch import Tensor

_RATIOS = torch.linspace(0.1, 1.0, 37)
_ROUNDS = 10
_LEAST_STEP = 1e-8


def half_levels(bits: Tensor) -> Tensor:
    """Levels on either side of zero; the last one is ``half_levels - 1/2`` steps away from it."""
    return 2.0 ** (bits - 1)


def mid_rise_codes(position: Tensor, half: Tensor) -> Tensor:
    """The nearest of ``-half + 1/2, ..., -1/2, 1/2, ..., half - 1/2``, without a gradient."""
    below = position.detach().floor()
    return torch.maximum(torch.minimum(below, half - 1), -half) + 0.5


@torch.no_grad()
def mid_rise_steps(weight: Tensor, bits: Tensor) -> Tensor:
    """``[O]`` steps of ``weight [O, ...]``, of little squared error; tiny ones for rows of zeros.

    Of those that put the last level at a share of the largest weight the best; from there codes for
    a given step and the best step for given codes take turns.
    """
    flat, half = weight.flatten(1), half_levels(bits).unsqueeze(1)
    largest = flat.abs().amax(1, keepdim=True).clamp_min(_LEAST_STEP)
    tried = torch.cat([largest / (half - 0.5) * ratio for ratio in _RATIOS], 1)
    errors = [_error(flat, half, steps.unsqueeze(1)) for steps in tried.unbind(1)]
    steps = tried.gather(1, torch.cat(errors, 1).argmin(1, keepdim=True))
    for _ in range(_ROUNDS):
        codes = mid_rise_codes(flat / steps, half)
        best = (flat * codes).sum(1, keepdim=True) / codes.square().sum(1, keepdim=True)
        steps = torch.where(best > 0, best, steps)
    return steps.squeeze(1)


def _error(flat: Tensor, half: Tensor, steps: Tensor) -> Tensor:
    return (mid_rise_codes(flat / steps, half) * steps - flat).square().sum(1, keepdim=True)
