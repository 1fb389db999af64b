"""What becomes of a row's scale and bias: BatchNorm folded in, rounded to what devices keep.

Reference, shrunk and packed network are equal bit for bit, so every rounding happens here, where
the network IR is made, and none when a file is written.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ajpq.graph.structure import Fusion, Graph, Node


def folded(
    graph: Graph, tensors: Mapping[str, Tensor], fusion: Fusion
) -> tuple[np.ndarray, np.ndarray]:
    """``[O]`` float64 factor and offset of BatchNorm and of the layer's own bias."""
    bias = _values(graph, tensors, fusion.node, "bias", 0.0)
    if fusion.batchnorm is None:
        return np.ones_like(bias), bias
    factor, offset = normalisation(graph, tensors, fusion.batchnorm)
    return factor, offset + bias * factor


def normalisation(
    graph: Graph, tensors: Mapping[str, Tensor], node: Node
) -> tuple[np.ndarray, np.ndarray]:
    """``[C]`` float64 factor and offset of a BatchNorm."""

    def values(role: str, default: float) -> np.ndarray:
        return _values(graph, tensors, node, role, default)

    factor = values("weight", 1.0) / np.sqrt(values("running_var", 1.0) + node.attributes["eps"])
    return factor, values("bias", 0.0) - values("running_mean", 0.0) * factor


def integer_rows(
    scales: np.ndarray, bias: np.ndarray, scale_in: np.ndarray | np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Float32 scales and biases of rows of codes that read codes, as whole numbers and 16 bits.

    Scales become bfloat16, whose relative error is at most ``2**-8``: what a network loses by it is
    in every accuracy that is told of it. Biases become whole steps of the accumulator,
    ``scale_in * scales[o]``: integer hardware and every int8 file format add the bias to the
    accumulator, and a bias between two steps would be a promise that none of them keeps.

    Args:
        scales: ``[..., O]`` float32; ``bias`` likewise.
        scale_in: float32, of the edge that the rows read; one number or ``[O]``.
    """
    short = torch.from_numpy(scales).to(torch.bfloat16).float().numpy()
    step = scale_in * short
    steps = np.rint(np.divide(bias, step, out=np.zeros_like(step), where=step != 0))
    return short, np.where(step != 0, steps * step, bias).astype(np.float32)


def _values(
    graph: Graph, tensors: Mapping[str, Tensor], node: Node, role: str, default: float
) -> np.ndarray:
    if role in node.parameters:
        return tensors[node.parameters[role]].detach().double().cpu().numpy()
    return np.full(graph.shapes[node.output][0], default)
