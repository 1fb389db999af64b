"""Which channels live and die together, and which of them physically go.

Channels are accounted as hardware sees them: a pruned row is zero up to its activation, an input
channel is gone only if every producer coupled to it is pruned, and a group of coupled channels
goes as a whole or stays as a whole. A grouped convolution couples all inputs and outputs of one of
its groups (a depthwise one: each input with the outputs made of it), so that what remains is again
a convolution with groups of one size.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from weakref import WeakKeyDictionary

import numpy as np

from ajpq.graph.structure import LAYER_KINDS, Graph, Layer, Node, components, layers

Masks = Mapping[str, np.ndarray]

_KEEP_ZERO = frozenset({"relu", "relu6", "hardswish", "silu"})

_GROUPS: WeakKeyDictionary[Graph, dict[str, np.ndarray]] = WeakKeyDictionary()


def channel_groups(graph: Graph) -> dict[str, np.ndarray]:
    """Group number of every channel of every edge.

    Returns:
        Edge name to ``[C]`` int64. Equal numbers must be removed together; -1 marks channels that
        can never go: those of the image, the logits, and what is coupled to them.
    """
    if graph not in _GROUPS:
        _GROUPS[graph] = _channel_groups(graph)
    return dict(_GROUPS[graph])


def _channel_groups(graph: Graph) -> dict[str, np.ndarray]:
    offsets, total = {}, 0
    for edge, shape in graph.shapes.items():
        offsets[edge] = total
        total += shape[0]
    pairs = [
        (offsets[source] + i, offsets[target] + o)
        for source, target, ins, outs in _couplings(graph)
        for i, o in zip(ins.tolist(), outs.tolist(), strict=True)
    ]
    labels = components(total, pairs).astype(np.int64)
    groups = {e: labels[offsets[e] : offsets[e] + s[0]] for e, s in graph.shapes.items()}
    numbers = np.arange(total)
    numbers[np.concatenate([groups[graph.input], groups[graph.output]])] = -1
    return {edge: numbers[own] for edge, own in groups.items()}


_Coupling = tuple[str, str, np.ndarray, np.ndarray]


def _couplings(graph: Graph) -> Iterator[_Coupling]:
    """``(edge, edge, channels, channels)`` that must be kept or removed pairwise."""
    for node in graph.nodes:
        channels = graph.shapes[node.output][0]
        if node.kind in LAYER_KINDS:
            yield from _group_couplings(graph, node)
            continue
        start = 0
        for edge in node.inputs:
            ins, outs = _aligned(graph, node, edge, channels)
            if node.kind == "concat":
                outs = ins + start
                start += len(ins)
            yield edge, node.output, ins, outs


@functools.lru_cache(maxsize=1024)
def _aligned(graph: Graph, node: Node, edge: str, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Which input channel every output channel is made of (all kinds but layers)."""
    outs = np.arange(channels)
    if node.kind == "select":
        index = np.asarray(node.attributes["index"])
        return index[index >= 0], outs[index >= 0]
    if node.kind == "flatten":
        return outs // (channels // graph.shapes[edge][0]), outs
    return np.arange(graph.shapes[edge][0]), outs


def _group_couplings(graph: Graph, node: Node) -> Iterator[_Coupling]:
    groups = node.attributes.get("groups", 1)
    if groups == 1:
        return
    source, target = node.inputs[0], node.output
    ins = np.arange(graph.shapes[source][0]).reshape(groups, -1)
    outs = np.arange(graph.shapes[target][0]).reshape(groups, -1)
    yield source, target, np.repeat(ins[:, 0], outs.shape[1]), outs.reshape(-1)
    yield source, target, ins.reshape(-1), np.repeat(outs[:, 0], ins.shape[1])


def coupled_layers(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Sets of two or more layers whose output channels share groups (a residual stream).

    Both the sets and the layers in them are in execution order.
    """
    groups = channel_groups(graph)
    names = [layer.name for layer in layers(graph)]
    seen: dict[int, int] = {}
    pairs = []
    for position, layer in enumerate(layers(graph)):
        for label in set(groups[layer.node.output].tolist()) - {-1}:
            pairs.append((seen.setdefault(label, position), position))
    labels = components(len(names), pairs)
    sets: dict[int, list[str]] = {}
    for name, label in zip(names, labels.tolist(), strict=True):
        sets.setdefault(label, []).append(name)
    return tuple(tuple(members) for members in sets.values() if len(members) > 1)


def inner_layers(graph: Graph) -> tuple[Layer, ...]:
    """The layers whose channels can go and meet no addition: those inside a residual block.

    In a network without residual connections these are all but the last.
    """
    groups = channel_groups(graph)
    summed = {edge for node in graph.nodes if node.kind == "add" for edge in node.inputs}
    fixed = {-1}.union(*(groups[edge].tolist() for edge in summed))
    return tuple(
        layer for layer in layers(graph) if fixed.isdisjoint(groups[layer.node.output].tolist())
    )


def kept_channels(graph: Graph, pruned: Masks) -> dict[str, np.ndarray]:
    """The channels that physically remain.

    A channel may go when it is zero for every image or when nothing alive reads it; a group goes
    when all its channels may.

    Args:
        pruned: layer name to ``[O]`` bool; a layer that is missing is not pruned at all.

    Returns:
        Edge name to ``[C]`` bool, for every edge of the graph.
    """
    groups = channel_groups(graph)
    zero = zero_channels(graph, pruned)
    stays = np.zeros(1 + max(int(own.max()) for own in groups.values()) + 1, bool)
    while True:
        kept = {edge: stays[own] for edge, own in groups.items()}
        needed = needed_channels(graph, pruned, zero, kept)
        larger = np.zeros_like(stays)
        larger[-1] = True  # group -1
        for edge, own in groups.items():
            larger[own[needed[edge] & ~zero[edge]]] = True
        if np.array_equal(stays, larger):
            return kept
        # a living row that stays because of its group reads its inputs, which must then stay too
        stays = larger


def without_live_rows(graph: Graph, pruned: Masks, kept: Masks) -> dict[str, np.ndarray]:
    """Layer name to ``[O]`` bool: rows that are pruned or removed: none computes."""
    return {
        layer.name: np.asarray(pruned.get(layer.name, False)) | ~kept[layer.node.output]
        for layer in layers(graph)
    }


def zero_channels(graph: Graph, pruned: Masks) -> dict[str, np.ndarray]:
    """Edge name to ``[C]`` bool: channels that are zero for every image."""
    owner = {layer.batchnorm.name: layer.name for layer in layers(graph) if layer.batchnorm}
    zero = {graph.input: np.zeros(graph.shapes[graph.input][0], bool)}
    for node in graph.nodes:
        channels = graph.shapes[node.output][0]
        layer = owner.get(node.name, node.name if node.kind in LAYER_KINDS else None)
        if layer is not None:
            zero[node.output] = np.asarray(pruned.get(layer, np.zeros(channels, bool)), bool)
        else:
            zero[node.output] = _zero_after(graph, node, [zero[edge] for edge in node.inputs])
    return zero


def keeps_zero(node: Node) -> bool:
    """Whether a node (no layer) turns zeros into zeros."""
    return node.kind != "batchnorm" and node.attributes.get("function", "relu") in _KEEP_ZERO


def _zero_after(graph: Graph, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    channels = graph.shapes[node.output][0]
    if not keeps_zero(node):
        return np.zeros(channels, bool)
    if node.kind == "concat":
        return np.concatenate(inputs)
    if node.kind == "add":
        return inputs[0] & inputs[1]
    if node.kind == "mul":
        return inputs[0] | inputs[1]
    zero = np.ones(channels, bool)
    ins, outs = _aligned(graph, node, node.inputs[0], channels)
    zero[outs] = inputs[0][ins]
    return zero


def needed_channels(graph: Graph, pruned: Masks, zero: Masks, kept: Masks) -> dict[str, np.ndarray]:
    """Edge name to ``[C]`` bool: what the logits, or the living rows of ``kept``, are made of."""
    needed = {edge: np.zeros(shape[0], bool) for edge, shape in graph.shapes.items()}
    needed[graph.output][:] = True
    for node in reversed(graph.nodes):
        wanted = needed[node.output]
        if node.kind in LAYER_KINDS:
            rows = (wanted | kept[node.output]) & ~pruned.get(node.name, np.zeros_like(wanted))
            needed[node.inputs[0]] |= _read_by(graph, node, rows)
            continue
        for position, edge in enumerate(node.inputs):
            needed[edge] |= _read_at(graph, node, position, wanted, zero)
    return needed


def _read_by(graph: Graph, node: Node, rows: np.ndarray) -> np.ndarray:
    """Input channels that the given rows of a layer multiply."""
    groups = node.attributes.get("groups", 1)
    inputs = graph.shapes[node.inputs[0]][0]
    return np.repeat(rows.reshape(groups, -1).any(1), inputs // groups)


def _read_at(
    graph: Graph, node: Node, position: int, wanted: np.ndarray, zero: Masks
) -> np.ndarray:
    edge = node.inputs[position]
    if node.kind == "mul":
        return wanted & ~zero[node.inputs[1 - position]]
    start = 0
    if node.kind == "concat":
        start = sum(graph.shapes[e][0] for e in node.inputs[:position])
        return wanted[start : start + graph.shapes[edge][0]]
    ins, outs = _aligned(graph, node, edge, len(wanted))
    read = np.zeros(graph.shapes[edge][0], bool)
    read[ins[wanted[outs]]] = True
    return read
