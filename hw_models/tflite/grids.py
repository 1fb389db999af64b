"""On which int8 grid every edge of a network lies."""

from __future__ import annotations

import math

import numpy as np

from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS, Edge, Network, Operator, Weights
from hw_models.tflite.program import Grid

SAME_GRID = frozenset(("select", "subsample", "pad", "maxpool", "flatten", "concat"))
LARGEST_CODE = 127
UNSIGNED_ZERO = -128
NEGATIVE_TAIL = 8.0  # below -8 sigmoid and silu are less than 0.003 away from 0
SIGMOID_GRID = Grid(1 / 256, UNSIGNED_ZERO)  # the only one that LOGISTIC writes

Range = float | tuple[float, float]
"""The largest magnitude, or the smallest value (at most 0) and the largest (above 0)."""


def edge_grid(edge: Edge) -> Grid:
    """The last code is the last of int8, so that whatever lies beyond is cut off there.

    Signed codes of 8 bits keep their value, unsigned ones shift down by 128. Signed codes of fewer
    bits have room below, where nothing is cut off.
    """
    return Grid(edge.scale, LARGEST_CODE - edge.code_range[1])


def spread(low: float, high: float) -> Grid:
    """The grid that covers ``[low, high]``, zero on a code."""
    scale = (high - low) / 255
    return Grid(scale, UNSIGNED_ZERO + round(-low / scale))


def before_activation(function: str, output: Grid) -> Grid:
    """The grid of what goes into an activation, given the grid of what comes out.

    Values where the activation is flat, or above what the output can hold, need no codes.
    """
    top = output.largest
    if function == "hardswish":
        return spread(-3.0, top if top > 3 else (math.sqrt(9 + 24 * top) - 3) / 2)
    if function == "silu":
        return spread(-NEGATIVE_TAIL, top + 0.28)  # x - silu(x) never exceeds 0.2785
    if function == "sigmoid":
        return spread(-NEGATIVE_TAIL, NEGATIVE_TAIL)
    return spread(-3.0, 3.0)


def _edge_bound(edge: Edge) -> float:
    return max(abs(code) for code in edge.code_range) * edge.scale


def _row_bound(weights: Weights, largest_input: float) -> float:
    """The largest output: certain for short rows, two times their Euclidean norm for long ones."""
    rows = np.abs(weights.codes.reshape(len(weights.bits), -1).astype(np.float64))
    norms = np.minimum(rows.sum(axis=1), 2 * np.sqrt((rows**2).sum(axis=1)))
    reach = norms * np.abs(weights.scales) * largest_input
    return float((np.abs(weights.bias) + reach).max(initial=0.0))


def _operator_bound(network: Network, operator: Operator) -> float:
    bounds = [_edge_bound(network.edges[name]) for name in operator.inputs]
    if operator.weights is not None:
        return _row_bound(operator.weights, bounds[0])
    if operator.kind == "add":
        return sum(bounds)
    return float(np.prod(bounds)) if operator.kind == "mul" else max(bounds)


def real_tail(network: Network) -> tuple[frozenset[str], tuple[Operator, ...]]:
    """The real edges at the end of a network, and the operators that produce real values.

    Between these operators and the output there is nothing that changes a value.

    Raises:
        AjpqError: another edge is real: an int8 file cannot hold it.
    """
    producers = {operator.output: operator for operator in network.operators}
    tail: set[str] = set()
    sources = []
    waiting = [network.output]
    while waiting:
        name = waiting.pop()
        if name in tail or network.edges[name].bits != FLOAT_BITS:
            continue
        tail.add(name)
        operator = producers.get(name)
        if operator is not None and operator.kind in SAME_GRID:
            waiting.extend(operator.inputs)
        elif operator is not None:
            sources.append(operator)
    for name, edge in network.edges.items():
        if edge.bits == FLOAT_BITS and name not in tail:
            raise AjpqError(f"edge {name!r} holds 32-bit activations; an int8 file has 8 bits")
    return frozenset(tail), tuple(sources)


def edge_grids(network: Network, output_range: Range | None) -> dict[str, Grid]:
    """The grid of every edge.

    The IR leaves the output real. Here it gets int8 codes that reach from ``-output_range`` to
    ``output_range``, or between the two values that it holds. Without one, a layer's outputs are
    taken to stay below ``|bias| + 2 * norm(row) * largest input``: the sum of magnitudes, which
    none can exceed, is out of all proportion for long rows. Outputs beyond saturate.
    """
    tail, sources = real_tail(network)
    if output_range is None:
        output_range = max((_operator_bound(network, op) for op in sources), default=1.0)
    if isinstance(output_range, tuple):
        output = spread(*output_range)
    else:
        output = Grid((output_range or 1.0) / LARGEST_CODE)
    return {
        name: output if name in tail else edge_grid(edge) for name, edge in network.edges.items()
    }
