"""Operators without weights that change grids, and those that only move codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ajpq.graph.execute import like_space, take_channels
from ajpq.simulation.operators.quantize import Quantize, float32
from hw_models.network import Edge, Operator

# they ask for the number of axes, which symbolic tracing does not know
torch.fx.wrap("like_space")
torch.fx.wrap("take_channels")


class Rescale(nn.Module):
    """``activation`` and ``requantize``: from one grid to another, through a function or none."""

    scale: Tensor

    def __init__(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> None:
        super().__init__()
        self.register_buffer("scale", float32(inputs[0].scale))
        self.finish = Quantize(op.attributes.get("function"), out)

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
            self.register_buffer(side, float32(edge.scale))
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


class Move(nn.Module):
    """An operator that only moves codes."""

    def __init__(self, kind: str, attributes: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind, self.attributes = kind, dict(attributes)

    def forward(self, *x: Tensor) -> Tensor:
        """Codes of the inputs to codes of the output."""
        return MOVES[self.kind](self.attributes, *x)


MOVES: dict[str, Callable[..., Tensor]] = {
    "concat": lambda a, *x: torch.cat(x, 1),
    "select": lambda a, x: take_channels(x, a["index"]),
    "subsample": lambda a, x: x[:, :, :: a["stride"][0], :: a["stride"][1]],
    "pad": lambda a, x: F.pad(x, a["padding"]),
    "maxpool": lambda a, x: F.max_pool2d(
        x, a["kernel"], a["stride"], a["padding"], ceil_mode=a["ceil_mode"]
    ),
    "flatten": lambda a, x: x.flatten(1),
}
