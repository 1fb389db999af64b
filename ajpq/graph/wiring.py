"""Which operators are left once whole layers are pruned away."""

from __future__ import annotations

from ajpq.graph.channels import Masks, keeps_zero, without_live_rows
from ajpq.graph.structure import LAYER_KINDS, Fusion, Graph


def produced(graph: Graph, pruned: Masks, kept: Masks) -> frozenset[str]:
    """The edges that still have to be computed, the input included.

    Left out are edges without channels, the zeros of emptied layers on their way to an addition,
    and whatever is computed for these alone.
    """
    absent = {edge for edge, channels in kept.items() if not channels.any()}
    gone = without_live_rows(graph, pruned, kept)
    for fusion in graph.fusions:
        if _is_absent(fusion, gone, absent):
            absent.add(fusion.output)
    live = {graph.output}
    for fusion in reversed(graph.fusions):
        if fusion.output in live:
            live.update(edge for edge in fusion.node.inputs if edge not in absent)
    return frozenset(live | {graph.input})


def _is_absent(fusion: Fusion, gone: Masks, absent: set[str]) -> bool:
    node = fusion.node
    if node.kind in LAYER_KINDS:
        empty = bool(gone[node.name].all())
        return empty and (fusion.activation is None or keeps_zero(fusion.activation))
    if node.kind == "mul":
        return any(edge in absent for edge in node.inputs)
    last = fusion.activation or node
    return keeps_zero(node) and keeps_zero(last) and all(edge in absent for edge in node.inputs)
