"""From the network IR to a TensorFlow Lite program, one operator after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hw_models.errors import AjpqError
from hw_models.network import Edge, Network, Operator
from hw_models.tflite import elementwise, layers, pooling, shaping
from hw_models.tflite.grids import Range, before_activation, edge_grids
from hw_models.tflite.program import Grid, Program, Site
from hw_models.tflite.weights import affine_rows, fold_hardsigmoid

LOWERINGS: dict[str, Callable[[Site], None]] = {
    "conv": layers.conv,
    "linear": layers.linear,
    "affine": layers.affine,
    "add": elementwise.add,
    "mul": elementwise.mul,
    "activation": elementwise.activation,
    "requantize": elementwise.requantize,
    "avgpool": pooling.avgpool,
    "globalavgpool": pooling.globalavgpool,
    "maxpool": pooling.maxpool,
    "subsample": pooling.subsample,
    "concat": shaping.concat,
    "select": shaping.select,
    "pad": shaping.border,
    "flatten": shaping.flatten,
}
# these take RELU and RELU6 along; the others get an operator of its own after them
FUSING = frozenset(("conv", "linear", "affine", "add", "mul", "avgpool", "globalavgpool"))


def _shape(edge: Edge) -> tuple[int, ...]:
    """Batch of one, channels last."""
    return (1, *edge.shape[1:], edge.shape[0])


def _fold(operator: Operator) -> tuple[Operator, int]:
    """Move an activation into the operator before it, where that is exact."""
    if operator.kind not in FUSING:
        return operator, elementwise.NOT_FUSED
    if operator.activation == "hardsigmoid" and operator.weights is not None:
        weights = operator.weights
        rows = affine_rows(weights) if operator.kind == "affine" else weights
        folded = replace(operator, weights=fold_hardsigmoid(rows), activation=None)
        return folded, elementwise.CLAMP_TO_ONE
    if operator.activation in elementwise.FUSED:
        fused = elementwise.FUSED[operator.activation]
        return replace(operator, activation=None), fused
    return operator, elementwise.NOT_FUSED


def _middle_grid(program: Program, operator: Operator, source: int, out: int) -> Grid:
    """The grid between an operator and an activation that is not fused with it."""
    assert operator.activation is not None
    if operator.kind in FUSING:
        return before_activation(operator.activation, program.grid(out))
    return program.grid(source)


def _lower(program: Program, network: Network, operator: Operator, out: int) -> None:
    if operator.kind not in LOWERINGS:
        raise AjpqError(f"operator {operator.name!r} has the unknown kind {operator.kind!r}")
    sources = tuple(program.edges[name] for name in operator.inputs)
    operator, fused = _fold(operator)
    target = out
    if operator.activation is not None:
        grid = _middle_grid(program, operator, sources[0], out)
        target = program.activation(f"{operator.name}/real", program.shape(out), grid)
    LOWERINGS[operator.kind](Site(program, network, operator, sources, target, fused))
    if operator.activation is not None:
        elementwise.activate(program, operator.activation, target, out)


def lower(network: Network, output_range: Range | None = None) -> Program:
    """The int8 program that computes a network.

    Raises:
        AjpqError: something in the network has no int8 form; the operator or edge is named.
    """
    grids = edge_grids(network, output_range)
    program = Program()
    first = network.edges[network.input]
    program.edges[first.name] = program.activation(first.name, _shape(first), grids[first.name])
    for operator in network.operators:
        edge = network.edges[operator.output]
        out = program.activation(edge.name, _shape(edge), grids[edge.name])
        program.owner = operator.name
        _lower(program, network, operator, out)
        program.edges[edge.name] = out
    return program
