"""What goes into a ``.tflite`` file and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tflite.Model import Model
from tflite.TensorType import TensorType

_TYPES = {value: name.lower() for name, value in vars(TensorType).items() if name.isupper()}


@dataclass(frozen=True)
class End:
    """A tensor that a caller fills or reads: ``real = scale * (code - zero_point)``."""

    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]


def inputs_and_outputs(model: bytes) -> tuple[tuple[End, ...], tuple[End, ...]]:
    """Of the first graph in a file, in the order that callers count them."""
    graph = Model.GetRootAs(model, 0).Subgraphs(0)
    inputs = tuple(_end(graph, graph.Inputs(i)) for i in range(graph.InputsLength()))
    return inputs, tuple(_end(graph, graph.Outputs(i)) for i in range(graph.OutputsLength()))


def _end(graph: Any, number: int) -> End:
    tensor = graph.Tensors(number)
    grid = tensor.Quantization()
    return End(
        shape=tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength())),
        dtype=_TYPES[tensor.Type()],
        scales=tuple(grid.Scale(i) for i in range(grid.ScaleLength())) if grid else (),
        zero_points=tuple(grid.ZeroPoint(i) for i in range(grid.ZeroPointLength())) if grid else (),
    )
