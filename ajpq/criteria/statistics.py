"""What a criterion may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ajpq.graph.execute import execute, frozen_batchnorm
from ajpq.graph.structure import Graph, Layer, layers


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """One layer seen by a criterion.

    Attributes:
        weight: ``[O, ...]``.
        gradient: ``[O, ...]``, the loss gradient of the weight.
        gamma: ``[O]``, the factor of the following BatchNorm; ones where there is none.
    """

    weight: Tensor
    gradient: Tensor
    gamma: Tensor

    @staticmethod
    def of(
        layer: Layer, tensors: Mapping[str, Tensor], weight_gradients: Mapping[str, Tensor]
    ) -> ChannelStatistics:
        """Collect them for ``layer``."""
        name = layer.node.parameters["weight"]
        weight = tensors[name].detach()
        gamma = torch.ones(len(weight))
        if layer.batchnorm is not None and "weight" in layer.batchnorm.parameters:
            gamma = tensors[layer.batchnorm.parameters["weight"]].detach()
        return ChannelStatistics(weight, weight_gradients[name], gamma)


def gradients(
    graph: Graph,
    tensors: Mapping[str, Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """Gradients of the mean loss over ``batches`` at the layers' weights, by weight name."""
    names = [layer.node.parameters["weight"] for layer in layers(graph)]
    leaves = {name: tensors[name].detach().clone().requires_grad_() for name in names}
    total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    count = 0
    for images, labels in batches:
        logits = execute(graph, {**tensors, **leaves}, images, batchnorm=frozen_batchnorm)
        for name, gradient in zip(
            names, torch.autograd.grad(loss(logits, labels), list(leaves.values())), strict=True
        ):
            total[name] += gradient
        count += 1
    return {name: gradient / max(count, 1) for name, gradient in total.items()}
