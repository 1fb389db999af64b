"""The operators of a compressed network as modules: the arithmetic of the reference simulation.

Integer sums are exact (float32 below 2**24, float64 above) and everything after them is one
float32 operation per element in a fixed order. Layers with 32-bit weights or inputs cannot be
exact; they accumulate in float64 and are rounded to float32 once.

Edges between modules hold codes as float32. A module leaves its inputs as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ajpq.graph.execute import like_space, take_channels
from ajpq.grids import onto_grid
from hw_models.network import FLOAT_BITS, Edge, Operator

_EXACT = 2**24  # float32 holds every integer up to here

# they ask for the number of axes, which symbolic tracing does not know
torch.fx.wrap("like_space")
torch.fx.wrap("take_channels")


def operator_module(op: Operator, inputs: Sequence[Edge], out: Edge) -> nn.Module:
    """The exact arithmetic of one operator between the given edges."""
    if op.kind in _MOVES:
        return Move(op.kind, op.attributes)
    made: nn.Module = _MODULES[op.kind](op, inputs, out)
    return made


# ---- activation and rescaling -------------------------------------------------------------------


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
        self.register_buffer("step", _float32(edge.scale))

    def forward(self, real: Tensor) -> Tensor:
        """Real values to codes, of any shape."""
        return onto_grid(applied(real, self.function), self.edge, self.step)


def _float32(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


# ---- operators with weights ---------------------------------------------------------------------


class _Weighted(nn.Module):
    """Codes, and per row a bias and the factor ``float32(scale_in) * scale``."""

    codes: Tensor
    factor: Tensor
    bias: Tensor

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        super().__init__()
        assert op.weights is not None
        rows = (-1,) + (1,) * (len(out.shape) - 1)
        factor = np.float32(inputs[0].scale) * op.weights.scales.astype(np.float32)
        self.register_buffer("codes", torch.tensor(op.weights.codes))
        self.register_buffer("factor", torch.tensor(factor).reshape(rows))
        bias = op.weights.bias.astype(np.float32)
        self.register_buffer("bias", torch.tensor(bias).reshape(rows))
        self.finish = Quantize(op.activation, out)

    def rescaled(self, sums: Tensor) -> Tensor:
        """Float32 sums to the codes of the output; overwrites them."""
        result: Tensor = self.finish(sums.mul_(self.factor).add_(self.bias))
        return result


class Convolution(_Weighted):
    """``conv``: exact sums of products of codes, then one rescaling."""

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        super().__init__(op, inputs, out)
        self.codes = self.codes.contiguous(memory_format=torch.channels_last)
        self.accumulator = _accumulator_type(op, inputs[0])
        a = op.attributes
        self.geometry = (a["stride"], a["padding"], a["dilation"], a["groups"])

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[N, I, H, W]`` to codes ``[N, O, H', W']``."""
        kind = self.accumulator
        sums = F.conv2d(x.to(kind), self.codes.to(kind), None, *self.geometry)
        return self.rescaled(sums.to(torch.float32))


class Linear(_Weighted):
    """``linear``: exact sums of products of codes, then one rescaling."""

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        super().__init__(op, inputs, out)
        self.accumulator = _accumulator_type(op, inputs[0])

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[N, I]`` to codes ``[N, O]``."""
        kind = self.accumulator
        return self.rescaled(F.linear(x.to(kind), self.codes.to(kind)).to(torch.float32))


class Affine(_Weighted):
    """``affine``: one factor and bias per channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Codes to codes of the same shape."""
        return self.rescaled(x * self.codes.to(torch.float32).reshape(self.factor.shape))


def _accumulator_type(op: Operator, source: Edge) -> torch.dtype:
    assert op.weights is not None
    codes = op.weights.codes
    if source.bits == FLOAT_BITS or codes.dtype != np.int8:
        return torch.float64
    sums = np.abs(codes.astype(np.int64)).reshape(len(codes), -1).sum(1)
    bound = int(sums.max(initial=0)) * source.code_range[1]
    return torch.float32 if bound < _EXACT else torch.float64


# ---- operators without weights ------------------------------------------------------------------


class Activation(nn.Module):
    """``activation``: from one grid to another through a function."""

    scale: Tensor

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        super().__init__()
        self.register_buffer("scale", _float32(inputs[0].scale))
        self.finish = Quantize(op.attributes["function"], out)

    def forward(self, x: Tensor) -> Tensor:
        """Codes to codes of the same shape."""
        result: Tensor = self.finish(x * self.scale)
        return result


class _Pair(nn.Module):
    left: Tensor
    right: Tensor

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        super().__init__()
        for side, edge in zip(("left", "right"), inputs, strict=True):
            self.register_buffer(side, _float32(edge.scale))
        self.finish = Quantize(op.activation, out)


class Sum(_Pair):
    """``add``."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Codes of two edges of one shape to codes of the same shape."""
        result: Tensor = self.finish((x * self.left).add_(y * self.right))
        return result


class Product(_Pair):
    """``mul``."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` may have one value per channel."""
        result: Tensor = self.finish((x * self.left).mul_(like_space(y * self.right, x)))
        return result


class Average(nn.Module):
    """``avgpool`` and ``globalavgpool``: exact sums, then the mean of what PyTorch counts."""

    scale: Tensor
    count: Tensor

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        super().__init__()
        source, a = inputs[0], op.attributes
        self.geometry: tuple[Any, ...] | None = None  # over the whole plane
        area, count = source.shape[1] * source.shape[2], None
        if op.kind == "avgpool":
            self.geometry = (a["kernel"], a["stride"], a["padding"], a["ceil_mode"])
            area = a["kernel"][0] * a["kernel"][1]
            count = _pooled_counts(source.shape[1:], self.geometry, a["count_include_pad"])
            count = count[:, :, : out.shape[1], : out.shape[2]].contiguous()
        exact = source.bits != FLOAT_BITS and source.code_range[1] * area < _EXACT
        self.accumulator = torch.float32 if exact else torch.float64
        self.register_buffer("scale", _float32(source.scale))
        self.register_buffer("count", _float32(area) if count is None else count)
        self.finish = Quantize(op.activation, out)

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[N, C, H, W]`` to codes ``[N, C, H', W']``."""
        if self.geometry is None:
            total = x.sum((2, 3), keepdim=True, dtype=self.accumulator)
        else:
            total = F.avg_pool2d(x.to(self.accumulator), *self.geometry, divisor_override=1)
        mean = total.to(torch.float32).mul_(self.scale).div_(self.count)
        result: Tensor = self.finish(mean)
        return result


def _pooled_counts(space: tuple[int, ...], geometry: tuple, include_pad: bool) -> Tensor:
    """``[1, 1, H', W']`` number of elements that PyTorch divides each sum by."""
    kernel, stride, padding, ceil_mode = geometry
    pad_h, pad_w = padding
    ones = torch.ones(1, 1, *space)
    if include_pad:
        ones = F.pad(ones, (pad_w, pad_w, pad_h, pad_h), value=1.0)
        padding = (0, 0)
    return F.avg_pool2d(ones, kernel, stride, padding, ceil_mode, divisor_override=1)


class Move(nn.Module):
    """An operator that only moves codes."""

    def __init__(self, kind: str, attributes: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind, self.attributes = kind, dict(attributes)

    def forward(self, *x: Tensor) -> Tensor:
        """Codes of the inputs to codes of the output."""
        return _MOVES[self.kind](self.attributes, *x)


_MOVES: dict[str, Callable[..., Tensor]] = {
    "concat": lambda a, *x: torch.cat(x, 1),
    "select": lambda a, x: take_channels(x, a["index"]),
    "subsample": lambda a, x: x[:, :, :: a["stride"][0], :: a["stride"][1]],
    "pad": lambda a, x: F.pad(x, a["padding"]),
    "maxpool": lambda a, x: F.max_pool2d(
        x, a["kernel"], a["stride"], a["padding"], ceil_mode=a["ceil_mode"]
    ),
    "flatten": lambda a, x: x.flatten(1),
}
_MODULES: dict[str, Callable[[Operator, Sequence[Edge], Edge], nn.Module]] = {
    "conv": Convolution,
    "linear": Linear,
    "affine": Affine,
    "activation": Activation,
    "add": Sum,
    "mul": Product,
    "avgpool": Average,
    "globalavgpool": Average,
}
