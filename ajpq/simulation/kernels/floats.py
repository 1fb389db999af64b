"""Codes as float32: on every processor."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.simulation.operators.elementwise import MOVES
from hw_models.network import FLOAT_BITS, Edge, Operator

CLAMPS = (None, "relu", "relu6")
"""The activations that only narrow the range of the output."""


def step_size(edge: Edge) -> float:
    """Real value of one code; real edges count in ones."""
    return 1.0 if edge.bits == FLOAT_BITS else edge.scale


def clamp_range(function: str | None, out: Edge) -> tuple[float, float]:
    """Smallest and largest value of an output in steps of its grid, after one of ``CLAMPS``."""
    low, high = -math.inf, math.inf
    if out.bits != FLOAT_BITS:
        low, high = out.code_range
    if function is not None:
        low = max(low, 0.0)
    if function == "relu6":
        high = min(high, 6 / step_size(out))
    return low, high


def finish(function: str | None, out: Edge) -> Callable[[Tensor], Tensor]:
    """Steps of the output's grid to codes, in place."""
    low, high = clamp_range(function, out)
    if out.bits != FLOAT_BITS:
        return lambda x: x.clamp_(low, high).round_()
    return (lambda x: x) if function is None else (lambda x: x.clamp_(low, high))


class FloatKernels:
    """Scales are folded into weights and biases: a convolution answers in steps of its output's
    grid, and rounding and clamping are all that is left to do, in place."""

    images_at_once = 64

    def store(self, codes: Tensor, edge: Edge) -> Tensor:
        """As they are."""
        return codes

    def load(self, stored: Tensor, edge: Edge) -> Tensor:
        """As they are."""
        return stored

    def layer(self, op: Operator, source: Edge, out: Edge) -> Callable[[Tensor], Tensor]:
        """A layer with one of ``CLAMPS``."""
        assert op.weights is not None
        step = step_size(out)
        codes, rows = op.weights.codes, (-1,) + (1,) * (op.weights.codes.ndim - 1)
        factor = op.weights.scales.astype(np.float64) * step_size(source) / step
        weight = torch.from_numpy((codes * factor.reshape(rows)).astype(np.float32))
        bias = torch.from_numpy((op.weights.bias.astype(np.float64) / step).astype(np.float32))
        done, a = finish(op.activation, out), op.attributes
        if op.kind == "linear":
            return lambda x: done(F.linear(x, weight, bias))
        weight = weight.contiguous(memory_format=torch.channels_last)
        geometry = (a["stride"], a["padding"], a["dilation"], a["groups"])
        return lambda x: done(F.conv2d(x, weight, bias, *geometry))

    def rescale(self, op: Operator, source: Edge, out: Edge) -> Callable[[Tensor], Tensor]:
        """``activation`` with one of ``CLAMPS``, and ``requantize``."""
        factor = step_size(source) / step_size(out)
        done = finish(op.attributes.get("function"), out)
        return lambda x: done(x * factor)

    def add(
        self, op: Operator, left: Edge, right: Edge, out: Edge, spare: int | None = None
    ) -> Callable[..., Tensor]:
        """Each side in steps of the output's grid."""
        first, second = (step_size(edge) / step_size(out) for edge in (left, right))
        done = finish(op.activation, out)
        return lambda x, y: done((x * first).add_(y, alpha=second))

    def move(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> Callable[..., Tensor]:
        """As the reference does."""
        return functools.partial(MOVES[op.kind], op.attributes)
