"""What the ATen operations become that move channels and compute nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ajpq.graph.tracer import Tracer, Value, shape_of, unsupported


def same(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    return tracer.values[a.get("self", a.get("input"))]


def reshape(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    source, shape = a["self"], shape_of(tracer, fx_node)
    value: Value = tracer.values[source]
    rank = len(value.space)
    if len(shape) > rank and shape[len(shape) - rank :] == value.space:
        return Value(value.edge, value.channels.reshape(shape[: len(shape) - rank]), value.space)
    if len(shape) != 1:
        raise unsupported(fx_node, f"turns {value.shape} into {shape}")
    edge = tracer.edge(source)
    return tracer.emit(fx_node.name, "flatten", (edge,), shape)


def permute(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    value: Value = tracer.values[a["self"]]
    rank = len(value.shape) + 1
    if "dims" in a:
        order = [d % rank for d in a["dims"]]
    else:
        order = list(range(rank))
        first, second = a["dim0"] % rank, a["dim1"] % rank
        order[first], order[second] = order[second], order[first]
    inner = value.channels.ndim
    if order[0] != 0 or order[inner + 1 :] != list(range(inner + 1, rank)):
        raise unsupported(fx_node, f"moves batch or space (order {tuple(order)})")
    moved = value.channels.transpose([d - 1 for d in order[1 : inner + 1]])
    return Value(value.edge, moved, value.space)


def slice_axis(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    value: Value = tracer.values[a["self"]]
    size = (tracer.batch, *value.shape)[a["dim"] % (len(value.shape) + 1)]
    window = slice(a["start"], a["end"], a["step"])
    axis = a["dim"] % (len(value.shape) + 1) - 1
    if range(*window.indices(size)) == range(size):
        return value
    if axis < 0:
        raise unsupported(fx_node, "cuts the batch")
    if axis < value.channels.ndim:
        cut = (slice(None),) * axis + (window,)
        return Value(value.edge, value.channels[cut], value.space)
    return every_nth(tracer, fx_node, a, window, axis - value.channels.ndim)


def every_nth(tracer: Tracer, fx_node: Any, a: dict, window: slice, axis: int) -> Value:
    edge = tracer.edge(a["self"])
    shape = tracer.shapes[edge]
    start, stop, step = window.indices(shape[1 + axis])
    if start != 0 or range(start, stop, step) != range(0, shape[1 + axis], step):
        raise unsupported(fx_node, f"crops space ({start}:{stop}:{step})")
    stride = tuple(step if axis == d else 1 for d in (0, 1))
    made = next((n for n in tracer.nodes if n.output == edge), None)
    if made is not None and made.kind == "subsample":  # x[:, :, ::2, ::2] is two slices
        edge = made.inputs[0]
        stride = tuple(s * t for s, t in zip(stride, made.attributes["stride"], strict=True))
    return tracer.emit(
        fx_node.name, "subsample", (edge,), shape_of(tracer, fx_node), attributes={"stride": stride}
    )


def pad(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    value: Value = tracer.values[a["self"]]
    if a.get("mode", "constant") != "constant" or a["value"] not in (None, 0):
        mode = a.get("mode", "constant")
        raise unsupported(fx_node, f"pads with mode {mode!r} and value {a['value']}, expected 0")
    pads = [*a["pad"], 0, 0, 0, 0, 0, 0][:6]
    space, channel = tuple(pads[:4]), pads[4:]
    if not value.space:
        space, channel = (0, 0, 0, 0), pads[:2]
    if min(pads) < 0 or value.channels.ndim != 1 or any(a["pad"][len(value.shape) * 2 :]):
        raise unsupported(fx_node, f"pads by {a['pad']}")
    padded = Value(value.edge, np.pad(value.channels, channel, constant_values=-1), value.space)
    if not any(space):
        return padded
    edge = tracer.materialise(padded, fx_node.name)
    return tracer.emit(
        fx_node.name, "pad", (edge,), shape_of(tracer, fx_node), attributes={"padding": space}
    )


def constant(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> None:
    tracer.constants[fx_node] = tracer.constants[a["self"]]


def gather(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    value: Value = tracer.values[a["self"]]
    channel = a["indices"][1] if len(a["indices"]) > 1 else None
    others = [index for place, index in enumerate(a["indices"]) if place != 1]
    if channel not in tracer.constants or any(index is not None for index in others):
        raise unsupported(fx_node, "indexes with other than one fixed list of channels")
    index = tracer.constants[channel]
    if index.ndim != 1 or index.dtype != np.int64 or value.channels.ndim != 1:
        raise unsupported(fx_node, f"indexes with {index.dtype} of shape {index.shape}")
    return Value(value.edge, value.channels[index], value.space)


def split(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> list[Value]:
    value: Value = tracer.values[a["self"]]
    axis = a["dim"] % (len(value.shape) + 1) - 1
    if not 0 <= axis < value.channels.ndim:
        raise unsupported(fx_node, f"splits along dimension {a['dim']}, expected channels")
    sizes = [part.shape[axis + 1] for part in fx_node.meta["val"]]
    parts = np.split(value.channels, np.cumsum(sizes)[:-1].tolist(), axis)
    return [Value(value.edge, part, value.space) for part in parts]


def getitem(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    return tracer.values[a["self"]][a["index"]]


def dropout(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    if a["train"]:
        raise unsupported(fx_node, "drops values in evaluation mode too")
    return same(tracer, fx_node, a)
