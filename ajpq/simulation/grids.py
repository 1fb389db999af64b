"""The grid of every edge (width, sign, scale), shared by the reference and by fake quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ajpq.graph.structure import GRID_PRESERVING, LAYER_KINDS, Fusion, Graph
from ajpq.policy import CompressionPolicy
from ajpq.simulation.lookup import FUNCTIONS, clear_step
from hw_models.network import FLOAT_BITS, Edge

INPUT_BITS = 8
NARROW = range(2, 8)  # widths whose range is worth a search
_LEAST_BITS = 8  # of what is added, averaged or looked up: only layers compute with fewer


@dataclass(frozen=True)
class ActivationRange:
    """What calibration found on an edge.

    Attributes:
        maximum: the largest absolute real value that a code must represent.
        signed: whether negative values occur.
        narrow: the same for codes of 2 to 7 bits, where that is known: beyond it they cut off
            what is rare, so that their steps are finer.
    """

    maximum: float
    signed: bool
    narrow: tuple[float, ...] = ()

    def reach(self, bits: int) -> float:
        """The largest absolute value that a code of this width represents; 1 if all are zero."""
        known = self.narrow and bits in NARROW
        return (self.narrow[bits - NARROW[0]] if known else self.maximum) or 1.0

    def union(self, other: ActivationRange) -> ActivationRange:
        """Of two edges on one grid."""
        narrow = tuple(map(max, self.narrow, other.narrow))  # none if one does not know
        maximum = max(self.maximum, other.maximum)
        return ActivationRange(maximum, self.signed or other.signed, narrow)


def edge_grids(
    graph: Graph, policy: CompressionPolicy, ranges: Mapping[str, ActivationRange]
) -> dict[str, Edge]:
    """Width, sign and scale of every edge between the operators.

    A layer's ``activation_bits`` is the width of the codes that it reads. An edge takes the largest
    width that its readers want. An operator that only moves codes wants the width of its own
    output, any other that is no layer at least 8 bits: residual streams hold 8 bits whatever
    layers read. Edges that share a grid are unified: largest width, signed if one is, largest
    maximum. Behind a function that hardware looks up, steps are up to 2 % larger, see
    :mod:`ajpq.simulation.lookup`.

    A layer that wants fewer bits than the edge in front of it holds reads ``graph.entries[layer]``
    instead; entries that no layer needs are not in the result.

    Args:
        ranges: covers ``quantized_edges(graph)``; a maximum of zero counts as one. An entry that
            is missing has the range of the edge that it is made from, as in runs before there
            were entries.

    Returns:
        Edge name to :class:`Edge` with the shape before any channel is removed. The logits (and
        what shares their grid) are real: 32 bits.
    """
    widths = _widths(graph, policy)
    found: dict[int, ActivationRange] = {}
    for edge in graph.code_edges:
        number, own = graph.grid_sets[edge], ranges[edge]
        found[number] = own.union(found.get(number, own))
    edges = {
        edge: _edge(edge, graph.shapes[edge], widths[number], found.get(number))
        for edge, number in graph.grid_sets.items()
    }
    edges = _cleared(graph, edges)
    return edges | _entries(graph, policy, ranges, edges)


def _entries(
    graph: Graph,
    policy: CompressionPolicy,
    ranges: Mapping[str, ActivationRange],
    edges: Mapping[str, Edge],
) -> dict[str, Edge]:
    found = {}
    for layer in graph.layers:
        entry, bits = graph.entries.get(layer.name), policy.layers[layer.name].activation_bits
        source = edges[layer.node.inputs[0]]
        if entry is not None and bits < source.bits:
            own = ranges.get(entry, ranges[source.name])
            found[entry] = _edge(entry, source.shape, bits, own)
    return found


def _cleared(graph: Graph, edges: dict[str, Edge]) -> dict[str, Edge]:
    """Other steps behind functions that hardware looks up, one for every set of edges."""
    asking: dict[int, list[Fusion]] = {}
    for fusion in graph.fusions:
        ends = (edges[fusion.node.inputs[0]], edges[fusion.output])
        coded = FLOAT_BITS not in {edge.bits for edge in ends}
        if coded and fusion.node.attributes.get("function") in FUNCTIONS:
            asking.setdefault(graph.grid_sets[fusion.output], []).append(fusion)
    for number, fusions in asking.items():
        asked = [(f.node.attributes["function"], edges[f.node.inputs[0]]) for f in fusions]
        step = clear_step(asked, edges[fusions[0].output])
        members = [edge for edge, own in graph.grid_sets.items() if own == number]
        edges |= {edge: replace(edges[edge], scale=step) for edge in members}
    return edges


def _edge(name: str, shape: tuple[int, ...], bits: int, found: ActivationRange | None) -> Edge:
    if bits == FLOAT_BITS or found is None:
        return Edge(name, shape)
    top = Edge(name, shape, bits, found.signed).code_range[1]
    # the reference computes with this very float32
    scale = float(np.float32(found.reach(bits) / top))
    return Edge(name, shape, bits, found.signed, scale)


def _widths(graph: Graph, policy: CompressionPolicy) -> dict[int, int]:
    """Width of every grid set: the smallest solution of the wishes, found by iterating upwards."""
    sets = graph.grid_sets
    real = sets[graph.output]
    least = dict.fromkeys(sets.values(), 0)
    least[sets[graph.input]] = INPUT_BITS
    while True:
        wider = dict(least)
        for fusion in graph.fusions:
            for edge in fusion.node.inputs:
                wish = _wish(graph, fusion, policy, wider)
                wider[sets[edge]] = max(wider[sets[edge]], wish)
        wider[real] = FLOAT_BITS
        if sets[graph.input] != real and wider[sets[graph.input]] != FLOAT_BITS:
            wider[sets[graph.input]] = INPUT_BITS
        if wider == least:
            return least
        least = wider


def _wish(
    graph: Graph, fusion: Fusion, policy: CompressionPolicy, widths: Mapping[int, int]
) -> int:
    if fusion.node.kind in LAYER_KINDS:
        return policy.layers[fusion.node.name].activation_bits
    number = graph.grid_sets[fusion.output]
    preserving = fusion.node.kind in GRID_PRESERVING
    if number == graph.grid_sets[graph.output]:
        return FLOAT_BITS if preserving else _LEAST_BITS
    return widths[number] if preserving else max(widths[number], _LEAST_BITS)


def fake_quantize(x: Tensor, bits: int, signed: bool, scale: float) -> Tensor:
    """Round to the grid in the forward pass; the gradient is 1 inside its range and 0 outside.

    Gives ``scale * code`` with the codes of the reference simulation (Bengio et al. 2013,
    straight-through estimator). What rounds to the last code is inside.
    """
    if bits == FLOAT_BITS:
        return x
    quantized: Tensor = _FakeQuantize.apply(x, scale, *Edge("", (), bits, signed).code_range)
    return quantized


class _FakeQuantize(torch.autograd.Function):
    """In place wherever it can be: ``torch.fake_quantize_per_tensor_affine``, which is not
    vectorised, takes nine times as long, three times as long as the convolution before it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        codes = x.div(scale).round_()
        if not ctx.needs_input_grad[0]:
            return codes.clamp_(low, high).mul_(scale)
        clamped = codes.clamp(low, high)
        ctx.save_for_backward(codes == clamped)
        return clamped.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


def quantize_edge(x: Tensor, edge: Edge) -> Tensor:
    """Real values to codes, kept as float32; :func:`fake_quantize` without the way back.

    Works in place on ``x``.
    """
    return onto_grid(x, edge, torch.tensor(edge.scale, dtype=torch.float32))


def onto_grid(x: Tensor, edge: Edge, step: Tensor) -> Tensor:
    """:func:`quantize_edge` with ``float32(edge.scale)`` at hand."""
    if edge.bits == FLOAT_BITS:
        return x
    low, high = edge.code_range
    return x.div_(step).round_().clamp_(low, high)
