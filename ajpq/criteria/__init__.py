"""Importance criteria by name: one score per output channel, larger is more important.

A new criterion is a file here and a line in ``CRITERIA``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from ajpq.criteria.batchnorm import batchnorm_scale
from ajpq.criteria.magnitude import l1_norm, l2_norm
from ajpq.criteria.statistics import ChannelStatistics, gradients
from ajpq.criteria.taylor import first_order_taylor
from ajpq.graph.channels import channel_groups
from ajpq.graph.structure import Graph, layers
from hw_models.errors import UnknownNameError

Criterion = Callable[[ChannelStatistics], Tensor]

CRITERIA: dict[str, Criterion] = {
    "l1": l1_norm,
    "l2": l2_norm,
    "batchnorm": batchnorm_scale,
    "taylor": first_order_taylor,
}
__all__ = ["CRITERIA", "ChannelStatistics", "Criterion", "channel_scores", "gradients"]


def channel_scores(
    name: str,
    graph: Graph,
    tensors: Mapping[str, Tensor],
    weight_gradients: Mapping[str, Tensor],
) -> dict[str, np.ndarray]:
    """Score all channels of all layers, coupled channels as one.

    Channels that can only be removed together (a residual stream) share the sum of their
    normalised scores. Every layer of the stream then ranks them alike, so that the channels
    pruned in one layer are pruned in the next and physically disappear.

    Args:
        name: a key of ``CRITERIA``.
        weight_gradients: loss gradients by weight name, from :func:`gradients`.

    Returns:
        layer name -> ``[O]`` float64 scores.

    Raises:
        UnknownNameError: no criterion has this name.
    """
    if name not in CRITERIA:
        raise UnknownNameError("criterion", name, CRITERIA)
    own = {}
    for layer in layers(graph):
        scores = CRITERIA[name](ChannelStatistics.of(layer, tensors, weight_gradients))
        values = scores.detach().double().numpy()
        own[layer.name] = values / max(float(values.mean()), 1e-30)
    return _share_in_groups(graph, own)


def _share_in_groups(graph: Graph, own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    groups = channel_groups(graph)
    labels = {layer.name: groups[layer.node.output] for layer in layers(graph)}
    total: dict[int, float] = {}
    for name, scores in own.items():
        for label, score in zip(labels[name].tolist(), scores.tolist(), strict=True):
            total[label] = total.get(label, 0.0) + score
    return {
        name: np.array(
            [
                total[label] if label >= 0 else score
                for label, score in zip(labels[name].tolist(), scores.tolist(), strict=True)
            ]
        )
        for name, scores in own.items()
    }
