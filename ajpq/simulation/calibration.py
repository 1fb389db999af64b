"""What the compressed mode learns from a few training batches without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.compressed import State
from ajpq.graph.execute import channels_last, execute, frozen_batchnorm
from ajpq.graph.structure import EVERYTHING, Graph, Node, nonnegative_edges
from ajpq.simulation.grids import NARROW, ActivationRange
from hw_models.network import Edge

_SHARES = 2.0 ** (torch.arange(-31, 1) / 6)  # down to a 36th, which 2 bits may want
_SAMPLE = 2**12
_LEAST_STEP = torch.finfo(torch.float32).tiny
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

    Beside it, for narrow codes, the mean over ``batches`` of :func:`clips`.

    Where an activation reads the edge, no more than what it tells apart.

    ``edge`` sees the values after they were recorded, so that ranges can be taken from a network
    whose earlier activations are already on codes.
    """
    largest: dict[str, float] = {}
    narrow: dict[str, list[list[float]]] = {}
    unsigned = nonnegative_edges(graph)

    def record(name: str, values: Tensor) -> Tensor:
        own = magnitude(values, graph.domains.get(name, EVERYTHING))
        largest[name] = max(largest.get(name, 0.0), own)
        narrow.setdefault(name, []).append(clips(values, NARROW, name not in unsigned))
        return values if edge is None else edge(name, values)

    for images in batches:
        execute(graph, state, channels_last(images), edge=record, batchnorm=frozen_batchnorm)
    return {
        name: ActivationRange(value, name not in unsigned, tuple(np.mean(narrow[name], 0).tolist()))
        for name, value in largest.items()
    }


def clips(values: Tensor, widths: Iterable[int], signed: bool) -> list[float]:
    """For each width the largest value that its codes should reach for the least squared error.

    Wide codes reach as far as the largest magnitude; the fewer there are, the more it pays to cut
    off what is rare. Tried are geometric shares of the largest magnitude, on a sample.
    """
    flat = _in_memory(values).reshape(-1)
    flat = flat[:: max(1, len(flat) // _SAMPLE) | 1].float()  # an odd stride meets all channels
    limits = _SHARES * flat.abs().max()
    found = []
    for bits in widths:
        low, high = Edge("", (), bits, signed).code_range
        steps = (limits / high).clamp_(min=_LEAST_STEP)[:, None]
        errors = (flat / steps).round_().clamp_(low, high).mul_(steps).sub_(flat).square_().sum(1)
        found.append(float(limits[errors.argmin()]))
    return found


def magnitude(values: Tensor, domain: tuple[float, float]) -> float:
    """The largest absolute value, none counted beyond ``domain``, which holds 0."""
    own, (low, high) = _in_memory(values), domain
    above = min(float(own.amax()), high)
    # Two passes are faster than torch.aminmax, and one is enough of what cannot be negative.
    return max(above, 0.0) if low == 0 else max(above, -max(float(own.amin()), low))


def _in_memory(values: Tensor) -> Tensor:
    """All in the order of memory, which is many times faster."""
    return values.permute(0, 2, 3, 1) if values.dim() == 4 else values
