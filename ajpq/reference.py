"""The reference simulation: integer codes, exact accumulators, one fixed order of rescaling.

Every recorded metric is measured here. Results do not depend on the batch size, the number of
threads, the memory layout, or on whether pruned channels are still there. The arithmetic is that of
:mod:`ajpq.simulation.operators`; this runs it in blocks of images, whatever precision the caller
has set.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ajpq.simulation.operators import operator_module
from ajpq.simulation.walk import Step, run_steps
from hw_models.network import Network, Operator


def simulate(network: Network, images: Tensor) -> Tensor:
    """Run a compressed network exactly.

    Args:
        network: as ``apply_policy`` makes it.
        images: ``[N, C, H, W]`` float32, normalised.

    Returns:
        Logits ``[N, classes]`` float32.
    """
    return prepare(network)(images)


def prepare(network: Network) -> Callable[[Tensor], Tensor]:
    """Convert the weights once; the result maps images to logits like :func:`simulate`."""
    return run_steps(network, [(op, step_of(network, op)) for op in network.operators])


def step_of(network: Network, op: Operator) -> Step:
    """The exact arithmetic of one operator, which leaves its inputs as they are."""
    inputs = [network.edges[edge] for edge in op.inputs]
    return operator_module(op, inputs, network.edges[op.output])
