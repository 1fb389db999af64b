"""The common ground of a comparison: one problem, its budgets, one cost, one way to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ajpq.base import build_problem
from ajpq.comparing.config import CompareConfig
from ajpq.comparing.standings import MeasuredPolicy
from ajpq.evaluate import Costs, Images, Metrics, exact_costs, measured, top1
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.training import DivergedError
from ajpq.finetune.tuning import fine_tune
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, network_of
from ajpq.progress import Progress
from ajpq.proposals import candidate_images, scales
from ajpq.reference import simulate
from ajpq.runs.journal import Journal
from ajpq.selection.finalists import validation_images
from ajpq.selection.judge import judge
from envs.budget import Budget, between
from envs.build import build_task
from envs.measured import described_fit, measured_first
from envs.task import CompressionTask
from hw_models.errors import AjpqError

# A searcher that repeats itself pays no images; it must come to an end too.
_MOST_CANDIDATES_PER_PLAIN = 10


@dataclass(frozen=True, eq=False)
class Arena:
    """What all searches of a comparison share.

    Attributes:
        task: its judge is that of no search yet.
        budgets: the tightest first.
        between: budgets that no searcher is asked for, but its front is measured at.
        sample: the whole validation split, unaugmented.
        baseline_top1: of the uncompressed network on it, in percent.
        recipe: of candidates, and of those of them that are measured.
        images: what a search may take.
        most_candidates: that a search may ask for.
        measurements: of the target, to be journalled.
    """

    problem: Problem
    task: CompressionTask
    budgets: tuple[Budget, ...]
    between: tuple[Budget, ...]
    sample: Images
    baseline_top1: float
    recipe: Recipe
    images: int
    most_candidates: int
    measurements: tuple[dict[str, Any], ...] = ()


def build_arena(config: CompareConfig, folder: Path, progress: Progress) -> Arena:
    """Build the problem, and measure once what every search starts from.

    Args:
        folder: whose journal holds measurements of the target from an earlier life.

    Raises:
        AjpqError: bad input, or searches that may not even cost what the sensitivities take.
    """
    shared = config.search_by(config.agents[0], images=1, most_candidates=1)
    with progress.phase("loading network, data and target"):
        problem = build_problem(config, on_step=progress.base_step)
    entries: list[dict[str, Any]] = []
    if problem.target.measured:
        with progress.phase(f"measuring random policies on {problem.target.name}"):
            problem, entries = measured_first(shared, problem, folder)
        progress.note(described_fit(entries))
    with progress.phase("measuring sensitivities"):
        task = build_task(
            shared, problem, lambda policy, budget: judge(problem, config.candidate, policy)
        )
    images, most_candidates = _cost(config, problem, task.spent_images)
    sample = validation_images(problem)
    assert sample.float_logits is not None
    factors = scales(config.budget_range, config.budgets)
    budgets = tuple(task.at(factor).budget for factor in factors)
    return Arena(
        problem=problem,
        task=task,
        budgets=budgets,
        between=tuple(between(budgets, config.between)),
        sample=sample,
        baseline_top1=top1(sample.float_logits, sample.labels),
        recipe=config.candidate,
        images=images,
        most_candidates=most_candidates,
        measurements=tuple(entries),
    )


def _cost(config: CompareConfig, problem: Problem, measured: int) -> tuple[int, int]:
    """Images that a search may take, and candidates that it may ask for."""
    plain = candidate_images(
        config.candidate, len(problem.split.train), len(problem.search_sample.labels)
    )
    images = config.images or config.candidates * plain
    if images <= measured:
        raise AjpqError(
            f"a search of {images:,} images ends before its first candidate, for sensitivities "
            f"and what corrects calibrations take {measured:,}: allow it more, or the cost of "
            f"{measured // plain + 1} candidates at least"
        )
    return images, _MOST_CANDIDATES_PER_PLAIN * -(-images // plain)


def measure(arena: Arena, policy: CompressionPolicy, journal: Journal) -> MeasuredPolicy | None:
    """A candidate on the whole validation split; None if its training diverges."""
    recorded = journal.next_recorded(kind="measured", hash=policy.hash)
    if recorded is None:
        found = _metrics(arena, policy)
        stored = None if found is None else found.model_dump(mode="json")
        recorded = journal.append({"kind": "measured", "hash": policy.hash, "metrics": stored})
    if recorded["metrics"] is None:
        return None
    metrics = Metrics.model_validate(recorded["metrics"])
    return MeasuredPolicy(
        hash=policy.hash,
        top1=metrics.top1_val,
        drop=arena.baseline_top1 - metrics.top1_val,
        ratio=mean_ratio(arena.budgets[0], metrics),
        within=tuple(budget.met(metrics) for budget in arena.budgets),
    )


def _metrics(arena: Arena, policy: CompressionPolicy) -> Metrics | None:
    problem = arena.problem
    try:
        weights = fine_tune(problem, policy, arena.recipe)
    except DivergedError:
        return None
    network = network_of(problem, policy, weights)
    logits = simulate(network, arena.sample.images)
    return measured(exact_costs(network, problem.target), logits, arena.sample)


def mean_ratio(budget: Budget, costs: Costs) -> float:
    """Mean of the bounded costs, each over its reference, and of no others.

    :meth:`envs.budget.Budget.cost` counts latency and size in any case.
    """
    ratios = budget.ratios(costs)
    return float(np.mean([ratios[name] for name in budget.bounds]))
