"""Run a graph: plain, for calibration, with fake quantization, or for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.graph.structure import LAYER_KINDS, Graph, Node, layers

Tensors = Mapping[str, Tensor]
Hook = Callable[[str, Tensor], Tensor]
BatchNorm = Callable[[Node, Tensor, Tensors], Tensor]

MOST_SLICES = 8  # one gather is faster than many slices

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


def unchanged(name: str, value: Tensor) -> Tensor:
    """The hook that does nothing."""
    return value


def frozen_batchnorm(node: Node, x: Tensor, tensors: Tensors) -> Tensor:
    """Normalise with the running statistics."""
    mean, var = (tensors[node.parameters[role]] for role in ("running_mean", "running_var"))
    return F.batch_norm(x, mean, var, *_affine(node, tensors), False, 0.0, node.attributes["eps"])


def batch_statistics(node: Node, x: Tensor, tensors: Tensors) -> Tensor:
    """Normalise with the statistics of the batch and move the running ones in place."""
    mean, var = (tensors[node.parameters[role]] for role in ("running_mean", "running_var"))
    momentum, eps = node.attributes["momentum"], node.attributes["eps"]
    return F.batch_norm(x, mean, var, *_affine(node, tensors), True, momentum, eps)


def _affine(node: Node, tensors: Tensors) -> tuple[Tensor | None, Tensor | None]:
    return tensors.get(role_name(node, "weight")), tensors.get(role_name(node, "bias"))


def role_name(node: Node, role: str) -> str:
    """Name of a node's tensor; one that the module lacks gets the name it would have."""
    return node.parameters.get(role, f"{node.name}.{role}")


def execute(
    graph: Graph,
    tensors: Tensors,
    images: Tensor,
    *,
    weight: Hook = unchanged,
    edge: Hook = unchanged,
    batchnorm: BatchNorm = frozen_batchnorm,
) -> Tensor:
    """Run the network; differentiable in ``tensors`` and ``images``.

    Args:
        tensors: names as in ``model.state_dict()``.
        images: ``[N, C, H, W]``.
        weight: maps the weight of each layer (by layer name) before it is used.
        edge: maps the value of each edge in ``quantized_edges(graph)``, the input included.
        batchnorm: :func:`frozen_batchnorm` or :func:`batch_statistics`.

    Returns:
        Logits ``[N, classes]``.
    """
    values = {graph.input: images}
    if graph.input in graph.code_edges:
        values[graph.input] = edge(graph.input, images)
    advance(graph, graph.nodes, values, tensors, weight=weight, edge=edge, batchnorm=batchnorm)
    return values[graph.output]


def advance(
    graph: Graph,
    nodes: Sequence[Node],
    values: dict[str, Tensor],
    tensors: Tensors,
    *,
    weight: Hook = unchanged,
    edge: Hook = unchanged,
    batchnorm: BatchNorm = frozen_batchnorm,
) -> None:
    """Run ``nodes``, some of the graph's that follow one another, as :func:`execute` does.

    Args:
        values: of all edges that they read from others; those that they make are added.
    """
    for node in nodes:
        inputs = [values[name] for name in node.inputs]
        if node.kind in LAYER_KINDS:
            rows = weight(node.name, tensors[node.parameters["weight"]])
            entry = graph.entries.get(node.name)
            x = inputs[0] if entry is None else edge(entry, inputs[0])
            result = _layer(node, x, rows, tensors)
        elif node.kind == "batchnorm":
            result = batchnorm(node, inputs[0], tensors)
        else:
            result = _OPERATIONS[node.kind](node, inputs)
        values[node.output] = edge(node.output, result) if _has_codes(graph, node) else result


def _has_codes(graph: Graph, node: Node) -> bool:
    return node.output in graph.code_edges


def _layer(node: Node, x: Tensor, weight: Tensor, tensors: Tensors) -> Tensor:
    bias = tensors.get(role_name(node, "bias"))
    if node.kind == "linear":
        return F.linear(x, weight, bias)
    a = node.attributes
    if _thinned(node, x, weight):
        dense = F.conv2d(x, weight, bias, 1, a["padding"], a["dilation"], a["groups"])
        return F.avg_pool2d(dense, 1, a["stride"])  # slicing would lose the layout
    return F.conv2d(x, weight, bias, a["stride"], a["padding"], a["dilation"], a["groups"])


def _thinned(node: Node, x: Tensor, weight: Tensor) -> bool:
    """Is a stride better taken after the convolution?

    The gradient of a strided depthwise convolution has no fast bf16 kernel: that of the dense one
    takes a seventh of its time.
    """
    depthwise = weight.shape[1] == 1 and weight.shape[0] == node.attributes["groups"] > 1
    strided = tuple(node.attributes["stride"]) != (1, 1)
    return depthwise and strided and x.requires_grad and torch.is_autocast_enabled("cpu")


def _add(node: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0] + inputs[1]


def _mul(node: Node, inputs: list[Tensor]) -> Tensor:
    return inputs[0] * like_space(inputs[1], inputs[0])


def like_space(gate: Tensor, x: Tensor) -> Tensor:
    """``[N, C]`` to ``[N, C, 1, 1]`` where ``x`` has space."""
    return gate[:, :, None, None] if gate.dim() < x.dim() else gate


def _select(node: Node, inputs: list[Tensor]) -> Tensor:
    return take_channels(inputs[0], node.attributes["index"])


def take_channels(x: Tensor, index: tuple[int, ...]) -> Tensor:
    """Channels of ``x`` by index, zeros for -1; runs of neighbours are one slice each."""
    runs = runs_of(index)
    if len(runs) > MOST_SLICES:
        zero_last = F.pad(x, (0, 0) * (x.dim() - 2) + (0, 1)) if -1 in index else x
        return zero_last[:, list(index)]
    parts = [
        x[:, first : first + count] if first >= 0 else x.new_zeros(x.shape[0], count, *x.shape[2:])
        for first, count in runs
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def runs_of(index: tuple[int, ...]) -> list[tuple[int, int]]:
    """``(first, count)`` of the stretches of neighbours, or of -1s."""
    runs: list[tuple[int, int]] = []
    for channel in index:
        first, count = runs[-1] if runs else (-2, 0)
        if channel == (first + count if first >= 0 else first):
            runs[-1] = (first, count + 1)
        else:
            runs.append((channel, 1))
    return runs


def _subsample(node: Node, inputs: list[Tensor]) -> Tensor:
    rows, columns = node.attributes["stride"]
    return inputs[0][:, :, ::rows, ::columns]


def _maxpool(node: Node, inputs: list[Tensor]) -> Tensor:
    a = node.attributes
    return F.max_pool2d(inputs[0], a["kernel"], a["stride"], a["padding"], ceil_mode=a["ceil_mode"])


def _avgpool(node: Node, inputs: list[Tensor]) -> Tensor:
    a = node.attributes
    return F.avg_pool2d(
        inputs[0], a["kernel"], a["stride"], a["padding"], a["ceil_mode"], a["count_include_pad"]
    )


_OPERATIONS: dict[str, Callable[[Node, list[Tensor]], Tensor]] = {
    "activation": lambda node, x: ACTIVATIONS[node.attributes["function"]](x[0]),
    "add": _add,
    "mul": _mul,
    "concat": lambda node, x: torch.cat(x, 1),
    "select": _select,
    "subsample": _subsample,
    "pad": lambda node, x: F.pad(x[0], node.attributes["padding"]),
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "globalavgpool": lambda node, x: F.avg_pool2d(x[0], x[0].shape[2:]),
    "flatten": lambda node, x: x[0].flatten(1),
}


def channels_last(value: Tensor) -> Tensor:
    """Images, activations or weights of a convolution in the faster layout; others as they are."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def mask_pruned(graph: Graph, tensors: Tensors, live: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with which pruned channels are exactly zero in front of the activation.

    Zero weights alone leave the offset of a BatchNorm behind, so its factor and offset (or the
    layer's own bias) are multiplied by the mask. Differentiable.

    Args:
        live: layer name to ``[O]``, 1 for a living channel and 0 for a pruned one.
    """
    masked = dict(tensors)
    for layer in layers(graph):
        owner = layer.batchnorm or layer.node
        mask = live[layer.name]
        if layer.batchnorm is not None:
            factor = role_name(owner, "weight")
            masked[factor] = tensors[factor] * mask if factor in tensors else mask
        offset = role_name(owner, "bias")
        if offset in tensors:
            masked[offset] = tensors[offset] * mask
    return masked
