"""A faster simulation of a compressed network, for telling candidates apart.

The codes of :mod:`ajpq.reference` but for ties: sums and scales are rounded in whatever order the
processor likes. What is recorded of a network is measured by the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from ajpq.graph.structure import GRID_PRESERVING
from ajpq.reference import step_of
from ajpq.simulation.kernels import Kernels, fastest
from ajpq.simulation.kernels.floats import CLAMPS
from ajpq.simulation.operators import Quantize
from ajpq.simulation.prefixes import Prefixes
from ajpq.simulation.walk import Step, run_steps
from hw_models.network import Edge, Network, Operator


def prepare_ranking(
    network: Network, kernels: Kernels | None = None, prefixes: Prefixes | None = None
) -> Callable[[Tensor], Tensor]:
    """Convert the weights once; the result maps images ``[N, C, H, W]`` to logits.

    Args:
        prefixes: what networks that begin alike have answered.
    """
    kernels = kernels or fastest()
    steps = [(op, ranking_step(kernels, network, op)) for op in network.operators]
    return run_steps(network, steps, kernels.store, prefixes, kernels.images_at_once)


def ranking_step(kernels: Kernels, network: Network, op: Operator) -> Step:
    """One operator, between edges that ``kernels`` keeps; may write over its spare input."""
    inputs, out = [network.edges[edge] for edge in op.inputs], network.edges[op.output]
    if op.kind in ("conv", "linear"):
        if op.activation in CLAMPS:
            return kernels.layer(op, inputs[0], out)
        real = kernels.layer(replace(op, activation=None), inputs[0], real_edge(out))
        finish = Quantize(op.activation, out)
        return lambda x: kernels.store(finish(real(x)), out)
    if op.kind == "add" and op.activation in CLAMPS:
        return kernels.add(op, inputs[0], inputs[1], out, spare_input(network, op))
    if op.kind in ("activation", "requantize") and op.attributes.get("function") in CLAMPS:
        return kernels.rescale(op, inputs[0], out)
    if op.kind in GRID_PRESERVING:
        return kernels.move(op, inputs, out)
    return loaded(kernels, step_of(network, op), inputs, out)


def spare_input(network: Network, op: Operator) -> int | None:
    """Which input of an addition may be written over: nobody else reads it, and nobody keeps it.

    That is the later of the two if a layer made it: memory of its own, which was never the only one
    alive (:mod:`ajpq.simulation.prefixes` keeps those).
    """
    made = [o for o in network.operators if o.output in op.inputs]
    if len(set(op.inputs)) < 2 or not made or made[-1].kind != "conv":
        return None
    readers = [edge for o in network.operators for edge in o.inputs]
    own = made[-1].output
    return op.inputs.index(own) if readers.count(own) == 1 and own != network.output else None


def real_edge(edge: Edge) -> Edge:
    """``edge`` before its values are put on codes."""
    return Edge(edge.name, edge.shape)


def loaded(kernels: Kernels, step: Step, inputs: list[Edge], out: Edge) -> Step:
    """A step on float32 codes between edges that ``kernels`` keeps."""

    def run(*stored: Tensor) -> Tensor:
        codes = (kernels.load(x, edge) for x, edge in zip(stored, inputs, strict=True))
        return kernels.store(step(*codes), out)

    return run
