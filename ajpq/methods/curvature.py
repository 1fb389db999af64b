"""How strongly the loss bends along quantized weights and activations: Hutchinson's estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ajpq.finetune.goal import Moment


@dataclass(frozen=True, eq=False)
class Curvature:
    """Of one layer or edge.

    Attributes:
        mean: trace of the Hessian divided by the number of values.
        spread: standard deviation of the gradient.
    """

    mean: Tensor
    spread: Tensor


Units = Callable[[str, Tensor], Tensor | None]
"""(edge, values) -> what one unit of a value is; None: the edge is not asked about."""


def curvatures(
    moment: Moment,
    weights: Mapping[str, Tensor],
    units: Mapping[str, Tensor],
    edge_units: Units,
    probes: int,
) -> tuple[dict[str, Curvature], dict[str, Curvature]]:
    """Curvature of the loss by layer and by edge, each in its own unit.

    Every product of the Hessian with random signs serves all of them: signs of different layers
    are independent, so that what couples them is zero on average. A pure function of ``moment``.

    Args:
        weights: layer name -> quantized weights.
        units: layer name -> a unit of each weight; 0 leaves a weight out.
        probes: so many products are averaged.
    """
    moved = {layer: torch.zeros_like(w, requires_grad=True) for layer, w in weights.items()}
    edges: dict[str, Tensor] = {}

    def hook(edge: str, values: Tensor) -> Tensor:
        made = moment.hook(edge, values)
        unit = edge_units(edge, made)
        if unit is None:
            return made
        edges[edge] = torch.zeros_like(made, requires_grad=True)
        return made + edges[edge] * unit

    loss = moment.loss({name: w + moved[name] * units[name] for name, w in weights.items()}, hook)
    leaves = [*moved.values(), *edges.values()]
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    traces = _traces(leaves, gradients, probes, moment.epoch)
    found = [
        _curvature(trace, gradient.detach(), unit)
        for trace, gradient, unit in zip(
            traces, gradients, [*units.values(), *[None] * len(edges)], strict=True
        )
    ]
    count = len(moved)
    return (
        dict(zip(moved, found[:count], strict=True)),
        dict(zip(edges, found[count:], strict=True)),
    )


def _traces(
    leaves: list[Tensor], gradients: tuple[Tensor, ...], probes: int, seed: int
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    traces = [torch.zeros(()) for _ in leaves]
    for _ in range(probes):
        signs = [
            torch.randint(0, 2, leaf.shape, generator=generator).to(leaf.dtype).mul_(2).sub_(1)
            for leaf in leaves
        ]
        products = torch.autograd.grad(gradients, leaves, signs, retain_graph=True)
        traces = [
            trace + (product * sign).sum() / probes
            for trace, product, sign in zip(traces, products, signs, strict=True)
        ]
    return traces


def _curvature(trace: Tensor, gradient: Tensor, unit: Tensor | None) -> Curvature:
    counted = gradient if unit is None else gradient[unit.expand_as(gradient) != 0]
    if counted.numel() < 2:
        return Curvature(torch.zeros(()), torch.zeros(()))
    return Curvature(trace / counted.numel(), counted.std())
