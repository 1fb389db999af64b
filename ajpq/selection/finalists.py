"""Successive halving: the best candidates get the full recipe, validation finds the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ajpq import data as ajpq_data
from ajpq.compressed import CompressedWeights, with_widths
from ajpq.config.schema import FinalRound
from ajpq.evaluate import Images, Metrics, exact_costs, measured, top1
from ajpq.policy import CompressionPolicy, check_policy
from ajpq.problem import Problem, float_logits, network_of
from ajpq.reference import simulate
from ajpq.runs.folder import load_weights
from ajpq.runs.journal import Journal
from ajpq.selection.entrants import (
    Entrant,
    OnStep,
    entrant,
    first_steps,
    for_training,
    samples_in,
    train_all,
)
from ajpq.selection.executor import nothing
from ajpq.selection.pace import Plan, described, in_process, made_plan


@dataclass(frozen=True, eq=False)
class Finalist:
    """A candidate after a round's recipe; ``metrics`` are on the whole validation split.

    The last bits of the weights depend on the ``threads`` that trained them.
    """

    policy: CompressionPolicy
    metrics: Metrics
    weights: CompressedWeights
    keeps_full_precision: bool
    threads: int | None = None


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
    workers: int | Literal["auto"] = 1,
    note: Callable[[str], None] = nothing,
) -> Finalist:
    """Fine-tune the best of ``ranked`` round by round and return the best of the last round.

    Args:
        ranked: candidates, best first.
        better: sort key of metrics and the uncompressed network's top-1 on the same images;
            larger is better.
        folder: snapshots and weights of finished finalists; lets a killed run continue.
        workers: so many of a round are fine-tuned at the same time, or as many as pay.
        note: told what was measured of that.
    """
    sample = validation_images(problem)
    assert sample.float_logits is not None
    float_top1 = top1(sample.float_logits, sample.labels)
    order = list(ranked)
    finalists: list[Finalist] = []
    for number, stage in enumerate(rounds):
        entrants = [entrant(folder, number, stage, policy) for policy in order[: stage.keep]]
        plan = _plan(problem, number, entrants, workers, journal, note)
        train_all(problem, entrants, plan, on_step)
        finalists = [
            _measured(problem, number, each, plan.threads_of(place), sample, journal)
            for place, each in enumerate(entrants)
        ]
        finalists.sort(key=lambda found: better(found.metrics, float_top1), reverse=True)
        order = [with_widths(found.policy, found.weights.asked) for found in finalists]
    return finalists[0]


def _plan(
    problem: Problem,
    number: int,
    entrants: Sequence[Entrant],
    workers: int | Literal["auto"],
    journal: Journal,
    note: Callable[[str], None],
) -> Plan:
    """Where this round's trainings run: as an earlier life of the run has chosen, or chosen now."""
    if workers == 1 or len(entrants) < 2:
        return in_process()
    recorded = journal.next_recorded(kind="workers", round=number)
    if recorded is not None:
        return Plan(**recorded["plan"])
    plan = made_plan(
        workers, for_training(problem), first_steps, entrants, samples_in(problem, entrants[0])
    )
    journal.append({"kind": "workers", "round": number, "plan": asdict(plan)})
    note(described(plan, len(entrants)))
    return plan


def _measured(
    problem: Problem,
    number: int,
    trained: Entrant,
    threads: int,
    sample: Images,
    journal: Journal,
) -> Finalist:
    recipe, weights = trained.recipe, load_weights(trained.done)
    policy = with_widths(trained.policy, weights.widths)
    check_policy(policy, problem.channels, problem.target)  # training may have chosen widths
    recorded = journal.next_recorded(kind="finalist", round=number, hash=policy.hash)
    if recorded is None:
        network = network_of(problem, policy, weights)
        metrics = measured(
            exact_costs(network, problem.target), simulate(network, sample.images), sample
        )
        recorded = journal.append(
            {
                "kind": "finalist",
                "round": number,
                "hash": policy.hash,
                "recipe": recipe.name,
                "threads": threads,
                "metrics": metrics.model_dump(mode="json"),
            }
        )
    metrics = Metrics.model_validate(recorded["metrics"])
    return Finalist(policy, metrics, weights, recipe.keeps_full_precision, recorded.get("threads"))
