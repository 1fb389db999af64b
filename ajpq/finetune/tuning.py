"""From a policy to weights: all stages of a recipe, then calibration of the compressed mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ajpq.compressed import (
    CompressedWeights,
    State,
    chosen_widths,
    fit_scales,
    learned_ranges,
    learned_steps,
    stored_widths,
    weight_bits,
    with_widths,
)
from ajpq.finetune.goal import Goal
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.finetune.training import OnState, Snapshot, StageInputs, run_stage
from ajpq.policy import CompressionPolicy
from ajpq.problem import (
    Problem,
    augmented_batches,
    known_scales,
    quantize_of,
    training_batches,
    untrained,
)
from ajpq.quantizers import make_quantizer
from ajpq.simulation.control_variates import Control, corrected, measured_control
from ajpq.simulation.grids import edge_grids
from ajpq.simulation.prefixes import Prefixes
from ajpq.simulation.recalibration import recalibrate


@dataclass(frozen=True)
class Watch:
    """Where a compression reports to; all do nothing by default.

    Attributes:
        on_step: (stage number, step from 1, total steps, loss).
        on_epoch: (stage number, snapshot).
        resume: (stage number, snapshot) to continue from.
        on_state: (steps done in all stages, how to get the state then); what it raises ends the
            compression.
    """

    on_step: Callable[[int, int, int, float], None] = lambda stage, step, total, loss: None
    on_epoch: Callable[[int, Snapshot], None] = lambda stage, snapshot: None
    resume: tuple[int, Snapshot] | None = field(default=None, compare=False)
    on_state: OnState = lambda step, state: None


def fine_tune(
    problem: Problem, policy: CompressionPolicy, recipe: Recipe, watch: Watch | None = None
) -> CompressedWeights:
    """Fine-tune the uncompressed weights towards ``policy`` and calibrate the compressed mode.

    A pure function of its arguments: it draws nothing from global random generators.
    """
    watch = watch or Watch()
    first, snapshot = watch.resume or (0, None)
    state = dict(problem.state)
    for number, stage in enumerate(recipe.stages):
        if number >= first:
            resume = snapshot if number == first else None
            before = recipe.steps(len(problem.split.train), number)
            goal = _goal(problem, policy, state if resume is None else resume.state)
            state = _run_stage(problem, number, stage, goal, state, watch, resume, before)
    images = calibration_images(problem, recipe.calibration)
    return calibrated(problem, policy, recipe.calibration, state, images)


def _goal(problem: Problem, policy: CompressionPolicy, state: State) -> Goal:
    """The policy, without the channels that earlier stages pruned."""
    bits, widths = weight_bits(problem.graph, policy), chosen_widths(problem.graph, state)
    pruned = {name: torch.where(own == 0, 0, bits[name]) for name, own in widths.items()}
    return Goal(
        bits={**bits, **pruned},
        quantizer=make_quantizer(policy.quantizer),
        grids=edge_grids(problem.graph, policy, problem.ranges),
    )


def _run_stage(
    problem: Problem,
    number: int,
    stage: Stage,
    goal: Goal,
    state: dict[str, Tensor],
    watch: Watch,
    resume: Snapshot | None,
    before: int,
) -> dict[str, Tensor]:
    train = problem.split.train
    total = stage.total_steps(len(train))
    seed = problem.seed + 7919 * (number + 1)
    inputs = StageInputs(
        graph=problem.graph,
        batches=training_batches(problem.dataset, train, stage.batch_size, seed, stage.cutout),
        steps_per_epoch=stage.steps_per_epoch(len(train)),
        goal=goal,
        teacher=problem.state,
    )
    return run_stage(
        stage,
        inputs,
        state,
        total_steps=total,
        resume=resume,
        on_epoch=lambda snapshot: watch.on_epoch(number, snapshot),
        on_step=lambda step, loss: watch.on_step(number, step, total, loss),
        on_state=lambda step, state: watch.on_state(before + step, state),
    )


def calibration_images(problem: Problem, settings: Calibration) -> Iterator[Tensor]:
    """The augmented training images that :func:`calibrated` asks for, in batches."""
    return (images for images, _ in calibration_batches(problem, settings))


def calibration_batches(problem: Problem, settings: Calibration) -> Iterator[tuple[Tensor, Tensor]]:
    """:func:`calibration_images` with their labels."""
    return augmented_batches(
        problem.dataset,
        problem.split.train,
        problem.seed,
        count=settings.batches,
        batch_size=settings.batch_size,
    )


@functools.lru_cache(maxsize=1)
def control_of(problem: Problem, settings: Calibration) -> Control:
    """What the uncompressed network says of the batches; once for all candidates of a search."""
    many = settings.model_copy(update={"batchnorm_batches": settings.control_batches})
    images = calibration_images(problem, many)
    return measured_control(problem.graph, problem.state, images, settings.batchnorm_batches)


def calibrated(
    problem: Problem,
    policy: CompressionPolicy,
    settings: Calibration,
    state: State,
    images: Iterable[Tensor],
    prefixes: Prefixes | None = None,
    go_on: Callable[[int, Tensor], bool] = lambda number, logits: True,
) -> CompressedWeights:
    """Give the compressed mode its own BatchNorm statistics and activation ranges.

    Both come from augmented training batches. That holds after straight-through training too: its
    running statistics remember the last dozen batches only, which on ResNet-20 costs a fifth of
    the divergence from the uncompressed network. Ranges and widths that training found stand.

    Args:
        prefixes, go_on: as of :func:`ajpq.simulation.recalibration.recalibrate`.
    """
    graph, latent = problem.graph, {name: state[name] for name in problem.state}
    asked, stored = weight_bits(graph, policy), problem.target.weight_bits
    chosen = chosen_widths(graph, state)
    widths = {name: stored_widths(own, stored) for name, own in chosen.items()}
    policy = with_widths(policy, widths)
    bits = weight_bits(graph, policy)
    grids = edge_grids(graph, policy, problem.ranges)
    if untrained(problem, policy, latent):
        scales = known_scales(problem, bits)
    else:
        quantizer = make_quantizer(policy.quantizer)
        scales = learned_steps(graph, state) or fit_scales(graph, latent, bits, quantizer)
    buffers, ranges = recalibrate(
        graph,
        latent,
        policy,
        learned_ranges(graph, grids, state, problem.ranges),
        quantize_of(problem, policy, latent, scales),
        images,
        batchnorm_batches=settings.batchnorm_batches,
        range_batches=settings.range_batches,
        prefixes=prefixes,
        go_on=go_on,
    )
    if settings.control_batches:
        buffers = corrected(graph, buffers, control_of(problem, settings))
    ranges = learned_ranges(graph, grids, state, ranges)
    asked = {name: asked[name].float() for name in widths}
    return CompressedWeights(latent, buffers, ranges, scales, widths, asked)
