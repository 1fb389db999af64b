"""The whole network as an ONNX model, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper

from hw_models.network import Edge, Network, Operator
from hw_models.onnx.graph import GraphBuilder, is_real
from hw_models.onnx.layers import add_layer
from hw_models.onnx.pooling import add_average, add_global_average, add_maxpool

OPSET = 21
_Edges = Sequence[Edge]
_Tensors = Sequence[str]
_Maker = Callable[[GraphBuilder, Operator, _Edges, Edge, _Tensors], str]


@dataclass(frozen=True)
class Dialect:
    """A way to write a network in ONNX.

    Attributes:
        graph: how edges live in the graph.
        add_layer: real values of a conv, linear or affine before its activation.
        opsets: domain -> version.
    """

    graph: type[GraphBuilder]
    add_layer: Callable[[GraphBuilder, Operator, Edge, str], str]
    opsets: Mapping[str, int]


INT8 = Dialect(GraphBuilder, add_layer, {"": OPSET})


def build_model(network: Network, dialect: Dialect = INT8) -> ModelProto:
    """An ONNX model that computes what the IR says; in int8 up to rounding of exact ties."""
    graph = dialect.graph()
    source = network.edges[network.input]
    tensors = {network.input: graph.quantize("input", source)}
    for op in network.operators:
        graph.owner = op.name
        tensors[op.output] = _add(
            graph, dialect, network, op, [tensors[name] for name in op.inputs]
        )
    result = network.edges[network.output]
    graph.node("Identity", [graph.real(tensors[network.output], result)], "logits")
    inputs = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *source.shape])
    outputs = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", *result.shape])
    content = helper.make_graph(
        graph.nodes, network.name or "network", [inputs], [outputs], graph.constants
    )
    opsets = [helper.make_opsetid(*opset) for opset in dialect.opsets.items()]
    version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    model = helper.make_model(
        content, opset_imports=opsets, producer_name="ajpq", ir_version=version
    )
    checker.check_model(model)
    return model


def _add(
    graph: GraphBuilder, dialect: Dialect, network: Network, op: Operator, tensors: _Tensors
) -> str:
    """Nodes of one operator; returns the tensor of its output edge."""
    sources = [network.edges[name] for name in op.inputs]
    target = network.edges[op.output]
    if op.kind in _MOVERS:
        return _MOVERS[op.kind](graph, op, sources, target, tensors)
    if op.kind in ("conv", "linear", "affine"):
        real = dialect.add_layer(graph, op, sources[0], tensors[0])
    else:
        real = _MAKERS[op.kind](graph, op, sources, target, tensors)
    function = op.attributes["function"] if op.kind == "activation" else op.activation
    return _activate(graph, real, function, target)


def _activate(graph: GraphBuilder, real: str, function: str | None, target: Edge) -> str:
    """Apply an activation and put the result on codes.

    Rounding is monotone, so ``relu`` and ``relu6`` before it equal limits on the codes after it;
    without a node in between, ONNX Runtime fuses layer and quantization.
    """
    if function in ("relu", "relu6") and not is_real(target) and not target.signed:
        upper = (
            None if function == "relu" else int(np.rint(np.float32(6) / np.float32(target.scale)))
        )
        return graph.quantize(real, target, upper)
    if function is not None:
        real = _FUNCTIONS[function](graph, real)
    return graph.quantize(real, target)


def _relu6(graph: GraphBuilder, real: str) -> str:
    limits = [graph.constant(np.asarray(limit, dtype=np.float32)) for limit in (0, 6)]
    return graph.node("Clip", [real, *limits])


_FUNCTIONS: dict[str, Callable[[GraphBuilder, str], str]] = {
    "relu": lambda graph, real: graph.node("Relu", [real]),
    "relu6": _relu6,
    "hardswish": lambda graph, real: graph.node("HardSwish", [real]),
    "hardsigmoid": lambda graph, real: graph.node("HardSigmoid", [real], alpha=1 / 6, beta=0.5),
    "sigmoid": lambda graph, real: graph.node("Sigmoid", [real]),
    "silu": lambda graph, real: graph.node("Mul", [real, graph.node("Sigmoid", [real])]),
}


def _binary(kind: str) -> _Maker:
    def make(
        graph: GraphBuilder, op: Operator, sources: _Edges, target: Edge, tensors: _Tensors
    ) -> str:
        pairs = zip(tensors, sources, strict=True)
        images = [(_over_space(graph, tensor, edge, target), edge) for tensor, edge in pairs]
        return graph.node(kind, [graph.real(tensor, edge) for tensor, edge in images])

    return make


def _over_space(graph: GraphBuilder, tensor: str, edge: Edge, target: Edge) -> str:
    """A vector beside an image has one value per channel."""
    if len(edge.shape) == len(target.shape):
        return tensor
    return graph.node("Unsqueeze", [tensor, graph.integers([2, 3])])


def _identity(
    graph: GraphBuilder, op: Operator, sources: _Edges, target: Edge, tensors: _Tensors
) -> str:
    return graph.real(tensors[0], sources[0])


def _concat(
    graph: GraphBuilder, op: Operator, sources: _Edges, target: Edge, tensors: _Tensors
) -> str:
    return graph.node("Concat", tensors, axis=1)


def _pad_channels(graph: GraphBuilder, tensor: str, edge: Edge, before: int, after: int) -> str:
    """Zero channels in front and behind. No ``axes``: ONNX Runtime mistakes them in NHWC."""
    others = [0] * (len(edge.shape) - 1)
    pads = graph.integers([0, before, *others, 0, after, *others])
    return graph.node("Pad", [tensor, pads, graph.zero(edge)])


def _select(
    graph: GraphBuilder, op: Operator, sources: _Edges, target: Edge, tensors: _Tensors
) -> str:
    """Padding where zero channels surround the input's, else a gather behind one zero channel."""
    channels = sources[0].shape[0]
    index = [int(channel) for channel in op.attributes["index"]]
    before = next((place for place, channel in enumerate(index) if channel >= 0), 0)
    after = len(index) - before - channels
    if after >= 0 and index == [-1] * before + list(range(channels)) + [-1] * after:
        return _pad_channels(graph, tensors[0], target, before, after)
    padded = tensors[0]
    if -1 in index:
        padded = _pad_channels(graph, padded, target, 0, 1)
    places = graph.integers([channel if channel >= 0 else channels for channel in index])
    return graph.node("Gather", [padded, places], axis=1)


def _subsample(
    graph: GraphBuilder, op: Operator, sources: _Edges, target: Edge, tensors: _Tensors
) -> str:
    bounds = [[0, 0], list(sources[0].shape[1:]), [2, 3], list(op.attributes["stride"])]
    return graph.node("Slice", [tensors[0], *map(graph.integers, bounds)])


def _pad(
    graph: GraphBuilder, op: Operator, sources: _Edges, target: Edge, tensors: _Tensors
) -> str:
    left, right, top, bottom = op.attributes["padding"]
    pads = graph.integers([0, 0, top, left, 0, 0, bottom, right])
    return graph.node("Pad", [tensors[0], pads, graph.zero(target)])


def _flatten(
    graph: GraphBuilder, op: Operator, sources: _Edges, target: Edge, tensors: _Tensors
) -> str:
    return graph.node("Flatten", [tensors[0]], axis=1)


_MOVERS: dict[str, _Maker] = {
    "concat": _concat,
    "select": _select,
    "subsample": _subsample,
    "pad": _pad,
    "flatten": _flatten,
    "maxpool": add_maxpool,
}
_MAKERS: dict[str, _Maker] = {
    "activation": _identity,
    "requantize": _identity,
    "add": _binary("Add"),
    "mul": _binary("Mul"),
    "avgpool": add_average,
    "globalavgpool": add_global_average,
}
