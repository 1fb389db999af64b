"""The reference simulation: integer codes, exact accumulators, one fixed order of rescaling.

Every recorded metric is measured here. Results do not depend on the batch size, the number of
threads, the memory layout, or on whether pruned channels are still there: integer sums are exact
(float32 below 2**24, float64 above) and everything after them is one float32 operation per element
in a fixed order. Layers with 32-bit weights or inputs cannot be exact; they accumulate in float64
and are rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.graph.execute import like_space, take_channels
from ajpq.grids import quantize_edge
from ajpq.walk import Step, run_steps
from hw_models.network import FLOAT_BITS, Edge, Network, Operator

_EXACT = 2**24  # float32 holds every integer up to here


def simulate(network: Network, images: Tensor) -> Tensor:
    """Run a compressed network exactly.

    Args:
        network: as ``apply_policy`` makes it.
        images: ``[N, C, H, W]`` float32, normalised.

    Returns:
        Logits ``[N, classes]`` float32.
    """
    return prepare(network)(images)


def prepare(network: Network) -> Callable[[Tensor], Tensor]:
    """Convert the weights once; the result maps images to logits like :func:`simulate`."""
    return run_steps(network, [(op, step_of(network, op)) for op in network.operators])


def step_of(network: Network, op: Operator) -> Step:
    """The exact arithmetic of one operator, which leaves its inputs as they are."""
    return step_between(op, [network.edges[edge] for edge in op.inputs], network.edges[op.output])


def step_between(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    """:func:`step_of` an operator between other edges than the network's."""
    return _STEPS[op.kind](op, inputs, out)


# ---- activation and rescaling -------------------------------------------------------------------


# every function may overwrite its argument; transcendental ones run in float64 and round once
_FUNCTIONS: dict[str | None, Step] = {
    None: lambda real: real,
    "relu": lambda real: real.clamp_(min=0),
    "relu6": lambda real: real.clamp_(0, 6),
    "hardsigmoid": lambda real: real.add_(3).clamp_(0, 6).div_(6),
    "hardswish": lambda real: real.mul_((real + 3).clamp_(0, 6)).div_(6),
    "sigmoid": lambda real: real.double().sigmoid_().float(),
    "silu": lambda real: real.double().sigmoid_().mul_(real).float(),
}


def activated(real: Tensor, function: str | None, edge: Edge) -> Tensor:
    """Real values through an activation and onto the codes of ``edge``; may overwrite them."""
    if function == "relu" and edge.bits != FLOAT_BITS and not edge.signed:
        function = None  # clamping to unsigned codes does it
    return quantize_edge(applied(real, function), edge)


def applied(real: Tensor, function: str | None) -> Tensor:
    """Real values through an activation; may overwrite them."""
    result: Tensor = _FUNCTIONS[function](real)
    return result


def _float32(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


# ---- operators ----------------------------------------------------------------------------------


def _multiplier(op: Operator, source: Edge, rank: int) -> tuple[Tensor, Tensor]:
    """``float32(scale_in) * scales`` and the bias, shaped for a result of ``rank`` axes."""
    assert op.weights is not None
    factors = np.float32(source.scale) * op.weights.scales.astype(np.float32)
    shape = (-1,) + (1,) * (rank - 2)
    bias = torch.from_numpy(op.weights.bias.astype(np.float32))
    return torch.from_numpy(factors).reshape(shape), bias.reshape(shape)


def _accumulator_type(op: Operator, source: Edge) -> torch.dtype:
    assert op.weights is not None
    codes = op.weights.codes
    if source.bits == FLOAT_BITS or codes.dtype != np.int8:
        return torch.float64
    sums = np.abs(codes.astype(np.int64)).reshape(len(codes), -1).sum(1)
    bound = int(sums.max(initial=0)) * source.code_range[1]
    return torch.float32 if bound < _EXACT else torch.float64


def _layer(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    assert op.weights is not None
    source = inputs[0]
    dtype = _accumulator_type(op, source)
    codes = torch.from_numpy(op.weights.codes).to(dtype)
    factor, bias = _multiplier(op, source, 1 + len(out.shape))
    a = op.attributes
    if op.kind == "conv":
        codes = codes.contiguous(memory_format=torch.channels_last)

    def step(x: Tensor) -> Tensor:
        x = x.to(dtype)
        if op.kind == "linear":
            accumulated = F.linear(x, codes)
        else:
            accumulated = F.conv2d(
                x, codes, None, a["stride"], a["padding"], a["dilation"], a["groups"]
            )
        real = accumulated.to(torch.float32).mul_(factor).add_(bias)
        return activated(real, op.activation, out)

    return step


def _affine(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    assert op.weights is not None
    factor, bias = _multiplier(op, inputs[0], 1 + len(out.shape))
    codes = torch.from_numpy(op.weights.codes.astype(np.float32)).reshape(factor.shape)
    return lambda x: activated((x * codes).mul_(factor).add_(bias), op.activation, out)


def _activation(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    scale = _float32(inputs[0].scale)
    return lambda x: activated(x * scale, op.attributes["function"], out)


def _add(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    left, right = (_float32(edge.scale) for edge in inputs)
    return lambda x, y: activated((x * left).add_(y * right), op.activation, out)


def _mul(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    left, right = (_float32(edge.scale) for edge in inputs)
    return lambda x, y: activated((x * left).mul_(like_space(y * right, x)), op.activation, out)


def _maxpool(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    a = op.attributes
    return lambda x: F.max_pool2d(
        x, a["kernel"], a["stride"], a["padding"], ceil_mode=a["ceil_mode"]
    )


def _mean_type(edge: Edge, count: int) -> torch.dtype:
    exact = edge.bits != FLOAT_BITS and edge.code_range[1] * count < _EXACT
    return torch.float32 if exact else torch.float64


def _average(total: Tensor, scale: Tensor, count: Tensor) -> Tensor:
    return total.to(torch.float32).mul_(scale).div_(count)


def _globalavgpool(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    area = inputs[0].shape[1] * inputs[0].shape[2]
    dtype, scale, count = _mean_type(inputs[0], area), _float32(inputs[0].scale), _float32(area)

    def step(x: Tensor) -> Tensor:
        total = x.sum((2, 3), keepdim=True, dtype=dtype)
        return activated(_average(total, scale, count), op.activation, out)

    return step


def _avgpool(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    a = op.attributes
    geometry = (a["kernel"], a["stride"], a["padding"], a["ceil_mode"])
    area = a["kernel"][0] * a["kernel"][1]
    dtype, scale = _mean_type(inputs[0], area), _float32(inputs[0].scale)
    count = _pooled_counts(inputs[0].shape[1:], geometry, a["count_include_pad"])
    count = count[:, :, : out.shape[1], : out.shape[2]]

    def step(x: Tensor) -> Tensor:
        total = F.avg_pool2d(x.to(dtype), *geometry, divisor_override=1)
        return activated(_average(total, scale, count), op.activation, out)

    return step


def _pooled_counts(space: tuple[int, ...], geometry: tuple, include_pad: bool) -> Tensor:
    """``[1, 1, H', W']`` number of elements that PyTorch divides each sum by."""
    kernel, stride, padding, ceil_mode = geometry
    pad_h, pad_w = padding
    ones = torch.ones(1, 1, *space)
    if include_pad:
        ones = F.pad(ones, (pad_w, pad_w, pad_h, pad_h), value=1.0)
        padding = (0, 0)
    return F.avg_pool2d(ones, kernel, stride, padding, ceil_mode, divisor_override=1)


_STEPS: dict[str, Callable[[Operator, list[Edge], Edge], Step]] = {
    "conv": _layer,
    "linear": _layer,
    "affine": _affine,
    "activation": _activation,
    "add": _add,
    "mul": _mul,
    "concat": lambda op, inputs, out: lambda *x: torch.cat(x, 1),
    "select": lambda op, inputs, out: lambda x: take_channels(x, op.attributes["index"]),
    "subsample": lambda op, inputs, out: (
        lambda x: x[:, :, :: op.attributes["stride"][0], :: op.attributes["stride"][1]]
    ),
    "pad": lambda op, inputs, out: lambda x: F.pad(x, op.attributes["padding"]),
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "globalavgpool": _globalavgpool,
    "flatten": lambda op, inputs, out: lambda x: x.flatten(1),
}
