"""Layers whose rows are stored in blocks of one kind each: Concat, then Conv or Gemm.

Rows that do not stand in the order of their blocks are put back by a Gather of the weights, so
that nothing that reads the layer has to know.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hw_models.network import Edge, Operator, Weights
from hw_models.onnx.graph import GraphBuilder
from hw_models.onnx.layers import geometry, vector_affine

Block = Callable[[int, Weights], str]
"""Kind and rows of one block -> the tensor of their real values."""


def add_blocked_layer(
    graph: GraphBuilder, op: Operator, source: Edge, tensor: str, kinds: np.ndarray, block: Block
) -> str:
    """Real values of the layer before its activation.

    Args:
        kinds: ``[O]`` which block a row belongs to; the largest comes first.
    """
    weights = op.weights
    assert weights is not None
    image = graph.plain_real(tensor, source)
    if op.kind == "affine" and len(source.shape) == 1:
        return vector_affine(graph, weights, image)
    inputs = [image, _stacked(graph, weights, kinds, block), graph.constant(weights.bias)]
    if op.kind == "linear":
        return graph.node("Gemm", inputs, transB=1)
    return graph.node("Conv", inputs, **geometry(op))


def _stacked(graph: GraphBuilder, weights: Weights, kinds: np.ndarray, block: Block) -> str:
    found = np.unique(kinds)[::-1]
    parts = [block(int(kind), _rows(weights, kinds == kind)) for kind in found]
    whole = parts[0] if len(parts) == 1 else graph.node("Concat", parts, axis=0)
    places = np.argsort(np.argsort(-kinds.astype(np.int64), kind="stable"))
    if (np.diff(places) == 1).all():
        return whole
    return graph.node("Gather", [whole, graph.constant(places.astype(np.int32))], axis=0)


def _rows(weights: Weights, chosen: np.ndarray) -> Weights:
    parts = (weights.codes, weights.scales, weights.bits, weights.bias)
    return Weights(*(part[chosen] for part in parts))


def real_values(rows: Weights) -> np.ndarray:
    """``[O, ...]`` float32 codes times scales."""
    scales = rows.scales.astype(np.float32).reshape(-1, *[1] * (rows.codes.ndim - 1))
    values: np.ndarray = rows.codes.astype(np.float32) * scales
    return values
