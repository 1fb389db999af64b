"""The operators of a compressed network as modules: the arithmetic of the reference simulation.

Integer sums are exact (float32 below 2**24, float64 above) and everything after them is one
float32 operation per element in a fixed order. Layers with 32-bit weights or inputs cannot be
exact; they accumulate in float64 and are rounded to float32 once.

Edges between modules hold codes as float32. A module leaves its inputs as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ajpq.simulation.operators.averages import Average, GlobalAverage
from ajpq.simulation.operators.elementwise import MOVES, Move, Product, Rescale, Sum
from ajpq.simulation.operators.quantize import Quantize, applied
from ajpq.simulation.operators.weighted import Affine, Convolution, Linear
from hw_models.network import Edge, Operator

__all__ = ["Quantize", "applied", "operator_module"]

_MODULES: dict[str, Callable[[Operator, Sequence[Edge], Edge], nn.Module]] = {
    "conv": Convolution,
    "linear": Linear,
    "affine": Affine,
    "activation": Rescale,
    "requantize": Rescale,
    "add": Sum,
    "mul": Product,
    "avgpool": Average,
    "globalavgpool": GlobalAverage,
}


def operator_module(op: Operator, inputs: Sequence[Edge], out: Edge) -> nn.Module:
    """The exact arithmetic of one operator between the given edges."""
    if op.kind in MOVES:
        return Move(op.kind, op.attributes)
    return _MODULES[op.kind](op, inputs, out)
