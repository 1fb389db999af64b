"""What a compressed network says of its own widths: one backward pass for all channels at once.

Tables are measured around the uncompressed network, one layer at a time. Where a search has arrived
errors of layers add up or make up for each other, and the gradient of the divergence there tells
for every channel whether it should be wider or narrower: the Taylor criterion of Molchanov et al.
(arXiv 1611.06440) for a change of width instead of a removal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.compressed import quantize_edges, weight_bits, with_weights
from ajpq.graph.execute import batch_statistics, channels_last, execute
from ajpq.graph.structure import layers
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, augmented_images
from ajpq.simulation.grids import edge_grids

# Training images of one measurement, in batches whose spread tells how sure it is.
_IMAGES, _BATCH, _FEWEST_BATCHES = 1024, 64, 4
# What an image costs: trained on as a candidate's would be, and shown to the uncompressed network.
_EACH = 3 + 1


@dataclass(frozen=True, eq=False)
class Slopes:
    """What the next narrower and the next wider width of every channel would change.

    Attributes:
        nats: of each layer ``[C, 2]``, to first order, of divergence; 0 where there is no such
            width and where the channel is pruned.
        errors: of each layer ``[C, 2]`` standard errors of these, over batches of images.
    """

    nats: tuple[np.ndarray, ...]
    errors: tuple[np.ndarray, ...]


def slope_images(problem: Problem) -> int:
    """What :func:`measured_slopes` costs, in images shown."""
    size, count = _batches(problem)
    return _EACH * size * count


def _batches(problem: Problem) -> tuple[int, int]:
    train = len(problem.split.train)
    size = max(min(_BATCH, train // _FEWEST_BATCHES), 1)
    return size, min(_IMAGES, train) // size


def measured_slopes(problem: Problem, offered: Sequence[int], policy: CompressionPolicy) -> Slopes:
    """Slopes of the untrained network under ``policy``, whose BatchNorm follows the batch.

    A pure function: augmented training images are drawn by the policy's hash.

    Args:
        offered: live widths of the target, ascending.
    """
    bits = weight_bits(problem.graph, policy)
    weights = {name: _rows(problem, name, own) for name, own in bits.items()}
    changes = {
        name: [
            _rows(problem, name, torch.from_numpy(to)) - weights[name]
            for to in neighbours(own.numpy(), np.array(offered))
        ]
        for name, own in bits.items()
    }
    found = {name: list[np.ndarray]() for name in bits}
    for gradients, count in _gradients(problem, policy, bits, weights):
        for name, gradient in gradients.items():
            dots = [(gradient * change).flatten(1).sum(1) for change in changes[name]]
            found[name].append(torch.stack(dots, 1).double().numpy() / count)
    stacked = [np.stack(own) for own in found.values()]
    return Slopes(
        nats=tuple(own.mean(0) for own in stacked),
        errors=tuple(own.std(0, ddof=1) / np.sqrt(len(own)) for own in stacked),
    )


def neighbours(bits: np.ndarray, offered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[C]`` next narrower and next wider widths; where there is none, and for 0 bits, its own.

    Args:
        bits: ``[C]`` int64.
        offered: ascending.
    """
    place, live = np.searchsorted(offered, bits), bits > 0
    narrower, wider = (offered[np.clip(place + step, 0, len(offered) - 1)] for step in (-1, 1))
    return np.where(live, narrower, 0), np.where(live, wider, 0)


def _rows(problem: Problem, layer: str, bits: Tensor) -> Tensor:
    """The layer's weights at these widths, zero for 0 bits."""
    found = next(own for own in layers(problem.graph) if own.name == layer)
    weight = problem.state[found.node.parameters["weight"]]
    codes, scales = problem.codes(weight, torch.where(bits > 0, bits, 8))
    return codes * torch.where(bits > 0, scales, 0.0).view(-1, *[1] * (weight.dim() - 1))


def _gradients(
    problem: Problem,
    policy: CompressionPolicy,
    bits: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Of the divergence, summed over the images of a batch, and how many these are."""
    graph, state = problem.graph, problem.state
    size, count = _batches(problem)
    leaves = {name: rows.clone().requires_grad_() for name, rows in weights.items()}
    copied = {name: value.clone() for name, value in state.items()}  # statistics move in place
    view = with_weights(graph, copied, bits, leaves)
    edge = quantize_edges(edge_grids(graph, policy, problem.ranges))
    drawn = augmented_images(
        problem.dataset,
        problem.split.train,
        int(policy.hash[:8], 16),
        count=count,
        batch_size=size,
    )
    for batch in drawn:
        images = channels_last(batch)
        with torch.no_grad():
            wanted = execute(graph, state, images).log_softmax(1)
        logits = execute(graph, view, images, edge=edge, batchnorm=batch_statistics)
        lost = F.kl_div(logits.log_softmax(1), wanted, log_target=True, reduction="sum")
        gradients = torch.autograd.grad(lost, list(leaves.values()))
        yield dict(zip(leaves, gradients, strict=True)), len(images)
