"""What the compressed mode learns from a few training batches without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.compressed import State
from ajpq.graph.execute import channels_last, execute, frozen_batchnorm
from ajpq.graph.structure import EVERYTHING, Graph, Node, nonnegative_edges
from ajpq.grids import ActivationRange

EdgeHook = Callable[[str, Tensor], Tensor]


@torch.no_grad()
def recalibrate_batchnorm(
    graph: Graph, state: State, batches: Iterable[Tensor], edge: EdgeHook
) -> dict[str, Tensor]:
    """BatchNorm statistics averaged over ``batches``, by state-dict name.

    The batches should be augmented as in training: statistics from unaugmented images differ
    from those that the network was trained with.
    """
    total: dict[str, Tensor] = {}
    count = 0

    def collect(node: Node, values: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        mean, variance = torch.zeros(2, values.shape[1])
        factor = tensors.get(node.parameters.get("weight", ""))
        shift = tensors.get(node.parameters.get("bias", ""))
        # With a momentum of 1 the running statistics become those of the batch.
        eps = node.attributes["eps"]
        normalised = F.batch_norm(values, mean, variance, factor, shift, True, 1.0, eps)
        for role, value in (("running_mean", mean), ("running_var", variance)):
            name = node.parameters[role]
            total[name] = total[name] + value if name in total else value
        return normalised

    for images in batches:
        execute(graph, state, channels_last(images), edge=edge, batchnorm=collect)
        count += 1
    return {name: value / count for name, value in total.items()}


@torch.no_grad()
def activation_ranges(
    graph: Graph, state: State, batches: Iterable[Tensor], edge: EdgeHook | None = None
) -> dict[str, ActivationRange]:
    """Largest magnitude of every quantized edge over ``batches``; the sign is the graph's.

    Where an activation reads the edge, no more than what it tells apart.

    ``edge`` sees the values after they were recorded, so that ranges can be taken from a network
    whose earlier activations are already on codes.
    """
    largest: dict[str, float] = {}

    def record(name: str, values: Tensor) -> Tensor:
        own = magnitude(values, graph.domains.get(name, EVERYTHING))
        largest[name] = max(largest.get(name, 0.0), own)
        return values if edge is None else edge(name, values)

    for images in batches:
        execute(graph, state, channels_last(images), edge=record, batchnorm=frozen_batchnorm)
    unsigned = nonnegative_edges(graph)
    return {
        name: ActivationRange(maximum=value, signed=name not in unsigned)
        for name, value in largest.items()
    }


def magnitude(values: Tensor, domain: tuple[float, float]) -> float:
    """The largest absolute value, none counted beyond ``domain``, which holds 0."""
    # All in the order of memory, which is many times faster.
    in_memory = values.permute(0, 2, 3, 1) if values.dim() == 4 else values
    low, high = (float(v) for v in torch.aminmax(in_memory))
    return max(min(high, domain[1]), -max(low, domain[0]))
