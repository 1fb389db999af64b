"""A TensorFlow Lite program as plain data, before it becomes a flatbuffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from hw_models.network import Network, Operator

ADDRESSABLE = (-128, 127)


@dataclass(frozen=True)
class Grid:
    """``real = scale * (code - zero_point)`` for an int8 tensor."""

    scale: float
    zero_point: int = 0

    @property
    def largest(self) -> float:
        """Largest real value that a code stands for."""
        return self.scale * (ADDRESSABLE[1] - self.zero_point)


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor; constants carry ``data``.

    Attributes:
        scales: empty if the tensor is not quantized, one number, or one per slice of ``axis``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "int8"
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int = 0
    data: np.ndarray | None = None


@dataclass(frozen=True)
class Operation:
    """One TensorFlow Lite operator.

    Attributes:
        code: a name in the schema's ``BuiltinOperator``.
        inputs, output: tensor numbers.
        table: the schema's options table, and its scalar fields.
        owner: the IR operator that it belongs to.
    """

    code: str
    inputs: tuple[int, ...]
    output: int
    table: str
    fields: Mapping[str, Any]
    owner: str


@dataclass
class Program:
    """Tensors and operations in the making; ``edges`` maps an IR edge to its tensor."""

    tensors: list[Tensor] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    edges: dict[str, int] = field(default_factory=dict)
    owner: str = ""

    def add(self, tensor: Tensor) -> int:
        """Add a tensor and return its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, name: str, shape: tuple[int, ...], grid: Grid) -> int:
        """Add an int8 tensor that an operation will fill."""
        return self.add(Tensor(name, shape, scales=(grid.scale,), zero_point=grid.zero_point))

    def integers(self, name: str, values: Any) -> int:
        """Add a constant that says how, not what: paddings, axes, shapes."""
        data = np.asarray(values, np.int32)
        return self.add(Tensor(name, data.shape, "int32", data=data))

    def grid(self, tensor: int) -> Grid:
        """The grid of an int8 tensor."""
        found = self.tensors[tensor]
        return Grid(found.scales[0], found.zero_point)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Batch dimension first, channels last."""
        return self.tensors[tensor].shape

    def emit(
        self,
        code: str,
        inputs: tuple[int, ...],
        output: int,
        table: str = "",
        fields: Mapping[str, Any] = MappingProxyType({}),
    ) -> int:
        """Append an operation and return its output."""
        self.operations.append(Operation(code, inputs, output, table, fields, self.owner))
        return output


@dataclass(frozen=True, eq=False)
class Site:
    """One IR operator at the moment of being written.

    Attributes:
        sources: the tensors that it reads.
        out: the tensor that it fills.
        fused: code of the activation that TensorFlow Lite applies with it.
    """

    program: Program
    network: Network
    operator: Operator
    sources: tuple[int, ...]
    out: int
    fused: int = 0

    @property
    def source(self) -> int:
        """The first tensor that it reads."""
        return self.sources[0]
