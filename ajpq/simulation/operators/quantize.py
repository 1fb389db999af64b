"""Activation functions, and real values onto codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ajpq.simulation.grids import onto_grid
from hw_models.network import FLOAT_BITS, Edge

EXACT = 2**24  # float32 holds every integer up to here

# every function may overwrite its argument; transcendental ones run in float64 and round once
_FUNCTIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: lambda real: real,
    "relu": lambda real: real.clamp_(min=0),
    "relu6": lambda real: real.clamp_(0, 6),
    "hardsigmoid": lambda real: real.add_(3).clamp_(0, 6).div_(6),
    "hardswish": lambda real: real.mul_((real + 3).clamp_(0, 6)).div_(6),
    "sigmoid": lambda real: real.double().sigmoid_().float(),
    "silu": lambda real: real.double().sigmoid_().mul_(real).float(),
}


def applied(real: Tensor, function: str | None) -> Tensor:
    """Real values through an activation; may overwrite them."""
    return _FUNCTIONS[function](real)


class Quantize(nn.Module):
    """Real values through an activation and onto the codes of an edge; overwrites them."""

    step: Tensor

    def __init__(self, function: str | None, edge: Edge) -> None:
        super().__init__()
        clamped = edge.bits != FLOAT_BITS and not edge.signed  # that does what relu would
        self.function = None if function == "relu" and clamped else function
        self.edge = edge
        self.register_buffer("step", float32(edge.scale))

    def forward(self, real: Tensor) -> Tensor:
        """Real values to codes, of any shape."""
        return onto_grid(applied(real, self.function), self.edge, self.step)


def float32(value: float) -> Tensor:
    """A scalar."""
    return torch.tensor(value, dtype=torch.float32)
