"""Successive halving: the best candidates get the full recipe, validation finds the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ajpq import data as ajpq_data
from ajpq.compressed import CompressedWeights
from ajpq.config import FinalRound
from ajpq.evaluate import Images, Metrics, exact_costs, measured, top1
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, Watch, fine_tune, float_logits, network_of
from ajpq.reference import simulate
from ajpq.runs.folder import load_weights, save_weights
from ajpq.runs.journal import Journal
from ajpq.runs.stages import load_snapshot, save_snapshot

OnStep = Callable[[str, int, int, float], None]
"""Called with a label, the step, the total number of steps, and the loss."""


@dataclass(frozen=True, eq=False)
class Finalist:
    """A candidate after a round's recipe; ``metrics`` are on the whole validation split."""

    policy: CompressionPolicy
    metrics: Metrics
    weights: CompressedWeights
    keeps_full_precision: bool


def validation_images(problem: Problem) -> Images:
    """The whole validation split, unaugmented."""
    chosen = problem.split.validation
    images = ajpq_data.normalize(problem.dataset.train_images[chosen], problem.dataset)
    labels = torch.from_numpy(np.array(problem.dataset.train_labels[chosen]))
    return Images(images, labels, float_logits(problem.graph, problem.state, images))


def run_finals(
    problem: Problem,
    rounds: Sequence[FinalRound],
    ranked: Sequence[CompressionPolicy],
    better: Callable[[Metrics, float], Any],
    journal: Journal,
    folder: Path,
    on_step: OnStep,
) -> Finalist:
    """Fine-tune the best of ``ranked`` round by round and return the best of the last round.

    Args:
        ranked: candidates, best first.
        better: sort key of metrics and the uncompressed network's top-1 on the same images;
            larger is better.
        folder: snapshots and weights of finished finalists; lets a killed run continue.
    """
    sample = validation_images(problem)
    assert sample.float_logits is not None
    float_top1 = top1(sample.float_logits, sample.labels)
    order = list(ranked)
    finalists: list[Finalist] = []
    for number, stage in enumerate(rounds):
        entrants = order[: stage.keep]
        finalists = [
            _finalist(problem, stage, number, policy, sample, journal, folder, on_step)
            for policy in entrants
        ]
        finalists.sort(key=lambda found: better(found.metrics, float_top1), reverse=True)
        order = [found.policy for found in finalists]
    return finalists[0]


def _finalist(
    problem: Problem,
    stage: FinalRound,
    number: int,
    policy: CompressionPolicy,
    sample: Images,
    journal: Journal,
    folder: Path,
    on_step: OnStep,
) -> Finalist:
    stem = f"round{number}-{policy.hash}"
    done, part = folder / f"{stem}.safetensors", folder / f"{stem}.part"
    recorded = journal.next_recorded(kind="finalist", round=number, hash=policy.hash)
    if done.exists():
        weights = load_weights(done)
    else:
        label = f"{stage.recipe.name} {policy.hash[:6]}"
        weights = _fine_tuned(problem, stage, policy, part, label, on_step)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(done, weights)
        part.unlink(missing_ok=True)  # only now: hours may be in it
    if recorded is not None:
        metrics = Metrics.model_validate(recorded["metrics"])
    else:
        network = network_of(problem, policy, weights)
        metrics = measured(
            exact_costs(network, problem.target), simulate(network, sample.images), sample
        )
        journal.append(
            {
                "kind": "finalist",
                "round": number,
                "hash": policy.hash,
                "recipe": stage.recipe.name,
                "metrics": metrics.model_dump(mode="json"),
            }
        )
    return Finalist(policy, metrics, weights, stage.recipe.keeps_full_precision)


def _fine_tuned(
    problem: Problem,
    stage: FinalRound,
    policy: CompressionPolicy,
    part: Path,
    label: str,
    on_step: OnStep,
) -> CompressedWeights:
    watch = Watch(
        on_step=lambda _, step, total, loss: on_step(label, step, total, loss),
        on_epoch=lambda index, snapshot: save_snapshot(part, index, snapshot),
        resume=load_snapshot(part),
    )
    return fine_tune(problem, policy, stage.recipe, watch)
