"""From a traced network, its tensors and a policy to the network IR."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ajpq.folding import folded, integer_rows, normalisation
from ajpq.graph.channels import Masks, kept_channels
from ajpq.graph.legality import check_legal
from ajpq.graph.structure import LAYER_KINDS, Fusion, Graph, Node, layers
from ajpq.graph.wiring import produced
from ajpq.policy import CompressionPolicy
from ajpq.simulation.grids import ActivationRange, edge_grids, fake_quantize
from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS, Edge, Network, Operator, Weights

__all__ = ["ActivationRange", "apply_policy", "apply_unshrunk", "edge_grids", "fake_quantize"]

Tensors = Mapping[str, Tensor]
Quantize = Callable[[Tensor, Tensor], tuple[Any, Any]]
_ANY_WIDTH = 8  # asked of the quantizer for rows whose codes are not used
_PRUNED = bytes([1, *[0] * 255])  # width -> is the channel pruned?


@dataclass(frozen=True)
class _Job:
    """What every operator is made from."""

    graph: Graph
    tensors: Tensors
    policy: CompressionPolicy
    quantize: Quantize
    kept: Masks


def apply_policy(
    graph: Graph,
    tensors: Tensors,
    policy: CompressionPolicy,
    ranges: Mapping[str, ActivationRange],
    quantize: Quantize,
) -> Network:
    """Quantize, fold BatchNorm, and remove what is pruned.

    Args:
        tensors: named as in ``model.state_dict()``.
        ranges: what calibration found on every edge of ``quantized_edges(graph)``.
        quantize: ``(weight[O, ...] float32, bits[O] int64) -> (codes[O, ...] int8, scales[O])``
            on the raw weights; it never sees the widths 0 and 32.

    Returns:
        The network without the channels that :func:`kept_channels` gives up, and without the
        operators that nothing reads any more. An addition that lost one side becomes a rescaling.

    Raises:
        AjpqError: the policy does not fit the network, or empties a layer that no residual
            addition bypasses.
    """
    kept, available = outline(graph, policy)
    job = _Job(graph, tensors, policy, quantize, kept)
    return _network(job, edge_grids(graph, policy, ranges), available)


def kept_by_policy(graph: Graph, policy: CompressionPolicy) -> Masks:
    """Edge name to ``[C]`` bool: the channels that :func:`apply_policy` leaves; read-only."""
    return outline(graph, policy)[0]


def outline(graph: Graph, policy: CompressionPolicy) -> tuple[Masks, frozenset[str]]:
    """:func:`kept_by_policy`, and the edges that :func:`apply_policy` still computes."""
    pruned = (
        (name, bytes(own.weight_bits).translate(_PRUNED)) for name, own in policy.layers.items()
    )
    return _outline(graph, tuple(pruned))


@functools.lru_cache(maxsize=256)
def _outline(graph: Graph, pruned: tuple[tuple[str, bytes], ...]) -> tuple[Masks, frozenset[str]]:
    """The channels that stay and the edges that are still computed; most of applying a policy.

    A search asks about the same channels at many widths. The arrays are shared: read-only.
    """
    masks = {name: np.frombuffer(own, bool) for name, own in pruned}
    _check_fit(graph, masks)
    kept = kept_channels(graph, masks)
    check_legal(graph, masks, kept)
    for own in kept.values():
        own.setflags(write=False)
    return kept, produced(graph, masks, kept)


def apply_unshrunk(
    graph: Graph,
    tensors: Tensors,
    policy: CompressionPolicy,
    ranges: Mapping[str, ActivationRange],
    quantize: Quantize,
) -> Network:
    """Like :func:`apply_policy`, but pruned channels stay as rows of zeros."""
    pruned = {name: layer.bits == 0 for name, layer in policy.layers.items()}
    _check_fit(graph, pruned)
    check_legal(graph, pruned)
    kept = {edge: np.ones(shape[0], bool) for edge, shape in graph.shapes.items()}
    job = _Job(graph, tensors, policy, quantize, kept)
    everything = frozenset(graph.grid_sets)
    return _network(job, edge_grids(graph, policy, ranges), everything)


def _check_fit(graph: Graph, pruned: Masks) -> None:
    expected = {layer.name: layer.channels for layer in layers(graph)}
    given = {name: len(own) for name, own in pruned.items()}
    for name in [*expected, *given]:
        if expected.get(name) != given.get(name):
            raise AjpqError(
                f"layer {name!r} has {expected.get(name, 'no')} output channels in the network "
                f"and {given.get(name, 'no')} widths in the policy"
            )


def _network(job: _Job, grids: Mapping[str, Edge], available: frozenset[str]) -> Network:
    graph = job.graph
    operators = tuple(
        operator
        for fusion in graph.fusions
        if fusion.output in available
        for operator in _operators(job, fusion, grids, available)
    )
    names = dict.fromkeys([graph.input, *(op.output for op in operators)])
    sources = {op.output: op.inputs[0] for op in operators if op.kind == "requantize"}
    edges = {name: _shrunk_edge(grids[name], job.kept[sources.get(name, name)]) for name in names}
    operators = tuple(_with_integer_rows(operator, edges) for operator in operators)
    return Network(graph.name, graph.input, graph.output, edges, operators)


def _operators(
    job: _Job, fusion: Fusion, grids: Mapping[str, Edge], available: frozenset[str]
) -> list[Operator]:
    """A fusion, behind the entry that its layer reads from, if it needs one."""
    inputs = tuple(edge for edge in fusion.node.inputs if edge in available)
    entry = job.graph.entries.get(fusion.node.name)
    if entry is None or entry not in grids:
        return [_operator(job, fusion, inputs)]
    return [Operator(entry, "requantize", inputs, entry), _operator(job, fusion, (entry,))]


def _with_integer_rows(operator: Operator, edges: Mapping[str, Edge]) -> Operator:
    weights, source = operator.weights, edges[operator.inputs[0]]
    if weights is None or weights.codes.dtype != np.int8 or source.bits == FLOAT_BITS:
        return operator
    scales, bias = integer_rows(weights.scales, weights.bias, np.float32(source.scale))
    return replace(operator, weights=replace(weights, scales=scales, bias=bias))


def _shrunk_edge(edge: Edge, kept: np.ndarray) -> Edge:
    return replace(edge, shape=(int(kept.sum()), *edge.shape[1:]))


def _operator(job: _Job, fusion: Fusion, inputs: tuple[str, ...]) -> Operator:
    node = fusion.node
    kind, attributes, weights = node.kind, dict(node.attributes), None
    function = fusion.function
    if kind in LAYER_KINDS:
        weights = _layer_weights(job, fusion)
        attributes = _layer_attributes(job, node)
    elif kind == "batchnorm":
        kind, attributes, weights = "affine", {}, _affine_weights(job, node)
    elif kind == "select":
        attributes = {"index": _renumbered(job, node)}
    elif kind == "add" and len(inputs) == 1:
        kind, attributes, function, weights = _rescaling(job, fusion)
    return Operator(node.name, kind, inputs, fusion.output, attributes, weights, function)


# ---- weights ------------------------------------------------------------------------------------


def _layer_weights(job: _Job, fusion: Fusion) -> Weights:
    node = fusion.node
    bits = job.policy.layers[node.name].bits
    rows = job.kept[node.output]
    factor, offset = folded(job.graph, job.tensors, fusion)
    codes, scales = _rows(job, node, bits)
    live = bits != 0
    scales = np.where(live, scales.astype(np.float64) * factor, 1.0)
    if node.attributes.get("groups", 1) == 1:
        codes = codes[:, job.kept[node.inputs[0]]]
    return Weights(
        np.ascontiguousarray(codes[rows]),
        scales.astype(np.float32)[rows],
        bits.astype(np.uint8)[rows],
        np.where(live, offset, 0.0).astype(np.float32)[rows],
    )


def _rows(job: _Job, node: Node, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (zero for pruned rows, real values for untouched ones) and scales of all rows."""
    weight = job.tensors[node.parameters["weight"]].detach().float().cpu()
    real = bits == FLOAT_BITS
    asked = torch.from_numpy(np.where(real | (bits == 0), _ANY_WIDTH, bits))
    made = job.quantize(weight, asked)
    codes = made[0].to(torch.int8).numpy().copy()
    scales = made[1].float().numpy().copy()
    codes[bits == 0] = 0
    if real.any():
        codes = codes.astype(np.float32)
        codes[real] = weight.numpy()[real]
        scales[real] = 1.0
    return codes, scales


def _affine_weights(job: _Job, node: Node) -> Weights:
    kept = job.kept[node.output]
    factor, offset = normalisation(job.graph, job.tensors, node)
    return _unit_rows(factor[kept], offset[kept])


def _unit_rows(factor: np.ndarray, offset: np.ndarray) -> Weights:
    """One factor and offset per channel: codes of 1."""
    count = len(factor)
    return Weights(
        np.ones((count, 1, 1, 1), np.int8),
        factor.astype(np.float32),
        np.full(count, 8, np.uint8),
        offset.astype(np.float32),
    )


# ---- other operators ----------------------------------------------------------------------------


def _layer_attributes(job: _Job, node: Node) -> dict[str, Any]:
    if node.kind == "linear":
        return {}
    names = ("stride", "padding", "dilation")
    groups = node.attributes["groups"]
    if groups > 1:
        groups = int(job.kept[node.output].reshape(groups, -1).any(1).sum())
    return {**{name: node.attributes[name] for name in names}, "groups": groups}


def _renumbered(job: _Job, node: Node) -> tuple[int, ...]:
    index = np.asarray(node.attributes["index"])[job.kept[node.output]]
    position = np.cumsum(job.kept[node.inputs[0]]) - 1
    return tuple(np.where(index < 0, -1, position[index]).tolist())


def _rescaling(job: _Job, fusion: Fusion) -> tuple[str, dict[str, Any], str | None, Weights | None]:
    """What is left of an addition whose other side is zero: to the output's grid, nothing else."""
    if fusion.function is not None:
        return "activation", {"function": fusion.function}, None, None
    ones = np.ones(int(job.kept[fusion.output].sum()))
    return "affine", {}, None, _unit_rows(ones, 0 * ones)
