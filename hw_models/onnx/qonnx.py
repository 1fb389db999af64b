"""The QONNX dialect: arbitrary widths, one ``IntQuant`` per block of rows and per edge.

Tensors are float32 and hold real values; an ``IntQuant`` says on which grid they lie (Pappalardo
et al. 2022, arXiv:2206.07527). Weights are stored as the real values of their codes, so the file
is as large as a float one: it is for compilers that read QONNX. A row of zeros is a row of 2 bits,
a row of 32 bits has no ``IntQuant``.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from hw_models.network import FLOAT_BITS, Edge, Network, Operator, Weights
from hw_models.onnx.blocks import add_blocked_layer, real_values
from hw_models.onnx.graph import GraphBuilder, is_real
from hw_models.onnx.lower import OPSET, Dialect, build_model
from hw_models.ordering import by_width

DOMAIN = "qonnx.custom_op.general"
_LEAST_WIDTH = 2


def build_qonnx(network: Network) -> ModelProto:
    """A QONNX model that computes what the IR says, up to rounding of sums in float32."""
    dialect = Dialect(QonnxGraph, _add_layer, {"": OPSET, DOMAIN: 1})
    return build_model(by_width(network), dialect)


class QonnxGraph(GraphBuilder):
    """A graph whose edges hold real values."""

    def real(self, tensor: str, edge: Edge) -> str:
        """The tensor itself."""
        return tensor

    def plain_real(self, tensor: str, edge: Edge) -> str:
        """The tensor itself."""
        return tensor

    def zero(self, edge: Edge) -> str:
        """The scalar that fills padding."""
        return self.constant(np.zeros((), np.float32))

    def quantize(self, real: str, edge: Edge, upper: int | None = None) -> str:
        """Real values on an edge's grid; ``upper`` is the largest code allowed, if there is one."""
        if is_real(edge):
            return real
        scale = np.asarray(edge.scale, np.float32)
        values = self.int_quant(real, scale, edge.bits, edge.signed, narrow=edge.signed)
        if upper is None or upper >= edge.code_range[1]:
            return values
        return self.node("Min", [values, self.constant(np.float32(upper) * scale)])

    def int_quant(
        self, real: str, scale: np.ndarray, bits: int, signed: bool, *, narrow: bool
    ) -> str:
        """Round to multiples of ``scale``; ``narrow`` leaves the smallest code out."""
        constants = (scale, np.zeros((), np.float32), np.asarray(bits, np.float32))
        inputs = [real, *map(self.constant, constants)]
        return self.node(
            "IntQuant",
            inputs,
            domain=DOMAIN,
            signed=int(signed),
            narrow=int(narrow),
            rounding_mode="ROUND",
        )


def _add_layer(graph: GraphBuilder, op: Operator, source: Edge, tensor: str) -> str:
    assert isinstance(graph, QonnxGraph)
    assert op.weights is not None

    def block(width: int, rows: Weights) -> str:
        values = graph.constant(real_values(rows))
        if width == FLOAT_BITS:
            return values
        narrow = int(rows.codes.min(initial=0)) >= 1 - 2 ** (width - 1)
        steps = np.abs(rows.scales) if narrow else rows.scales
        steps = np.where(steps == 0, 1, steps).astype(np.float32)
        steps = steps.reshape(-1, *[1] * (rows.codes.ndim - 1))
        return graph.int_quant(values, steps, width, signed=True, narrow=narrow)

    widths = np.maximum(op.weights.bits, _LEAST_WIDTH)
    return add_blocked_layer(graph, op, source, tensor, widths, block)
