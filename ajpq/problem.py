"""The compression problem: one trained network, its data, one target, one way to measure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ajpq import data as ajpq_data
from ajpq.apply import Quantize, apply_policy, apply_unshrunk
from ajpq.compressed import (
    CompressedWeights,
    State,
    batchnorm_buffers,
    chosen_widths,
    fit_scales,
    learned_ranges,
    learned_steps,
    stored_widths,
    weight_bits,
    with_widths,
)
from ajpq.evaluate import Images
from ajpq.finetune.goal import Goal
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.finetune.training import Batches, OnState, Snapshot, StageInputs, run_stage
from ajpq.graph.execute import execute, frozen_batchnorm
from ajpq.graph.structure import Graph, layers
from ajpq.policy import CompressionPolicy, QuantizerSpec, uniform_policy
from ajpq.quantizers import make_quantizer
from ajpq.quantizers.given import on_grids
from ajpq.quantizers.tabulated import tabulated
from ajpq.simulation.grids import ActivationRange, edge_grids
from ajpq.simulation.prefixes import Prefixes
from ajpq.simulation.recalibration import recalibrate
from hw_models.base import Target
from hw_models.network import Network


@dataclass(frozen=True, eq=False)
class Problem:
    """What stays the same for all candidates of a search.

    Attributes:
        state: the uncompressed network's parameters and buffers.
        ranges: activation ranges of the uncompressed network.
        scores: layer name -> importance of its output channels.
        search_sample: augmented validation images that rank candidates.
        loop_target: what prices candidates in place of ``target``, where that is measured.
    """

    graph: Graph
    state: State
    dataset: ajpq_data.Dataset
    split: ajpq_data.Split
    target: Target
    quantizer: QuantizerSpec
    ranges: Mapping[str, ActivationRange]
    scores: Mapping[str, np.ndarray]
    search_sample: Images
    seed: int
    loop_target: Target | None = None

    @property
    def pricing(self) -> Target:
        """The target that candidates are priced by."""
        return self.loop_target or self.target

    @property
    def channels(self) -> dict[str, int]:
        """Layer name -> number of output channels."""
        return {layer.name: layer.channels for layer in layers(self.graph)}

    @cached_property
    def codes(self) -> Quantize:
        """The quantizer for the uncompressed weights: their codes at every width are made once."""
        weights = [self.state[layer.node.parameters["weight"]] for layer in layers(self.graph)]
        return tabulated(make_quantizer(self.quantizer), weights)

    @property
    def float_bytes(self) -> int:
        """Bytes of the float32 state dict."""
        return 4 * sum(value.numel() for value in self.state.values())

    def uniform(self, bits: int) -> CompressionPolicy:
        """The policy with the same width everywhere and 8-bit activations (32 stays real)."""
        activation = 32 if bits == 32 else 8
        policy = uniform_policy(self.channels, bits, activation)
        return policy.model_copy(update={"quantizer": self.quantizer})


def training_batches(
    problem_data: ajpq_data.Dataset,
    indices: np.ndarray,
    batch_size: int,
    seed: int,
    cutout: int = 0,
) -> Batches:
    """Epoch number -> augmented, shuffled full batches; a pure function of seed and epoch.

    Fewer images than a batch make one batch of all of them.
    """
    size = min(batch_size, len(indices))

    def epoch_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return ajpq_data.training_batches(
            problem_data, indices, size, seed=seed, epoch=epoch, cutout=cutout
        )

    return epoch_batches


def augmented_images(
    dataset: ajpq_data.Dataset, train: np.ndarray, seed: int, *, count: int, batch_size: int = 128
) -> Iterator[Tensor]:
    """``count`` batches of augmented training images, apart from those of any training."""
    batches = training_batches(dataset, train, batch_size, seed + 104729)(0)
    return (images for images, _ in itertools.islice(batches, count))


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
    """The augmented training batches that :func:`calibrated` asks for."""
    return augmented_images(
        problem.dataset,
        problem.split.train,
        problem.seed,
        count=max(settings.batchnorm_batches, settings.range_batches),
        batch_size=settings.batch_size,
    )


def calibrated(
    problem: Problem,
    policy: CompressionPolicy,
    settings: Calibration,
    state: State,
    images: Iterable[Tensor],
    prefixes: Prefixes | None = None,
) -> CompressedWeights:
    """Give the compressed mode its own BatchNorm statistics and activation ranges.

    Both come from augmented training batches. That holds after straight-through training too: its
    running statistics remember the last dozen batches only, which on ResNet-20 costs a fifth of
    the divergence from the uncompressed network. Ranges and widths that training found stand.
    """
    graph, latent = problem.graph, {name: state[name] for name in problem.state}
    asked, stored = weight_bits(graph, policy), problem.target.weight_bits
    chosen = chosen_widths(graph, state)
    widths = {name: stored_widths(own, stored) for name, own in chosen.items()}
    policy = with_widths(policy, widths)
    bits = weight_bits(graph, policy)
    grids = edge_grids(graph, policy, problem.ranges)
    if _untrained(problem, policy, latent):
        scales = _known_scales(problem, bits)
    else:
        quantizer = make_quantizer(policy.quantizer)
        scales = learned_steps(graph, state) or fit_scales(graph, latent, bits, quantizer)
    buffers, ranges = recalibrate(
        graph,
        latent,
        policy,
        learned_ranges(graph, grids, state, problem.ranges),
        _quantize(problem, policy, latent, scales),
        images,
        batchnorm_batches=settings.batchnorm_batches,
        range_batches=settings.range_batches,
        prefixes=prefixes,
    )
    ranges = learned_ranges(graph, grids, state, ranges)
    asked = {name: asked[name].float() for name in widths}
    return CompressedWeights(latent, buffers, ranges, scales, widths, asked)


def network_of(problem: Problem, policy: CompressionPolicy, weights: CompressedWeights) -> Network:
    """The network IR that the policy and the weights stand for, pruned channels removed."""
    policy = with_widths(policy, weights.widths)
    quantize = _quantize(problem, policy, weights.latent, weights.scales)
    tensors = weights.compressed_state
    return apply_policy(problem.graph, tensors, policy, weights.ranges, quantize)


def unshrunk_of(problem: Problem, policy: CompressionPolicy, weights: CompressedWeights) -> Network:
    """:func:`network_of` with pruned channels still there, as zeros: it answers alike."""
    policy = with_widths(policy, weights.widths)
    quantize = _quantize(problem, policy, weights.latent, weights.scales)
    tensors = weights.compressed_state
    return apply_unshrunk(problem.graph, tensors, policy, weights.ranges, quantize)


def _untrained(problem: Problem, policy: CompressionPolicy, latent: State) -> bool:
    """Are these the uncompressed weights themselves, under the problem's quantizer?"""
    names = (layer.node.parameters["weight"] for layer in layers(problem.graph))
    same = all(latent[name] is problem.state[name] for name in names)
    return same and policy.quantizer == problem.quantizer


def _known_scales(problem: Problem, bits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """:func:`ajpq.compressed.fit_scales` of the uncompressed weights, from the table."""
    found = {}
    for layer in layers(problem.graph):
        own, weight = bits[layer.name], problem.state[layer.node.parameters["weight"]]
        coded = (own > 0) & (own <= 8)
        scales = problem.codes(weight, torch.where(coded, own, 8))[1]
        found[layer.name] = torch.where(coded, scales, torch.ones(()))
    return found


def _quantize(
    problem: Problem, policy: CompressionPolicy, latent: State, scales: Mapping[str, Tensor]
) -> Quantize:
    """The policy's quantizer, on grids that are known already where there are ``scales``."""
    if _untrained(problem, policy, latent):
        return problem.codes
    grids = (
        (latent[layer.node.parameters["weight"]], scales[layer.name])
        for layer in layers(problem.graph)
        if layer.name in scales
    )
    return on_grids(make_quantizer(policy.quantizer), grids)


def direct_weights(problem: Problem) -> CompressedWeights:
    """The uncompressed weights as they are, for pricing a policy before any training."""
    return CompressedWeights(
        latent=problem.state,
        buffers=batchnorm_buffers(problem.graph, problem.state),
        ranges=problem.ranges,
    )


@torch.no_grad()
def float_logits(graph: Graph, state: State, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits ``[N, classes]`` of the uncompressed network."""
    return torch.cat(
        [
            execute(graph, state, part, batchnorm=frozen_batchnorm)
            for part in images.split(batch_size)
        ]
    )
