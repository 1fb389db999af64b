"""Operators with weights as ONNX nodes: conv, linear and affine."""

from __future__ import annotations

from typing import Any

import numpy as np

from hw_models.network import FLOAT_BITS, Edge, Operator, Weights
from hw_models.onnx.graph import GraphBuilder, is_real

_LARGEST_BIAS = float(1 << 30)


def add_layer(graph: GraphBuilder, op: Operator, source: Edge, tensor: str) -> str:
    """Real values of the layer before its activation."""
    assert op.weights is not None
    if op.kind == "affine" and len(source.shape) == 1:
        return vector_affine(graph, op.weights, graph.real(tensor, source))
    rows = _integer_rows(op.weights, source)
    if rows is None:
        inputs = [graph.plain_real(tensor, source), *_real_parameters(graph, op)]
    else:
        inputs = [graph.real(tensor, source), *_integer_parameters(graph, op, source, *rows)]
    if op.kind == "linear":
        return graph.node("Gemm", inputs)
    return graph.node("Conv", inputs, **geometry(op))


def geometry(op: Operator) -> dict[str, Any]:
    """Attributes of Conv; an affine is a depthwise convolution with a kernel of one pixel."""
    assert op.weights is not None
    kernel = list(op.weights.codes.shape[2:])
    if op.kind == "affine":
        return {"kernel_shape": kernel, "group": len(op.weights.bits)}
    attributes = op.attributes
    return {
        "kernel_shape": kernel,
        "strides": list(attributes["stride"]),
        "pads": list(attributes["padding"]) * 2,
        "dilations": list(attributes["dilation"]),
        "group": int(attributes["groups"]),
    }


def vector_affine(graph: GraphBuilder, weights: Weights, image: str) -> str:
    """One factor and offset per element of a vector."""
    factor = weights.codes.reshape(-1).astype(np.float32) * weights.scales
    scaled = graph.node("Mul", [image, graph.constant(factor)])
    return graph.node("Add", [scaled, graph.constant(weights.bias)])


def _laid_out(op: Operator, rows: np.ndarray) -> np.ndarray:
    """Gemm wants ``[I, O]``."""
    return rows.T if op.kind == "linear" else rows


def _real_parameters(graph: GraphBuilder, op: Operator) -> tuple[str, str]:
    """Float tensors of weight and bias."""
    weights = op.weights
    assert weights is not None
    scales = weights.scales.reshape(-1, *[1] * (weights.codes.ndim - 1))
    rows = weights.codes.astype(np.float32) * scales
    return graph.constant(_laid_out(op, rows)), graph.constant(weights.bias)


def _integer_parameters(
    graph: GraphBuilder, op: Operator, source: Edge, codes: np.ndarray, scales: np.ndarray
) -> tuple[str, str]:
    """Dequantized tensors of weight and bias."""
    assert op.weights is not None
    stored = graph.constant(_laid_out(op, (codes + 128).astype(np.uint8)))
    zeros = graph.constant(np.full(len(scales), 128, dtype=np.uint8))
    axis = int(op.kind == "linear")
    weight = graph.node("DequantizeLinear", [stored, graph.constant(scales), zeros], axis=axis)
    return weight, _bias(graph, op.weights.bias, scales, source)


def _bias(graph: GraphBuilder, bias: np.ndarray, scales: np.ndarray, source: Edge) -> str:
    steps = np.float32(source.scale) * scales
    codes = graph.constant(np.rint(bias.astype(np.float64) / steps).astype(np.int32))
    zeros = graph.constant(np.zeros(len(scales), dtype=np.int32))
    return graph.node("DequantizeLinear", [codes, graph.constant(steps), zeros], axis=0)


def _integer_rows(weights: Weights, source: Edge) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows as ONNX can hold them: positive scales, and steps that suit an int32 bias.

    A negative scale turns the signs of its codes. The bias is counted in steps of the row, so the
    steps of a narrow row are split (4-bit codes times 18, scale over 18): the bias keeps its
    precision. A step that is zero or tiny next to the bias grows instead; what its codes lose is
    below 2**-7 of the bias, less than one output step.

    Returns:
        int64 codes and ``[O]`` float32 scales > 0; None if the layer has to stay float: 32-bit
        rows, codes that do not fit, or real inputs (from a DequantizeLinear behind these, ONNX
        Runtime would make a MatMulNBits, which quantizes its input on the way).
    """
    if is_real(source) or FLOAT_BITS in weights.bits:
        return None
    rows = (-1, *[1] * (weights.codes.ndim - 1))
    largest = np.abs(weights.codes.reshape(len(weights.bits), -1).astype(np.float64)).max(1)
    split = np.maximum(127 // np.maximum(largest, 1), 1)
    scales = np.abs(weights.scales) / split
    least = np.abs(weights.bias) / (source.scale * _LARGEST_BIAS)
    steps = np.maximum(scales, least)
    steps[steps == 0] = 1
    factor = np.sign(weights.scales) * split * scales / steps
    codes = np.rint(weights.codes * factor.reshape(rows)).astype(np.int64)
    fits = codes.min() >= -128 and codes.max() <= 127
    return (codes, steps.astype(np.float32)) if fits else None
