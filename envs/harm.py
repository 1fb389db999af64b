"""What single changes do to the uncompressed network, on a few of the search's images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ajpq.compressed import State, compressed_view, fit_scales, quantize_edges, weight_bits
from ajpq.evaluate import kl_divergence
from ajpq.graph.execute import advance
from ajpq.graph.structure import Graph, layers
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.problem import Problem
from ajpq.quantizers import make_quantizer
from ajpq.simulation.grids import ActivationRange, edge_grids
from hw_models.network import FLOAT_BITS, Edge

# Images on which sensitivities are measured.
_IMAGES = 200
# Of activations that are kept from one change to the next.
_MOST_BYTES = 1 << 28


@dataclass(eq=False)
class Harm:
    """Divergences of single changes, and how many images it took to measure them so far.

    Whoever asks again pays the images again, but what is known is not computed again.
    """

    problem: Problem
    images: int = 0
    _known: dict[tuple[tuple[str, LayerPolicy], ...], float] = field(default_factory=dict)
    _beginning: Beginning | None = None

    def __call__(self, changes: Mapping[str, LayerPolicy]) -> float:
        """KL divergence in nats of the uncompressed network with only these layers changed."""
        self.images += self.images_each
        key = tuple(changes.items())
        if key not in self._known:
            if self._beginning is None:
                images = self.problem.search_sample.images[:_IMAGES]
                self._beginning = Beginning(self.problem.graph, self.problem.state, images)
            self._known[key] = divergence(self.problem, changes, self._beginning)
        return self._known[key]

    @property
    def images_each(self) -> int:
        """Images that one divergence is measured on."""
        return min(_IMAGES, len(self.problem.search_sample.labels))


@dataclass(eq=False)
class Beginning:
    """How the uncompressed network answers images up to some node.

    Changes are asked for layer by layer: what lies before one layer is where the way to the next
    begins. Only what later nodes read is kept, and nothing if that is much.
    """

    graph: Graph
    state: State
    images: Tensor
    _place: int = 0
    _values: dict[str, Tensor] = field(default_factory=dict)

    def before(self, place: int) -> dict[str, Tensor]:
        """The values that nodes from number ``place`` on read from those before it."""
        if not self._values or place < self._place:
            self._place, self._values = 0, {self.graph.input: self.images}
        advance(self.graph, self.graph.nodes[self._place : place], self._values, self.state)
        later = self.graph.nodes[place:]
        read = {name for node in later for name in node.inputs} | {self.graph.output}
        needed = {name: value for name, value in self._values.items() if name in read}
        kept = sum(value.nbytes for value in needed.values()) <= _MOST_BYTES
        self._place, self._values = place, dict(needed) if kept else {}
        return needed


def divergence(problem: Problem, changes: Mapping[str, LayerPolicy], beginning: Beginning) -> float:
    """KL divergence in nats of the uncompressed network with only these layers changed.

    Args:
        beginning: of the same network, on the first images of the search sample.
    """
    policy = changed(problem.uniform(FLOAT_BITS), changes)
    logits, wanted = answered(policy, problem.ranges, beginning), problem.search_sample.float_logits
    assert wanted is not None
    return kl_divergence(wanted[: len(logits)], logits)


@torch.no_grad()
def answered(
    policy: CompressionPolicy, ranges: Mapping[str, ActivationRange], beginning: Beginning
) -> Tensor:
    """Logits ``[N, classes]`` of the network with fake quantization, BatchNorm as it is.

    Args:
        ranges: of the uncompressed network's edges.
    """
    graph, state = beginning.graph, beginning.state
    quantizer, widths = make_quantizer(policy.quantizer), weight_bits(graph, policy)
    scales = fit_scales(graph, state, widths, quantizer)
    view = compressed_view(graph, state, widths, scales, quantizer)
    grids = edge_grids(graph, policy, ranges)
    place, edge = first_changed(graph, widths, grids), quantize_edges(grids)
    values = beginning.before(place)
    if place == 0 and graph.input in graph.code_edges:
        values[graph.input] = edge(graph.input, values[graph.input])
    advance(graph, graph.nodes[place:], values, view, edge=edge)
    return values[graph.output]


def first_changed(graph: Graph, widths: Mapping[str, Tensor], grids: Mapping[str, Edge]) -> int:
    """Number of the first node that does not do what it does in the uncompressed network.

    Args:
        widths: layer name -> ``[O]`` widths of its rows.
        grids: of the edges.
    """
    coded = {name for name, grid in grids.items() if grid.bits < FLOAT_BITS}
    owns = {layer.name for layer in layers(graph) if bool((widths[layer.name] < FLOAT_BITS).any())}
    if graph.input in coded:
        return 0
    found = (
        number
        for number, node in enumerate(graph.nodes)
        if node.name in owns or {node.output, graph.entries.get(node.name)} & coded
    )
    return next(found, len(graph.nodes))


def changed(policy: CompressionPolicy, changes: Mapping[str, LayerPolicy]) -> CompressionPolicy:
    """``policy`` with other layers."""
    return policy.model_copy(update={"layers": {**policy.layers, **changes}})
