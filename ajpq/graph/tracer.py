"""The graph under construction while a module is traced.

Operations that only move channels (slice, chunk, view, transpose, channel padding) emit nothing:
a :class:`Value` carries the channel of an edge that each of its positions holds, and one
``select`` node appears when an arithmetic operation reads a rearranged value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ajpq.graph.structure import Node
from hw_models.errors import UnsupportedModuleError


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor as a rearrangement of the channels of an edge.

    Attributes:
        channels: the channel of ``edge`` at every position, -1 for zeros; any number of axes.
        space: ``(H, W)``, or ``()`` for vectors.
    """

    edge: str
    channels: np.ndarray
    space: tuple[int, ...]

    @classmethod
    def of_edge(cls, edge: str, shape: Sequence[int]) -> Value:
        """An edge as it is."""
        return cls(edge, np.arange(shape[0]), tuple(shape[1:]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the batch dimension."""
        return (*self.channels.shape, *self.space)


@dataclass(eq=False)
class Tracer:
    """The graph under construction and the value of every fx node seen so far."""

    input_shape: tuple[int, ...]
    batch: int
    stored: Mapping[str, str]  # placeholder to the name in the state dict
    values: dict[Any, Any] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    selected: dict[tuple[str, bytes], str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    constants: dict[Any, np.ndarray] = field(default_factory=dict)  # of the fx nodes that hold any

    def __post_init__(self) -> None:
        self.shapes["input"] = self.input_shape

    def emit(
        self,
        name: str,
        kind: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        *,
        attributes: Mapping[str, Any] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Value:
        """Append a node whose output edge has its name."""
        unique, number = name, 1
        while unique in self.shapes:
            unique, number = f"{name}_{number}", number + 1
        self.nodes.append(Node(unique, kind, inputs, unique, attributes or {}, parameters or {}))
        self.shapes[unique] = shape
        return Value.of_edge(unique, shape)

    def edge(self, fx_node: Any) -> str:
        """The edge that holds a value, after a ``select`` where channels were rearranged."""
        if fx_node not in self.values:
            raise unsupported(fx_node, "is a constant where an activation is expected")
        value = self.values[fx_node]
        if value.channels.ndim != 1:
            raise unsupported(fx_node, f"has shape {value.shape} where (C, H, W) or (C,) is needed")
        return self.materialise(value, fx_node.name)

    def materialise(self, value: Value, name: str) -> str:
        """The edge of a value whose channels are read in their flat order."""
        channels = value.channels.reshape(-1)
        source = self.shapes[value.edge]
        if np.array_equal(channels, np.arange(source[0])):
            return value.edge
        key = value.edge, channels.tobytes()
        if key not in self.selected:
            index = tuple(channels.tolist())
            made = self.emit(
                f"{name}_select", "select", (value.edge,), (len(index), *source[1:]),
                attributes={"index": index},
            )  # fmt: skip
            self.selected[key] = made.edge
        return self.selected[key]

    def parameters(self, fx_node: Any, arguments: Mapping[str, Any], roles: Sequence[str]) -> dict:
        """Role to state-dict name; computed or reused parameters are refused."""
        names = {}
        for role in roles:
            source = arguments.get(role)
            if source is None:
                continue
            if source.name not in self.stored:
                raise unsupported(fx_node, f"computes its {role} from other tensors")
            names[role] = self.stored[source.name]
            if names[role] in self.used:
                raise unsupported(fx_node, f"uses {names[role]!r} a second time")
        self.used.update(names.values())
        return names


def unsupported(fx_node: Any, reason: str) -> UnsupportedModuleError:
    """The error that names module path, class and operation."""
    stack = list((fx_node.meta.get("nn_module_stack") or {}).values())
    path, cls = stack[-1] if stack else ("", "")
    where = f"module {path!r}" if path else "the network"
    cls = str(getattr(cls, "__name__", cls)).rsplit(".", 1)[-1]
    return UnsupportedModuleError(f"{where} ({cls}): {fx_node.target} {reason}")


def shape_of(tracer: Tracer, fx_node: Any) -> tuple[int, ...]:
    shape = tuple(fx_node.meta["val"].shape)
    if not shape or shape[0] != tracer.batch:
        raise unsupported(fx_node, f"changes the batch dimension (shape {shape})")
    return shape[1:]


def pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])
