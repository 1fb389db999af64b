"""The traced network as plain data, before quantization."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

LAYER_KINDS = frozenset({"conv", "linear"})
GRID_PRESERVING = frozenset({"maxpool", "select", "subsample", "pad", "flatten", "concat"})
_ABSORBS_ACTIVATION = LAYER_KINDS | {"batchnorm", "add", "mul"}
_NONNEGATIVE_FUNCTIONS = frozenset({"relu", "relu6", "hardsigmoid", "sigmoid"})
# What integer hardware does while it rounds: limits on the codes. Other functions read codes.
CLIPPING = frozenset({"relu", "relu6"})
# Outside these values a function is flat, or as good as that, and codes need not tell them apart.
DOMAINS = {
    "hardswish": (-3.0, math.inf),
    "hardsigmoid": (-3.0, 3.0),
    "sigmoid": (-8.0, 8.0),
    "silu": (-8.0, math.inf),
}
EVERYTHING = (-math.inf, math.inf)


@dataclass(frozen=True, eq=False)
class Node:
    """One float operator; kinds and attributes as in ``hw_models.network``, plus ``batchnorm``.

    Attributes:
        name: the module path for nodes with parameters, otherwise a unique name.
        inputs: names of the edges that it reads.
        output: name of the edge that it makes (the node's own name).
        parameters: role (``weight``, ``bias``, ``running_mean``, ``running_var``) to the name in
            ``model.state_dict()``.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]
    parameters: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Fusion:
    """A node with what its output runs through before it is put on codes."""

    node: Node
    batchnorm: Node | None
    activation: Node | None

    @property
    def output(self) -> str:
        """The edge that the last node of the fusion makes."""
        return (self.activation or self.batchnorm or self.node).output

    @property
    def function(self) -> str | None:
        """Name of the activation function at the end, if any."""
        last = self.activation
        return None if last is None else str(last.attributes["function"])


@dataclass(frozen=True, eq=False)
class Layer:
    """What a policy speaks of: one convolution or linear layer and what is folded into it.

    Attributes:
        name: module path, the key in ``CompressionPolicy.layers``.
        channels: number of output channels.
    """

    name: str
    node: Node
    batchnorm: Node | None
    activation: Node | None
    channels: int


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in execution order; ``shapes`` maps every edge to ``(C, H, W)`` or ``(C,)``."""

    name: str
    input: str
    output: str
    shapes: Mapping[str, tuple[int, ...]]
    nodes: tuple[Node, ...]

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each edge."""
        readers: dict[str, list[Node]] = {edge: [] for edge in self.shapes}
        for node in self.nodes:
            for edge in dict.fromkeys(node.inputs):
                readers[edge].append(node)
        return {edge: tuple(nodes) for edge, nodes in readers.items()}

    @cached_property
    def fusions(self) -> tuple[Fusion, ...]:
        """The nodes grouped into what becomes one operator each, in execution order."""
        absorbed: set[str] = set()
        result = []
        for node in self.nodes:
            if node.name not in absorbed:
                fusion = _fuse(self, node)
                absorbed |= {part.name for part in (fusion.batchnorm, fusion.activation) if part}
                result.append(fusion)
        return tuple(result)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """What :func:`layers` gives."""
        return tuple(
            Layer(
                fusion.node.name,
                fusion.node,
                fusion.batchnorm,
                fusion.activation,
                self.shapes[fusion.node.output][0],
            )
            for fusion in self.fusions
            if fusion.node.kind in LAYER_KINDS
        )

    @cached_property
    def grid_sets(self) -> Mapping[str, int]:
        """Equal numbers for the edges that must share one grid (width, sign and scale)."""
        edges = [self.input, *(fusion.output for fusion in self.fusions)]
        position = {edge: index for index, edge in enumerate(edges)}
        pairs = [
            (position[edge], position[fusion.output])
            for fusion in self.fusions
            if fusion.node.kind in GRID_PRESERVING
            for edge in fusion.node.inputs
        ]
        return dict(zip(edges, components(len(edges), pairs).tolist(), strict=True))

    @cached_property
    def entries(self) -> Mapping[str, str]:
        """Layer name -> an edge of its own, for layers that others may want more bits beside.

        On it the layer may read fewer bits than the edge in front of it holds. A layer that is
        alone in reading what lies on a grid needs none; the image and the logits stay as they are.
        """
        sets = self.grid_sets
        readers = Counter(
            number
            for fusion in self.fusions
            if fusion.node.kind not in GRID_PRESERVING
            for number in {sets[edge] for edge in fusion.node.inputs}
        )
        numbers = {layer.name: sets[layer.node.inputs[0]] for layer in self.layers}
        ends = (sets[self.input], sets[self.output])
        return {
            name: f"{name}.entry"
            for name, number in numbers.items()
            if readers[number] > 1 and number not in ends
        }

    @cached_property
    def domains(self) -> Mapping[str, tuple[float, float]]:
        """Edges that one activation alone reads -> the least and the largest value it needs."""
        return {
            edge: DOMAINS[readers[0].attributes["function"]]
            for edge, readers in self.consumers.items()
            if len(readers) == 1
            and readers[0].kind == "activation"
            and readers[0].attributes["function"] in DOMAINS
        }

    @cached_property
    def code_edges(self) -> frozenset[str]:
        """The edges of :func:`quantized_edges` without the entries, as a set."""
        real = self.grid_sets[self.output]
        return frozenset(edge for edge, number in self.grid_sets.items() if number != real)


def components(count: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """``[count]`` labels of the connected components of an undirected graph."""
    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _only_reader(graph: Graph, edge: str, kind: str) -> Node | None:
    readers = graph.consumers[edge]
    alone = len(readers) == 1 and edge != graph.output
    return readers[0] if alone and readers[0].kind == kind else None


def _fuse(graph: Graph, node: Node) -> Fusion:
    batchnorm = activation = None
    if node.kind in LAYER_KINDS:
        batchnorm = _only_reader(graph, node.output, "batchnorm")
    if node.kind in _ABSORBS_ACTIVATION:
        activation = _only_reader(graph, (batchnorm or node).output, "activation")
        if activation is not None and activation.attributes["function"] not in CLIPPING:
            activation = None
    return Fusion(node, batchnorm, activation)


def layers(graph: Graph) -> tuple[Layer, ...]:
    """The convolutions and linear layers in execution order."""
    return graph.layers


def quantized_edges(graph: Graph) -> tuple[str, ...]:
    """The edges that carry codes, the input first and the entries of layers last.

    Left out are the edges inside a fusion, the logits, and what shares their grid (the pooled
    logits in front of a final flatten).
    """
    between = [edge for edge in graph.grid_sets if edge in graph.code_edges]
    return (*between, *graph.entries.values())


def nonnegative_edges(graph: Graph) -> frozenset[str]:
    """The edges of :func:`quantized_edges` whose values cannot be negative: unsigned codes.

    All edges of one grid agree: a single edge that may be negative makes its whole set signed.
    """
    nonnegative: dict[str, bool] = {graph.input: False}
    for fusion in graph.fusions:
        nonnegative[fusion.output] = _is_nonnegative(fusion, nonnegative)
    signed = {graph.grid_sets[edge] for edge, positive in nonnegative.items() if not positive}
    unsigned = {e for e in graph.code_edges if graph.grid_sets[e] not in signed}
    entries = {
        graph.entries[layer.name]
        for layer in layers(graph)
        if layer.name in graph.entries and layer.node.inputs[0] in unsigned
    }
    return frozenset(unsigned | entries)


def _is_nonnegative(fusion: Fusion, known: Mapping[str, bool]) -> bool:
    function = fusion.function or fusion.node.attributes.get("function")
    if function is not None:
        return function in _NONNEGATIVE_FUNCTIONS
    if fusion.node.kind in LAYER_KINDS or fusion.node.kind == "batchnorm":
        return False
    return all(known[edge] for edge in fusion.node.inputs)


def macs(graph: Graph) -> int:
    """Multiply-accumulates of all layers for one image."""
    return sum(layer_macs(graph, layer) for layer in layers(graph))


def layer_macs(graph: Graph, layer: Layer) -> int:
    """Multiply-accumulates of one layer for one image."""
    inputs = graph.shapes[layer.node.inputs[0]][0] // layer.node.attributes.get("groups", 1)
    kernel = int(np.prod(layer.node.attributes.get("kernel", (1, 1))))
    return int(np.prod(graph.shapes[layer.node.output])) * inputs * kernel
