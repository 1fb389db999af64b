"""The training loop of one stage: a pure function from weights to weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ajpq.compressed import State, fit_scales, width_name
from ajpq.finetune.goal import Goal, Moment
from ajpq.finetune.loss import loss_function, plain_loss
from ajpq.finetune.optimizers import Groups, optimizer_of, psg_distances, set_learning_rates
from ajpq.finetune.psg import PSGD
from ajpq.finetune.quantized import Quantized, quantized_network, started, without_own
from ajpq.finetune.recipe import Stage
from ajpq.graph.execute import channels_last
from ajpq.graph.structure import Graph, layers
from ajpq.methods import make_method
from ajpq.methods.psg import pruned
from hw_models.errors import AjpqError

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

    What the stage's method learned is in it too, see :meth:`ajpq.methods.Method.finished`.

    Args:
        total_steps: optimizer steps of the whole stage.
        resume: continue after this epoch; the result equals that of an uninterrupted run.
        on_epoch: called with a snapshot after every full epoch.
        on_step: called after every step with its number from 1 and its loss.
        on_state: called after that with a function that copies the state; what it raises ends the
            stage.
    """
    network = _network(stage, inputs)
    groups: Groups = network.groups if network else []
    start = resume.state if resume is not None else _started(network, inputs, state)
    leaves = _trainable(start, inputs.graph, network)
    buffers = {name: value.clone() for name, value in start.items() if name not in leaves}
    optimizer = optimizer_of(stage, leaves, groups)
    first_epoch = 0
    if resume is not None:
        optimizer.load_state_dict(resume.optimizer)
        first_epoch = resume.epoch
    step = first_epoch * inputs.steps_per_epoch
    images = total_steps * stage.batch_size
    loss_of = loss_function(stage, inputs.graph, network, inputs.teacher, images)
    epoch = first_epoch
    while step < total_steps:
        _aim(stage, inputs, leaves, optimizer)
        if network is not None:
            _refresh(stage, inputs, network, epoch, step / total_steps, leaves, buffers)
        for batch, labels in inputs.batches(epoch):
            set_learning_rates(optimizer, stage, groups, step, inputs.steps_per_epoch, total_steps)
            loss = loss_of({**leaves, **buffers}, channels_last(batch), labels)
            if not math.isfinite(float(loss.detach())):
                raise DivergedError(stage.mode, step + 1, float(loss.detach()))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            on_step(step, float(loss.detach()))
            on_state(step, lambda: _finished(stage, inputs, network, {**leaves, **buffers}))
            if step == total_steps:
                break
        epoch += 1
        progress = copy.deepcopy(optimizer.state_dict())
        on_epoch(Snapshot(epoch, _detached({**leaves, **buffers}), progress))
    return _finished(stage, inputs, network, {**leaves, **buffers})


def _network(stage: Stage, inputs: StageInputs) -> Quantized | None:
    """What a ``straight_through`` stage trains; the others train the plain network."""
    if stage.mode != "straight_through":
        return None
    if inputs.goal is None:
        raise ValueError("a straight_through stage needs a goal")
    return quantized_network(inputs.graph, inputs.goal, make_method(stage.trainer), stage)


def _started(network: Quantized | None, inputs: StageInputs, state: State) -> State:
    """What an earlier stage learned of grids belongs to other weights, unless the method says."""
    if network is None:
        return without_own(state, inputs.graph)
    return started(network, state, lambda: next(iter(inputs.batches(0)))[0])


def _trainable(state: State, graph: Graph, network: Quantized | None) -> dict[str, Tensor]:
    """Copies that take gradients, convolution weights in channels_last, which is the faster.

    Sorted by name: optimizers know their parameters by position, and a state that comes from a
    file has another order.
    """
    groups = network.groups if network else []
    plain = without_own(state, graph).keys() - {width_name(layer.name) for layer in layers(graph)}
    learned = {name for _, names in groups for name in names}
    return {
        name: channels_last(state[name].detach().clone()).requires_grad_()
        for name in sorted(state)
        if name in learned
        or (
            name in plain
            and state[name].is_floating_point()
            and not name.endswith(("running_mean", "running_var"))
        )
    }


def _finished(
    stage: Stage, inputs: StageInputs, network: Quantized | None, state: State
) -> dict[str, Tensor]:
    detached, goal = _detached(state), inputs.goal
    if network is not None:
        return network.method.finished(network.graph, network.goal, detached)
    if goal is not None:  # the widths that an earlier stage chose are not what this one aims at
        names = {width_name(name): bits.float() for name, bits in goal.bits.items()}
        detached |= {name: bits for name, bits in names.items() if name in detached}
    if stage.mode == "psg" and stage.psg.sparsity:
        return pruned(stage.psg, inputs.graph, detached, {} if goal is None else goal.bits)
    return detached


def _detached(state: State) -> dict[str, Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def _aim(
    stage: Stage, inputs: StageInputs, leaves: Mapping[str, Tensor], optimizer: Optimizer
) -> None:
    """Fit the grids to the present weights, once an epoch, and point PSG at them."""
    if not isinstance(optimizer, PSGD):
        return
    graph, goal = inputs.graph, inputs.goal
    scales = {} if goal is None else fit_scales(graph, leaves, goal.bits, goal.quantizer)
    distances = psg_distances(stage, graph, goal, scales)
    optimizer.distances = {leaves[name]: distance for name, distance in distances.items()}


def _refresh(
    stage: Stage,
    inputs: StageInputs,
    network: Quantized,
    epoch: int,
    progress: float,
    leaves: Mapping[str, Tensor],
    buffers: dict[str, Tensor],
) -> None:
    """Give the method its moment between two epochs."""
    state = {name: value.detach() for name, value in {**leaves, **buffers}.items()}
    loss = plain_loss(
        stage, network, inputs.teacher, state, lambda: next(iter(inputs.batches(epoch)))
    )
    hook = network.hook(state)
    graph, goal = network.graph, network.goal
    moment = Moment(epoch, progress, graph, goal, state, network.learned, hook, loss)
    for name, value in network.method.refreshed(moment).items():
        if name in leaves:
            leaves[name].data.copy_(value)
        else:
            buffers[name] = value.detach().clone()
