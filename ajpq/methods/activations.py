"""Activation grids whose step is learned (LSQ, Esser et al., arXiv 1902.08153)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ajpq.simulation.calibration import clips
from hw_models.network import Edge

Bound = int | Tensor
"""A first or last code; as a tensor it broadcasts over the values."""


class _Straight(torch.autograd.Function):
    """See :func:`straight`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


def straight(x: Tensor, value: Tensor) -> Tensor:
    """Exactly ``value``; the gradient goes to ``x`` as it is."""
    made: Tensor = _Straight.apply(x, value)
    return made


def on_grid(values: Tensor, size: Tensor, low: Bound, high: Bound) -> Tensor:
    """``values`` on the multiples ``low`` to ``high`` of ``size``; rounding has the gradient 1.

    A value beyond the last code gets no gradient, ``size`` gets the code instead.
    """
    position = values / size
    codes, inside = onto_codes(position, low, high)
    return straight(torch.where(inside, position, codes), codes) * size


def onto_codes(position: Tensor, low: Bound, high: Bound) -> tuple[Tensor, Tensor]:
    """Codes of positions in steps, and which positions are inside: between the first and the last
    code, not only rounded to one of them."""
    at = position.detach()
    codes = at.round().clamp(low, high)  # type: ignore[arg-type]  # either will do
    return codes, (low < at) & (at < high)


def learned_edge(values: Tensor, edge: Edge, step: Tensor) -> Tensor:
    """``values [N, ...]`` on the grid of ``step []``, which is learned along with the network.

    The gradient of the step is divided by ``sqrt(values of one image * last code)``. A step that
    crosses zero counts by its size.

    Source: LSQ, equations 3 and 5 and section 2.2.
    """
    low, high = edge.code_range
    size = scaled_gradient(step.abs(), (values[0].numel() * high) ** -0.5)
    return on_grid(values, size, low, high)


def scaled_gradient(x: Tensor, share: float | Tensor) -> Tensor:
    """``x``, whose gradient is multiplied by ``share``."""
    return x * share + (x * (1 - share)).detach()


@torch.no_grad()
def mse_step(values: Tensor, edge: Edge) -> Tensor:
    """The step ``[]`` that :func:`~ajpq.simulation.calibration.clips` finds for an edge;
    where all are zero any."""
    high = edge.code_range[1]
    largest = clips(values.detach(), [edge.bits], edge.signed)[0]
    return torch.tensor((largest or 1.0) / high)
