"""Is what a file describes a network? Arity, names, order and shapes, before anything is allocated.

The kinds of operators and their shapes are those of :mod:`hw_models.network`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from hw_models.network import Edge, Network, Operator
from hw_models.plain import shown

MOST_VALUES = 1 << 24
"""The largest tensor between two operators, its padding counted: 64 channels of 512 x 512."""
_Shape = tuple[int, ...]
_RANKS = (1, 3)
_ARITY = {"add": 2, "mul": 2}
_SPATIAL = {"conv", "subsample", "pad", "maxpool", "avgpool", "globalavgpool"}
_PADDED = {"conv", "pad", "maxpool", "avgpool"}


def check_wiring(network: Network, shapes: Mapping[int, _Shape]) -> None:
    """Every operator must read what there is, and make what the next one may read.

    Args:
        shapes: number of the operator -> shape of its weights.

    Raises:
        ValueError: in one line, naming the edge or operator that is impossible.
    """
    for edge in network.edges.values():
        if len(edge.shape) not in _RANKS or math.prod(edge.shape) > MOST_VALUES:
            raise ValueError(f"edge {shown(edge.name)} has an impossible shape")
    if len({op.name for op in network.operators}) < len(network.operators):
        raise ValueError("names of operators are repeated")
    known = {network.input}
    for place, op in enumerate(network.operators):
        if not known.issuperset(op.inputs) or op.output in known:
            raise ValueError(
                f"operator {shown(op.name)} stands before its inputs or repeats an output"
            )
        if not _fits(op, network.edges, shapes.get(place, ())):
            raise ValueError(f"operator {shown(op.name)} does not fit its inputs and its output")
        known.add(op.output)
    if network.output not in known:
        raise ValueError("nothing makes the output")


def _fits(op: Operator, edges: Mapping[str, Edge], weights: _Shape) -> bool:
    inputs, output = [edges[name].shape for name in op.inputs], edges[op.output].shape
    arity = len(inputs) > 0 if op.kind == "concat" else len(inputs) == _ARITY.get(op.kind, 1)
    if not arity or (op.kind in _SPATIAL and {len(inputs[0]), len(output)} != {3}):
        return False
    if op.kind in _PADDED and math.prod(_padded(op, inputs[0])) > MOST_VALUES:
        return False
    return _RULES[op.kind](op, inputs, output, weights)


def _padded(op: Operator, shape: _Shape) -> _Shape:
    """``(C, H, W)`` with the zeros around it."""
    padding = op.attributes["padding"]
    left, right, top, bottom = padding if op.kind == "pad" else (*padding[1:] * 2, *padding[:1] * 2)
    return shape[0], shape[1] + top + bottom, shape[2] + left + right


def _conv(op: Operator, inputs: Sequence[_Shape], output: _Shape, weights: _Shape) -> bool:
    (source,), a = inputs, op.attributes
    if len(weights) != 4 or weights[0] != output[0] or source[0] != a["groups"] * weights[1]:
        return False
    sizes = zip(_padded(op, source)[1:], weights[2:], a["stride"], a["dilation"], strict=True)
    space = tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in sizes)
    return weights[0] % a["groups"] == 0 and min(space) > 0 and output[1:] == space


def _pool(op: Operator, inputs: Sequence[_Shape], output: _Shape, weights: _Shape) -> bool:
    """As PyTorch counts windows: with ``ceil_mode`` the last one must begin within the input."""
    (source,), a = inputs, op.attributes
    space = []
    for n, k, s, p in zip(source[1:], a["kernel"], a["stride"], a["padding"], strict=True):
        count = (n + 2 * p - k + (s - 1 if a["ceil_mode"] else 0)) // s + 1
        space.append(count - (a["ceil_mode"] and (count - 1) * s >= n + p))
        if 2 * p > k or n + 2 * p < k:
            return False
    return output == (source[0], *space)


def _mul(op: Operator, inputs: Sequence[_Shape], output: _Shape, weights: _Shape) -> bool:
    left, right = inputs
    return output == left and (right in (left, left[:1]) or right == (left[0], 1, 1)[: len(left)])


def _select(op: Operator, inputs: Sequence[_Shape], output: _Shape, weights: _Shape) -> bool:
    (source,), index = inputs, op.attributes["index"]
    return output == (len(index), *source[1:]) and max(index) < source[0]


def _concat(op: Operator, inputs: Sequence[_Shape], output: _Shape, weights: _Shape) -> bool:
    same = all(shape[1:] == output[1:] for shape in inputs)
    return same and sum(shape[0] for shape in inputs) == output[0]


def _subsample(op: Operator, inputs: Sequence[_Shape], output: _Shape, weights: _Shape) -> bool:
    (source,) = inputs
    space = (-(-n // s) for n, s in zip(source[1:], op.attributes["stride"], strict=True))
    return output == (source[0], *space)


_Rule = Callable[[Operator, Sequence[_Shape], _Shape, _Shape], bool]
_RULES: Mapping[str, _Rule] = {
    "conv": _conv,
    "linear": lambda op, x, y, w: len(y) == 1 and w == (*y, *x[0]),
    "affine": lambda op, x, y, w: x[0] == y and w == (y[0], 1, 1, 1),
    "activation": lambda op, x, y, w: x[0] == y,
    "requantize": lambda op, x, y, w: x[0] == y,
    "add": lambda op, x, y, w: x[0] == x[1] == y,
    "mul": _mul,
    "concat": _concat,
    "select": _select,
    "subsample": _subsample,
    "pad": lambda op, x, y, w: _padded(op, x[0]) == y,
    "maxpool": _pool,
    "avgpool": _pool,
    "globalavgpool": lambda op, x, y, w: y == (x[0][0], 1, 1),
    "flatten": lambda op, x, y, w: y == (math.prod(x[0]),),
}
"""Kind -> whether shapes of the inputs, the output and the weights belong together."""
