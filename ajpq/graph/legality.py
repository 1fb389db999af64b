"""Layers that a policy must not empty."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ajpq.graph.channels import (
    Masks,
    keeps_zero,
    kept_channels,
    needed_channels,
    without_live_rows,
    zero_channels,
)
from ajpq.graph.structure import LAYER_KINDS, Graph, Node, layers
from hw_models.errors import AjpqError


def illegal_layers(graph: Graph, pruned: Masks, kept: Masks | None = None) -> tuple[str, ...]:
    """The layers that a policy leaves without a live row, or without a live input channel.

    A layer may lose all its rows only behind a residual bypass: every path from it either meets an
    ``add`` whose other side lives, or ends in a layer that has no living row itself. A
    concatenation with a living side does not let it go: what stays of its zeros has a place there.

    Args:
        pruned: layer name to ``[O]`` bool; a layer that is missing is not pruned at all.
        kept: :func:`kept_channels` of these, where they are known already.

    Returns:
        Names in execution order, so that the first is the cause of the others.
    """
    kept = kept_channels(graph, pruned) if kept is None else kept
    gone = without_live_rows(graph, pruned, kept)
    zero = zero_channels(graph, gone)
    needed = needed_channels(graph, gone, zero, kept)
    bypassed = partial(_is_bypassed, graph, gone, zero, needed)
    illegal = []
    for layer in layers(graph):
        if gone[layer.name].all():
            edge = (layer.batchnorm or layer.node).output
            lawful = bypassed(edge) and not _fills_a_concatenation(graph, zero, kept, edge)
        else:
            lawful = not zero[layer.node.inputs[0]].all()
        if not lawful:
            illegal.append(layer.name)
    return tuple(illegal)


def check_legal(graph: Graph, pruned: Masks, kept: Masks | None = None) -> None:
    """Refuse a policy that cuts the network apart.

    Raises:
        AjpqError: naming the first layer of :func:`illegal_layers`.
    """
    illegal = illegal_layers(graph, pruned, kept)
    if illegal:
        raise AjpqError(
            f"layer {illegal[0]!r} would have no live channel, and no residual addition bypasses it"
        )


def _fills_a_concatenation(graph: Graph, zero: Masks, kept: Masks, edge: str) -> bool:
    """Do zeros that stay, because their group does, lie beside something that lives?"""
    readers = (node for node in graph.consumers[edge] if node.kind not in LAYER_KINDS)
    return bool(kept[edge].any()) and any(
        _fills_a_concatenation(graph, zero, kept, node.output)
        if zero[node.output].all()
        else node.kind == "concat"
        for node in readers
    )


def _is_bypassed(graph: Graph, pruned: Masks, zero: Masks, needed: Masks, edge: str) -> bool:
    if not needed[edge].any():
        return True
    again = partial(_is_bypassed, graph, pruned, zero, needed)
    readers = graph.consumers[edge]
    return edge != graph.output and all(
        _survives(node, edge, pruned, zero, again) for node in readers
    )


def _survives(
    node: Node, edge: str, pruned: Masks, zero: Masks, again: Callable[[str], bool]
) -> bool:
    """Whether a reader still does its work when ``edge`` is all zero."""
    if node.kind in LAYER_KINDS:
        return bool(pruned[node.name].all())
    if node.kind == "add" and not all(zero[other].all() for other in node.inputs):
        return True
    return node.kind != "concat" and keeps_zero(node) and again(node.output)
