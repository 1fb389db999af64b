"""A faster simulation of a compressed network, for telling candidates apart.

The codes of :mod:`ajpq.reference` but for ties: scales are folded into weights and biases, so that
a convolution answers in steps of its output's grid, and rounding and clamping are all that is left
to do, in place. Sums are those of float32, in whatever order the processor likes. What is recorded
of a network is measured by the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.reference import Step, run_steps, step_of
from hw_models.network import FLOAT_BITS, Edge, Network, Operator


def prepare_ranking(network: Network) -> Callable[[Tensor], Tensor]:
    """Convert the weights once; the result maps images ``[N, C, H, W]`` to logits."""
    return run_steps(network, [(op, _step(network, op)) for op in network.operators])


def _step(network: Network, op: Operator) -> Step:
    inputs, out = [network.edges[edge] for edge in op.inputs], network.edges[op.output]
    if op.kind in _FOLDED and op.activation in (None, "relu", "relu6"):
        return _FOLDED[op.kind](op, inputs, out)
    return step_of(network, op)


def _finish(function: str | None, out: Edge) -> Step:
    """Steps of the output's grid to codes, in place; a real output has steps of 1."""
    low, high = -math.inf, math.inf
    if out.bits != FLOAT_BITS:
        low, high = out.code_range
    if function is not None:
        low = max(low, 0.0)
    if function == "relu6":
        high = min(high, 6 / _step_of(out))
    if out.bits != FLOAT_BITS:
        return lambda x: x.clamp_(low, high).round_()
    return (lambda x: x) if function is None else (lambda x: x.clamp_(low, high))


def _step_of(edge: Edge) -> float:
    return 1.0 if edge.bits == FLOAT_BITS else edge.scale


def _layer(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    assert op.weights is not None
    step = _step_of(out)
    codes, rows = op.weights.codes, (-1,) + (1,) * (op.weights.codes.ndim - 1)
    factor = op.weights.scales.astype(np.float64) * _step_of(inputs[0]) / step
    weight = torch.from_numpy((codes * factor.reshape(rows)).astype(np.float32))
    bias = torch.from_numpy((op.weights.bias.astype(np.float64) / step).astype(np.float32))
    finish, a = _finish(op.activation, out), op.attributes
    if op.kind == "linear":
        return lambda x: finish(F.linear(x, weight, bias))
    weight = weight.contiguous(memory_format=torch.channels_last)
    geometry = (a["stride"], a["padding"], a["dilation"], a["groups"])
    return lambda x: finish(F.conv2d(x, weight, bias, *geometry))


def _add(op: Operator, inputs: list[Edge], out: Edge) -> Step:
    left, right = (_step_of(edge) / _step_of(out) for edge in inputs)
    finish = _finish(op.activation, out)
    return lambda x, y: finish((x * left).add_(y, alpha=right))


_FOLDED: dict[str, Callable[[Operator, list[Edge], Edge], Step]] = {
    "conv": _layer,
    "linear": _layer,
    "add": _add,
}
