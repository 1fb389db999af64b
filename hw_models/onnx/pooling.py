"""Pooling as ONNX nodes, with windows placed as PyTorch places them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hw_models.network import Edge, Operator
from hw_models.onnx.graph import GraphBuilder


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _end_padding(op: Operator, source: Edge, target: Edge) -> list[int]:
    """Rows and columns behind the image that the last window reaches, ``ceil_mode`` included.

    Spelling them out is exact; ONNX's own ``ceil_mode`` changed its meaning between opsets.
    """
    kernel, stride, padding = (_pair(op.attributes[key]) for key in ("kernel", "stride", "padding"))
    sizes = zip(kernel, stride, padding, source.shape[1:], target.shape[1:], strict=True)
    return [max(0, (out - 1) * s + k - length - p) for k, s, p, length, out in sizes]


def _window(op: Operator) -> dict[str, Any]:
    kernel, stride = _pair(op.attributes["kernel"]), _pair(op.attributes["stride"])
    return {"kernel_shape": kernel, "strides": stride}


def add_maxpool(
    graph: GraphBuilder, op: Operator, sources: Sequence[Edge], target: Edge, tensors: Sequence[str]
) -> str:
    """Maximum of codes; padding never wins."""
    pads = _pair(op.attributes["padding"]) + _end_padding(op, sources[0], target)
    return graph.node("MaxPool", [tensors[0]], pads=pads, **_window(op))


def add_average(
    graph: GraphBuilder, op: Operator, sources: Sequence[Edge], target: Edge, tensors: Sequence[str]
) -> str:
    """Real averages. Padding that counts is made of real zeros, what lies beyond never counts."""
    begin, end = _pair(op.attributes["padding"]), _end_padding(op, sources[0], target)
    image = graph.real(tensors[0], sources[0])
    if op.attributes["count_include_pad"] and any(begin):
        image = _zero_padded(graph, begin, image)
        end = [max(0, far - near) for far, near in zip(end, begin, strict=True)]
        begin = [0, 0]
    return graph.node("AveragePool", [image], pads=begin + end, count_include_pad=0, **_window(op))


def _zero_padded(graph: GraphBuilder, padding: list[int], image: str) -> str:
    pads = [0, 0, *padding]
    return graph.node("Pad", [image, graph.integers(pads * 2)])


def add_global_average(
    graph: GraphBuilder, op: Operator, sources: Sequence[Edge], target: Edge, tensors: Sequence[str]
) -> str:
    """One real value per channel."""
    return graph.node("GlobalAveragePool", [graph.real(tensors[0], sources[0])])
