"""Operators with weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ajpq.simulation.operators.quantize import EXACT, Quantize
from hw_models.network import FLOAT_BITS, Edge, Operator


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
    return torch.float32 if bound < EXACT else torch.float64
