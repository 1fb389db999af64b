"""Average pooling: exact sums, then the mean of what PyTorch counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ajpq.simulation.operators.quantize import EXACT, Quantize, float32
from hw_models.network import FLOAT_BITS, Edge, Operator


class _Mean(nn.Module):
    """``count`` elements are averaged, out of at most ``area``."""

    scale: Tensor
    count: Tensor

    def __init__(self, op: Operator, source: Edge, out: Edge, area: int, count: Tensor) -> None:
        super().__init__()
        exact = source.bits != FLOAT_BITS and source.code_range[1] * area < EXACT
        self.accumulator = torch.float32 if exact else torch.float64
        self.register_buffer("scale", float32(source.scale))
        self.register_buffer("count", count)
        self.finish = Quantize(op.activation, out)

    def rescaled(self, total: Tensor) -> Tensor:
        """Sums to the codes of the output; overwrites float32 ones."""
        mean = total.to(torch.float32).mul_(self.scale).div_(self.count)
        result: Tensor = self.finish(mean)
        return result


class GlobalAverage(_Mean):
    """``globalavgpool``."""

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        area = inputs[0].shape[1] * inputs[0].shape[2]
        super().__init__(op, inputs[0], out, area, float32(area))

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[N, C, H, W]`` to codes ``[N, C, 1, 1]``."""
        return self.rescaled(x.sum((2, 3), keepdim=True, dtype=self.accumulator))


class Average(_Mean):
    """``avgpool``."""

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        a = op.attributes
        window = {"kernel_size": a["kernel"], "stride": a["stride"], "padding": a["padding"]}
        window["ceil_mode"] = a["ceil_mode"]
        count = _pooled_counts(inputs[0].shape[1:], window, a["count_include_pad"])
        count = count[:, :, : out.shape[1], : out.shape[2]].contiguous()
        super().__init__(op, inputs[0], out, a["kernel"][0] * a["kernel"][1], count)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[N, C, H, W]`` to codes ``[N, C, H', W']``."""
        x = x.to(self.accumulator)
        return self.rescaled(F.avg_pool2d(x, **self.window, divisor_override=1))


def _pooled_counts(space: tuple[int, ...], window: Mapping[str, Any], include_pad: bool) -> Tensor:
    """``[1, 1, H', W']`` number of elements that PyTorch divides each sum by."""
    pad_h, pad_w = window["padding"]
    ones = torch.ones(1, 1, *space)
    if include_pad:
        ones = F.pad(ones, (pad_w, pad_w, pad_h, pad_h), value=1.0)
        window = {**window, "padding": (0, 0)}
    return F.avg_pool2d(ones, **window, divisor_override=1)
