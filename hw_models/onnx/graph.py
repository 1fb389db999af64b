"""A growing ONNX graph: nodes, initializers, and how an edge of the IR lives in it.

A quantized edge is a uint8 tensor of codes: zero point 0 when unsigned, 128 when signed. Operators
that only move codes (concat, select, maxpool, ...) work on the uint8 tensor itself, the others on
``DequantizeLinear`` of it, which ONNX Runtime fuses into its integer kernels.

Everything is uint8, weights included, because ONNX Runtime's uint8 x int8 kernels saturate sums of
two products at 16 bits on x86 processors without VNNI: 2 * 255 * 127 does not fit. The
uint8 x uint8 kernels widen first and are exact on every machine. Measured on such a processor with
ResNet-20 at 4 bits: int8 weights agree with the reference on 95 % of the images, uint8 on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hw_models.network import FLOAT_BITS, Edge

SIGNED_ZERO = 128
OWNED = "::"  # between an operator and its node in the name of the node


def zero_point(edge: Edge) -> int:
    """The byte that stands for code 0."""
    return SIGNED_ZERO if edge.signed else 0


def is_real(edge: Edge) -> bool:
    """Does the edge carry floats?"""
    return edge.bits == FLOAT_BITS


class GraphBuilder:
    """Collects nodes and constants; every method returns the name of the tensor it makes."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.owner = ""  # the IR operator whose nodes are added; their names begin with it
        self.constants: list[TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        """Store a constant tensor."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(
        self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any
    ) -> str:
        """Append a node with one output."""
        output = output or f"tensor_{len(self.nodes)}"
        name = f"{self.owner}{OWNED}{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name, **attributes))
        return output

    def _grid(self, edge: Edge) -> list[str]:
        scale = self.constant(np.asarray(edge.scale, dtype=np.float32))
        return [scale, self.constant(np.asarray(zero_point(edge), dtype=np.uint8))]

    def real(self, tensor: str, edge: Edge) -> str:
        """Real values of an edge's tensor. Each consumer gets its own node, so that it fuses."""
        if is_real(edge):
            return tensor
        return self.node("DequantizeLinear", [tensor, *self._grid(edge)])

    def plain_real(self, tensor: str, edge: Edge) -> str:
        """The same values without DequantizeLinear.

        Between two quantized edges, ONNX Runtime would put float weights on 8 bits by itself.
        """
        if is_real(edge):
            return tensor
        values = self.node("Cast", [tensor], to=TensorProto.FLOAT)
        if edge.signed:
            zero = self.constant(np.asarray(SIGNED_ZERO, dtype=np.float32))
            values = self.node("Sub", [values, zero])
        return self.node("Mul", [values, self.constant(np.asarray(edge.scale, dtype=np.float32))])

    def quantize(self, real: str, edge: Edge, upper: int | None = None) -> str:
        """Put real values on an edge's codes.

        Args:
            upper: the largest code allowed, if the activation sets a limit below the edge's own.
        """
        if is_real(edge):
            return real
        codes = self.node("QuantizeLinear", [real, *self._grid(edge)])
        least, most = edge.code_range
        most = most if upper is None else min(most, upper)
        limits = np.asarray([least, most]) + zero_point(edge)
        if limits.tolist() == [0, 255]:
            return codes
        low, high = (self.constant(limit) for limit in limits.astype(np.uint8))
        return self.node("Clip", [codes, low, high])

    def zero(self, edge: Edge) -> str:
        """The scalar that fills padding of an edge's tensor."""
        kind = np.float32 if is_real(edge) else np.uint8
        return self.constant(np.asarray(0 if is_real(edge) else zero_point(edge), dtype=kind))

    def integers(self, values: Sequence[int]) -> str:
        """An int64 vector."""
        return self.constant(np.asarray(values, dtype=np.int64))
