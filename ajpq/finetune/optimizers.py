"""The optimizer of a stage, its learning rates, and where PSG pulls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ajpq.finetune.goal import Goal
from ajpq.finetune.psg import PSGD, Distance, channel_distance, grid_distance, zero_distance
from ajpq.finetune.recipe import Stage
from ajpq.graph.channels import inner_layers
from ajpq.graph.structure import Graph, layers
from ajpq.methods import Group

Groups = Sequence[tuple[Group, Sequence[str]]]
"""How parameters of a method's own are trained, and their state-dict names."""


def optimizer_of(stage: Stage, leaves: Mapping[str, Tensor], groups: Groups) -> Optimizer:
    """Trains ``leaves``: those in no group first, then group by group."""
    apart = {name for _, names in groups for name in names}
    parameters: list[dict[str, Any]] = [
        {"params": [value for name, value in leaves.items() if name not in apart]}
    ]
    for group, names in groups:
        own = [leaves[name] for name in names]
        parameters.append({"params": own, "weight_decay": group.weight_decay})
    inner: Optimizer
    if stage.optimizer == "sgd":
        inner = torch.optim.SGD(
            parameters,
            lr=stage.learning_rate,
            momentum=stage.momentum,
            nesterov=stage.nesterov and stage.momentum > 0,
            weight_decay=stage.weight_decay,
            foreach=True,
        )
    else:
        inner = torch.optim.AdamW(
            parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay, foreach=True
        )
    if stage.mode != "psg":
        return inner
    settings = stage.psg
    return PSGD(inner, {}, lambda_s=settings.lambda_s, eps=settings.eps, scaling=settings.scaling)


def set_learning_rates(
    optimizer: Optimizer, stage: Stage, groups: Groups, step: int, per_epoch: int, total: int
) -> None:
    """The rates of ``step`` from 0 in a stage of so many: one schedule for all groups.

    Args:
        groups: as given to :func:`optimizer_of`.
        per_epoch: steps in an epoch.
    """
    warm = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps else 1.0
    if stage.milestones is None:
        share = 0.5 * (1 + math.cos(math.pi * step / total))
    else:
        share = 0.1 ** sum(step >= epoch * per_epoch for epoch in stage.milestones)
    starts = [stage.learning_rate, *(g.learning_rate or stage.learning_rate for g, _ in groups)]
    for group, start in zip(optimizer.param_groups, starts, strict=True):
        group["lr"] = start * warm * share


def psg_distances(
    stage: Stage, graph: Graph, goal: Goal | None, scales: Mapping[str, Tensor]
) -> dict[str, Distance]:
    """State-dict name -> how far its elements are from where PSG wants them."""
    if stage.psg.form == "sparse_channels":
        return _channel_distances(graph)
    if stage.psg.form == "sparse":
        return {layer.node.parameters["weight"]: zero_distance for layer in layers(graph)}
    if goal is None:
        raise ValueError("a psg stage needs a goal, unless its form is sparse")
    return {
        layer.node.parameters["weight"]: grid_distance(
            goal.bits[layer.name], scales[layer.name], goal.quantizer
        )
        for layer in layers(graph)
    }


def _channel_distances(graph: Graph) -> dict[str, Distance]:
    """BatchNorm undoes any scale of a channel's weights: the channel is as strong as its factor."""
    distances: dict[str, Distance] = {}
    for layer in inner_layers(graph):
        affine = (
            []
            if layer.batchnorm is None
            else [
                layer.batchnorm.parameters[role]
                for role in ("weight", "bias")
                if role in layer.batchnorm.parameters
            ]
        )
        distances |= dict.fromkeys(affine, zero_distance)
        if not affine:
            distances[layer.node.parameters["weight"]] = channel_distance
    return distances
