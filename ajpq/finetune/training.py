"""The training loop of one stage: a pure function from weights to weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from ajpq.compressed import (
    State,
    compressed_view,
    fit_scales,
    learned_steps,
    quantize_edges,
    step_name,
)
from ajpq.finetune.precision import compiled_where_it_pays, training_precision
from ajpq.finetune.psg import PSGD, Distance, channel_distance, grid_distance, zero_distance
from ajpq.finetune.recipe import Distillation, Stage
from ajpq.graph.channels import inner_layers
from ajpq.graph.execute import batch_statistics, channels_last, execute, frozen_batchnorm
from ajpq.graph.structure import Graph, layers
from ajpq.quantizers import Quantizer, learned_step, straight_through
from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS, Edge

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
"""Epoch number -> its batches, images ``[B, C, H, W]`` float32 and labels ``[B]``."""

OnState = Callable[[int, Callable[[], dict[str, Tensor]]], None]
"""Called with a number of steps done, and how to get the state then."""


class DivergedError(AjpqError):
    """The loss of a training is no longer a number."""

    def __init__(self, mode: str, step: int, loss: float) -> None:
        super().__init__(
            f"the {mode} training diverged: loss {loss} at step {step}; lower its learning rate"
        )
        self.details = (mode, step, loss)

    def __reduce__(self) -> tuple[type[DivergedError], tuple[str, int, float]]:
        """It may have been raised in a worker process."""
        return DivergedError, self.details


@dataclass(frozen=True, eq=False)
class Goal:
    """What ``psg`` and ``straight_through`` stages train towards."""

    bits: Mapping[str, Tensor]
    quantizer: Quantizer
    grids: Mapping[str, Edge]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything that the rest of a stage depends on, at an epoch boundary."""

    epoch: int
    state: State
    optimizer: dict[str, Any]


@dataclass(frozen=True, eq=False)
class StageInputs:
    """What a stage trains, on what, and towards what.

    Attributes:
        goal: may be None for ``float`` stages and the sparse forms of ``psg``.
        teacher: weights of the uncompressed network, for distillation.
    """

    graph: Graph
    batches: Batches
    steps_per_epoch: int
    goal: Goal | None = None
    teacher: State | None = None


def run_stage(
    stage: Stage,
    inputs: StageInputs,
    state: State,
    *,
    total_steps: int,
    resume: Snapshot | None = None,
    on_epoch: Callable[[Snapshot], None] = lambda snapshot: None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_state: OnState = lambda step, state: None,
) -> dict[str, Tensor]:
    """Train and return the new state; ``state`` is left as it was.

    Grids that were learned are in it too (:func:`ajpq.compressed.learned_steps`).

    Args:
        total_steps: optimizer steps of the whole stage.
        resume: continue after this epoch; the result equals that of an uninterrupted run.
        on_epoch: called with a snapshot after every full epoch.
        on_step: called after every step with its number from 1 and its loss.
        on_state: called after that with a function that copies the state; what it raises ends the
            stage.
    """
    start = resume.state if resume is not None else _with_steps(stage, inputs, state)
    leaves = _trainable(start)
    buffers = {name: value.clone() for name, value in start.items() if name not in leaves}
    optimizer = _optimizer(stage, inputs, leaves)
    first_epoch = 0
    if resume is not None:
        optimizer.load_state_dict(resume.optimizer)
        first_epoch = resume.epoch
    step = first_epoch * inputs.steps_per_epoch
    loss_of = _loss_function(stage, inputs, total_steps * stage.batch_size)
    epoch = first_epoch
    while step < total_steps:
        scales = _refit(inputs, leaves, optimizer, stage)
        for batch, labels in inputs.batches(epoch):
            images = channels_last(batch)
            _set_learning_rate(optimizer, stage, step, inputs.steps_per_epoch, total_steps)
            loss = loss_of({**leaves, **buffers}, scales, images, labels)
            if not math.isfinite(float(loss.detach())):
                raise DivergedError(stage.mode, step + 1, float(loss.detach()))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            on_step(step, float(loss.detach()))
            on_state(step, lambda: _detached({**leaves, **buffers}))
            if step == total_steps:
                break
        epoch += 1
        progress = copy.deepcopy(optimizer.state_dict())
        on_epoch(Snapshot(epoch, _detached({**leaves, **buffers}), progress))
    return _detached({**leaves, **buffers})


def _with_steps(stage: Stage, inputs: StageInputs, state: State) -> State:
    """``state`` with the steps of the grids if the stage learns them, without them if not."""
    if inputs.goal is None:
        return state
    if stage.grids == "fitted":  # what an earlier stage learned belongs to other weights
        learned = {step_name(layer.name) for layer in layers(inputs.graph)}
        return {name: value for name, value in state.items() if name not in learned}
    if learned_steps(inputs.graph, state):
        return state
    goal = inputs.goal
    if getattr(goal.quantizer, "granularity", "channel") != "channel":
        raise AjpqError("learned grids are one per channel; the quantizer wants one per tensor")
    fitted = fit_scales(inputs.graph, state, goal.bits, goal.quantizer)
    return {**state, **{step_name(layer): steps for layer, steps in fitted.items()}}


def _trainable(state: State) -> dict[str, Tensor]:
    """Copies that take gradients, convolution weights in channels_last, which is the faster.

    Sorted by name: optimizers know their parameters by position, and a state that comes from a
    file has another order.
    """
    return {
        name: channels_last(state[name].detach().clone()).requires_grad_()
        for name in sorted(state)
        if state[name].is_floating_point() and not name.endswith(("running_mean", "running_var"))
    }


def _detached(state: State) -> dict[str, Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def _optimizer(stage: Stage, inputs: StageInputs, leaves: Mapping[str, Tensor]) -> Optimizer:
    steps = learned_steps(inputs.graph, leaves).values()
    learned = {id(value) for value in steps}
    parameters: list[dict[str, Any]] = [
        {"params": [value for value in leaves.values() if id(value) not in learned]}
    ]
    if steps:  # weight decay would pull them to zero
        parameters.append({"params": list(steps), "weight_decay": 0.0})
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


def _refit(
    inputs: StageInputs, leaves: Mapping[str, Tensor], optimizer: Optimizer, stage: Stage
) -> dict[str, Tensor]:
    """Fit the grids to the present weights, once an epoch, and point PSG at them."""
    goal = inputs.goal
    if stage.grids == "learned":
        return learned_steps(inputs.graph, leaves)
    scales = {} if goal is None else fit_scales(inputs.graph, leaves, goal.bits, goal.quantizer)
    if isinstance(optimizer, PSGD):
        distances = _psg_distances(stage, inputs, scales)
        optimizer.distances = {leaves[name]: distance for name, distance in distances.items()}
    return scales


def _psg_distances(
    stage: Stage, inputs: StageInputs, scales: Mapping[str, Tensor]
) -> dict[str, Distance]:
    """State-dict name -> how far its elements are from where PSG wants them."""
    if stage.psg.form == "sparse_channels":
        return _channel_distances(inputs.graph)
    goal, found = inputs.goal, layers(inputs.graph)
    if stage.psg.form == "sparse":
        return {layer.node.parameters["weight"]: zero_distance for layer in found}
    if goal is None:
        raise ValueError("a psg stage needs a goal, unless its form is sparse")
    return {
        layer.node.parameters["weight"]: grid_distance(
            goal.bits[layer.name], scales[layer.name], goal.quantizer
        )
        for layer in found
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


def _loss_function(
    stage: Stage, inputs: StageInputs, images: int
) -> Callable[[State, Mapping[str, Tensor], Tensor, Tensor], Tensor]:
    graph, goal, teacher = inputs.graph, inputs.goal, inputs.teacher
    if stage.mode == "straight_through" and goal is None:
        raise ValueError("a straight_through stage needs a goal")
    depthwise = any(
        layer.node.attributes.get("groups", 1) == layer.channels > 1 for layer in layers(graph)
    )
    run = compiled_where_it_pays(execute, images, depthwise=depthwise)

    def logits_of(state: State, scales: Mapping[str, Tensor], images: Tensor) -> Tensor:
        if stage.mode != "straight_through" or goal is None:
            return run(graph, state, images, batchnorm=batch_statistics)
        estimator = learned_step if stage.grids == "learned" else straight_through
        view = compressed_view(graph, state, goal.bits, scales, goal.quantizer, estimator)
        edge = quantize_edges(_simulated(goal.grids, stage))
        return run(graph, view, images, edge=edge, batchnorm=batch_statistics)

    def loss_of(
        state: State, scales: Mapping[str, Tensor], images: Tensor, labels: Tensor
    ) -> Tensor:
        with training_precision():
            logits = logits_of(state, scales, images).float()
            if stage.distillation is None or teacher is None:
                return F.cross_entropy(logits, labels)
            with torch.no_grad():
                wanted = run(graph, teacher, images, batchnorm=frozen_batchnorm).float()
        return distillation_loss(logits, wanted, labels, stage.distillation)

    return loss_of


def _simulated(grids: Mapping[str, Edge], stage: Stage) -> dict[str, Edge]:
    """The edges whose rounding a stage trains with; narrow ones are never left out."""
    widest = FLOAT_BITS if stage.activations == "quantized" else 8
    return {name: grid for name, grid in grids.items() if grid.bits < widest}


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, settings: Distillation
) -> Tensor:
    """Hinton's loss, arXiv 1503.02531: soft targets at a temperature, and the labels."""
    t = settings.temperature
    soft = F.kl_div(
        F.log_softmax(logits / t, dim=1),
        F.log_softmax(teacher_logits / t, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    loss = settings.weight * t * t * soft
    if settings.weight < 1:
        loss = loss + (1 - settings.weight) * F.cross_entropy(logits, labels)
    return loss


def _set_learning_rate(
    optimizer: Optimizer, stage: Stage, step: int, steps_per_epoch: int, total: int
) -> None:
    warm = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps else 1.0
    if stage.milestones is None:
        share = 0.5 * (1 + math.cos(math.pi * step / total))
    else:
        share = 0.1 ** sum(step >= epoch * steps_per_epoch for epoch in stage.milestones)
    for group in optimizer.param_groups:
        group["lr"] = stage.learning_rate * warm * share
