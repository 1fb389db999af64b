"""Codes as bytes: convolution, scaling, clamping and rounding in one pass of oneDNN.

Two to three times as fast as float32, on processors that add products of bytes exactly. The
operators are those that PyTorch's own quantization for x86 compiles to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ajpq.simulation.kernels.floats import FloatKernels, clamp_range, finish
from hw_models.network import FLOAT_BITS, Edge, Operator

_UNROUNDED: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")


def _conv(x: Tensor, *arguments: Any) -> Tensor:
    result: Tensor = torch.ops.onednn.qconv2d_pointwise(x, *arguments)
    return result


def _zero(edge: Edge) -> int:
    """The byte that stands for 0: oneDNN wants unsigned inputs."""
    return 128 if edge.signed else 0


class Int8Kernels:
    """An edge of codes is kept as uint8, signed codes shifted by 128."""

    def __init__(self) -> None:
        self._floats = FloatKernels()

    def store(self, codes: Tensor, edge: Edge) -> Tensor:
        """Float32 codes to bytes; real values stay."""
        if edge.bits == FLOAT_BITS:
            return codes
        # Straight to uint8 is not vectorised and takes six times as long.
        shorts = codes.to(torch.int16)
        return (shorts.add_(_zero(edge)) if edge.signed else shorts).to(torch.uint8)

    def load(self, stored: Tensor, edge: Edge) -> Tensor:
        """Bytes to float32 codes; real values stay."""
        if edge.bits == FLOAT_BITS:
            return stored
        codes = stored.to(torch.float32)
        return codes.sub_(_zero(edge)) if edge.signed else codes

    def layer(self, op: Operator, source: Edge, out: Edge) -> Callable[[Tensor], Tensor]:
        """A layer with an activation that clamps or none."""
        assert op.weights is not None
        bytes_only = op.weights.codes.dtype == np.int8 and source.bits != FLOAT_BITS
        if op.kind == "conv" and bytes_only:
            return _convolution(op, source, out)
        step = self._floats.layer(op, source, out)
        return lambda x: self.store(step(self.load(x, source)), out)


def _convolution(op: Operator, source: Edge, out: Edge) -> Callable[[Tensor], Tensor]:
    assert op.weights is not None
    scales = torch.from_numpy(op.weights.scales.astype(np.float32))
    bias = torch.from_numpy(op.weights.bias.astype(np.float32))
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    a = op.attributes
    geometry = (list(a["stride"]), list(a["padding"]), list(a["dilation"]), a["groups"])
    # Told the size of the input, it chooses the very layout that the convolution wants; otherwise
    # some numbers of channels are put in order again at every call, at many times its cost.
    packed: Tensor = torch.ops.onednn.qconv_prepack(
        torch.from_numpy(op.weights.codes),
        scales,
        source.scale,
        _zero(source),
        *geometry,
        [1, *source.shape],
    )
    given = (source.scale, _zero(source), packed, scales, zeros, bias, *geometry)
    low, high = clamp_range(op.activation, out)
    if out.bits == FLOAT_BITS:
        return lambda x: finish(op.activation, out)(_conv(x, *given, *_UNROUNDED))
    ends = [low * out.scale, high * out.scale]
    rounded = (out.scale, _zero(out), torch.uint8, "hardtanh", ends, "")
    return lambda x: _conv(x, *given, *rounded)
