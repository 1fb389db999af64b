"""The small dialect: weights as INT2, INT4 and INT8 blocks.

A row of 2 bits goes into the INT2 block of its layer, one of 3 or 4 bits into the INT4 block, one
of 5 to 8 bits into the INT8 block, one of 32 bits into a float block; a row of zeros is INT2. Each
block has one ``DequantizeLinear(axis=0)``. INT2 came with opset 25.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
from onnx import ModelProto

from hw_models.network import FLOAT_BITS, Edge, Network, Operator, Weights
from hw_models.onnx.blocks import add_blocked_layer, real_values
from hw_models.onnx.graph import GraphBuilder
from hw_models.onnx.lower import Dialect, build_model
from hw_models.ordering import by_width

OPSET = 25
TYPES = {2: ml_dtypes.int2, 4: ml_dtypes.int4, 8: np.int8}


def build_blocked(network: Network) -> ModelProto:
    """An ONNX model that computes what the IR says, up to rounding of sums in float32."""
    return build_model(by_width(network), Dialect(GraphBuilder, _add_layer, {"": OPSET}))


def stored_widths(bits: np.ndarray) -> np.ndarray:
    """``[O]`` the width that ONNX stores rows of ``bits`` with: 2, 4, 8 or 32."""
    widths = np.array([*TYPES, FLOAT_BITS])
    return widths[np.searchsorted(widths, bits)]


def _add_layer(graph: GraphBuilder, op: Operator, source: Edge, tensor: str) -> str:
    assert op.weights is not None

    def block(width: int, rows: Weights) -> str:
        if width == FLOAT_BITS:
            return graph.constant(real_values(rows))
        codes = graph.constant(rows.codes.astype(TYPES[width]))
        scales = graph.constant(rows.scales.astype(np.float32))
        return graph.node("DequantizeLinear", [codes, scales], axis=0)

    return add_blocked_layer(graph, op, source, tensor, stored_widths(op.weights.bits), block)
