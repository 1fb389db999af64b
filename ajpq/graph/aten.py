"""What each ATen operation of a traced module becomes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ajpq.graph import layout
from ajpq.graph.tracer import Tracer, Value, pair, shape_of, unsupported


def _operation(fx_node: Any) -> tuple[str, bool]:
    """Name without namespace and whether it works in place."""
    if fx_node.target is operator.getitem:
        return "getitem", False
    if not isinstance(fx_node.target, torch._ops.OpOverload):
        return str(fx_node.target), False
    name = fx_node.target._schema.name.split("::")[1]
    return name.removesuffix("_"), name.endswith("_")


def operation_name(fx_node: Any) -> str:
    """Name of an ATen call without its namespace."""
    return _operation(fx_node)[0]


def is_supported(fx_node: Any) -> bool:
    """Whether an operation of this name is known, or has no effect."""
    name, in_place = _operation(fx_node)
    return name in _HANDLERS or not (fx_node.users or in_place)


def convert(tracer: Tracer, fx_node: Any) -> None:
    """Append what one ATen call becomes.

    Raises:
        UnsupportedModuleError: the call, or the way it is used, is not supported.
    """
    name, in_place = _operation(fx_node)
    if name not in _HANDLERS or (not fx_node.users and not in_place):
        return
    arguments = _arguments(fx_node)
    result = _HANDLERS[name](tracer, fx_node, arguments)
    if result is None:  # a constant
        return
    if in_place:
        old = tracer.values[fx_node.args[0]]
        for other, value in tracer.values.items():
            if value is old:
                tracer.values[other] = result
    tracer.values[fx_node] = result


def _arguments(fx_node: Any) -> dict[str, Any]:
    if fx_node.target is operator.getitem:
        return {"self": fx_node.args[0], "index": fx_node.args[1]}
    filled = {}
    for position, argument in enumerate(fx_node.target._schema.arguments):
        given = position < len(fx_node.args)
        default = fx_node.kwargs.get(argument.name, argument.default_value)
        filled[argument.name] = fx_node.args[position] if given else default
    return filled


def _owner(names: Mapping[str, str], role: str) -> str:
    """``layer1.0.conv1.weight`` belongs to ``layer1.0.conv1``."""
    return names[role].removesuffix(f".{role}")


def _conv(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    names = tracer.parameters(fx_node, a, ("weight", "bias"))
    kernel = tuple(a["weight"].meta["val"].shape[2:])
    dilation = pair(a["dilation"])
    attributes = {
        "stride": pair(a["stride"]),
        "padding": _padding(fx_node, a["padding"], kernel, dilation),
        "dilation": dilation,
        "groups": a["groups"],
        "kernel": kernel,
    }
    edge, shape = tracer.edge(a["input"]), shape_of(tracer, fx_node)
    return tracer.emit(
        _owner(names, "weight"), "conv", (edge,), shape, attributes=attributes, parameters=names
    )


def _padding(fx_node: Any, given: Any, kernel: Any, dilation: Any) -> tuple[int, int]:
    if not isinstance(given, str):
        return pair(given)
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if given == "same" and any(t % 2 for t in total):
        raise unsupported(fx_node, "pads the two sides differently (padding='same')")
    return (0, 0) if given == "valid" else (total[0] // 2, total[1] // 2)


def _linear(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    names = tracer.parameters(fx_node, a, ("weight", "bias"))
    edge, shape = tracer.edge(a["input"]), shape_of(tracer, fx_node)
    if len(shape) != 1 or len(tracer.shapes[edge]) != 1:
        raise unsupported(fx_node, f"reads shape {tracer.shapes[edge]}, expected (channels,)")
    return tracer.emit(_owner(names, "weight"), "linear", (edge,), shape, parameters=names)


def _batchnorm(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    if a["running_mean"] is None or a["training"]:
        raise unsupported(fx_node, "has no running statistics")
    names = tracer.parameters(fx_node, a, ("weight", "bias", "running_mean", "running_var"))
    edge, shape = tracer.edge(a["input"]), shape_of(tracer, fx_node)
    attributes = {"eps": a["eps"], "momentum": a["momentum"]}
    name = _owner(names, "running_mean")
    return tracer.emit(name, "batchnorm", (edge,), shape, attributes=attributes, parameters=names)


def _activation(function: str) -> Callable[[Tracer, Any, dict[str, Any]], Value]:
    def handler(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
        edge = tracer.edge(a["self"])
        shape = shape_of(tracer, fx_node)
        return tracer.emit(
            fx_node.name, "activation", (edge,), shape, attributes={"function": function}
        )

    return handler


def _clamp(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    limits = (a.get("min_val", a.get("min")), a.get("max_val", a.get("max")))
    if limits not in ((0, 6), (0, None)):
        raise unsupported(fx_node, f"clamps to {limits}, expected (0, 6)")
    return _activation("relu" if limits[1] is None else "relu6")(tracer, fx_node, a)


def _binary(kind: str) -> Callable[[Tracer, Any, dict[str, Any]], Value]:
    def handler(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
        both = [a["self"], a["other"]]
        if a.get("alpha", 1) != 1 or any(node not in tracer.values for node in both):
            raise unsupported(fx_node, "with a constant is not supported")
        shape = shape_of(tracer, fx_node)
        full = [node for node in both if tracer.values[node].shape == shape]
        gates = [node for node in both if node not in full]
        if not full or (gates and not _is_gate(tracer.values[gates[0]], shape, kind)):
            shapes = [tracer.values[node].shape for node in both]
            raise unsupported(fx_node, f"broadcasts {shapes[0]} and {shapes[1]}")
        inputs = [tracer.edge(node) for node in full]
        inputs += [tracer.materialise(tracer.values[gate], gate.name) for gate in gates]
        return tracer.emit(fx_node.name, kind, tuple(inputs), shape)

    return handler


def _is_gate(value: Value, shape: tuple[int, ...], kind: str) -> bool:
    return kind == "mul" and value.shape == (shape[0], 1, 1)


def _concat(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    if a["dim"] % (len(shape_of(tracer, fx_node)) + 1) != 1:
        raise unsupported(fx_node, f"joins along dimension {a['dim']}, expected channels")
    edges = tuple(tracer.edge(node) for node in a["tensors"])
    if len(edges) == 1:
        return tracer.values[a["tensors"][0]]
    return tracer.emit(fx_node.name, "concat", edges, shape_of(tracer, fx_node))


def _pool(kind: str) -> Callable[[Tracer, Any, dict[str, Any]], Value]:
    def handler(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
        if a.get("divisor_override") is not None or pair(a.get("dilation", 1)) != (1, 1):
            raise unsupported(fx_node, "with dilation or divisor_override is not supported")
        kernel = pair(a["kernel_size"])
        attributes = {
            "kernel": kernel,
            "stride": pair(a["stride"]) if a["stride"] else kernel,
            "padding": pair(a["padding"]),
            "ceil_mode": bool(a["ceil_mode"]),
        }
        if kind == "avgpool":
            attributes["count_include_pad"] = bool(a["count_include_pad"])
        edge = tracer.edge(a["self"])
        return tracer.emit(
            fx_node.name, kind, (edge,), shape_of(tracer, fx_node), attributes=attributes
        )

    return handler


def _adaptive(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    edge, shape = tracer.edge(a["self"]), shape_of(tracer, fx_node)
    source = tracer.shapes[edge]
    if shape[1:] == (1, 1):
        return tracer.emit(fx_node.name, "globalavgpool", (edge,), shape)
    if shape == source:
        return tracer.values[a["self"]]
    if any(big % small for big, small in zip(source[1:], shape[1:], strict=True)):
        raise unsupported(fx_node, f"turns {source[1:]} into {shape[1:]}, which is no multiple")
    kernel = (source[1] // shape[1], source[2] // shape[2])
    attributes = {"kernel": kernel, "stride": kernel, "padding": (0, 0), "ceil_mode": False}
    attributes["count_include_pad"] = True
    return tracer.emit(fx_node.name, "avgpool", (edge,), shape, attributes=attributes)


def _mean(tracer: Tracer, fx_node: Any, a: dict[str, Any]) -> Value:
    edge = tracer.edge(a["self"])
    rank = len(tracer.shapes[edge]) + 1
    if rank != 4 or sorted(d % rank for d in a["dim"] or ()) != [2, 3]:
        raise unsupported(fx_node, f"over {a['dim']}, expected the two dimensions of space")
    channels = tracer.shapes[edge][0]
    pooled = tracer.emit(fx_node.name, "globalavgpool", (edge,), (channels, 1, 1))
    if a["keepdim"]:
        return pooled
    return tracer.emit(f"{fx_node.name}_flatten", "flatten", (pooled.edge,), (channels,))


_Handler = Callable[[Tracer, Any, dict[str, Any]], Any]
_HANDLERS: dict[str, _Handler] = {
    "conv2d": _conv,
    "linear": _linear,
    "batch_norm": _batchnorm,
    **{f: _activation(f) for f in ("relu", "hardswish", "hardsigmoid", "sigmoid", "silu")},
    "relu6": _activation("relu6"),
    **dict.fromkeys(("hardtanh", "clamp"), _clamp),
    "add": _binary("add"),
    "mul": _binary("mul"),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concat),
    "max_pool2d": _pool("maxpool"),
    "avg_pool2d": _pool("avgpool"),
    "adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    **dict.fromkeys(("flatten", "unflatten", "view", "_unsafe_view", "reshape"), layout.reshape),
    **dict.fromkeys(("squeeze", "unsqueeze"), layout.reshape),
    **dict.fromkeys(("permute", "transpose"), layout.permute),
    "slice": layout.slice_axis,
    **dict.fromkeys(("pad", "constant_pad_nd"), layout.pad),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), layout.split),
    "getitem": layout.getitem,
    "index": layout.gather,
    "lift_fresh_copy": layout.constant,
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), layout.dropout),
    **dict.fromkeys(("contiguous", "clone", "detach", "alias", "to", "_to_copy"), layout.same),
}  # fmt: skip
