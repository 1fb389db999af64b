"""What the controllers begin with, come back to and end with: candidates without learning.

Each budget is asked for what an earlier front suggests, for what the tables say, and for solutions
of the integer program; at the end, for what lies downhill from its best candidate. What is asked
for is added to ``tried`` at once, for asking may end.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np

from agents.descent import downhill
from agents.experience import Tried, best_of, settings_of
from agents.front import Point, carried_over, starts
from agents.searchers.milp import Milp, planned
from agents.searchers.setup import Setup
from agents.sensitivity import (
    SensitivityTable,
    load_sensitivities,
    measure_sensitivities,
    save_sensitivities,
)
from agents.trials import SearchOver, Trials
from agents.warm_start import prior_pruned, table_settings
from ajpq.evaluate import Metrics
from ajpq.policy import CompressionPolicy
from envs.episodes import settled
from envs.layer_control import sharing
from envs.task import CompressionTask

Departure = tuple[tuple[tuple[str, float], ...], str]
"""Bounds of a budget, and the hash of a candidate that was its best."""

# So many steps downhill for each budget; their share of the trials seldom has room for more.
_MOST_STEPS = 3


def continue_from(
    tasks: Sequence[CompressionTask], tried: list[Tried], points: Sequence[Point]
) -> None:
    """Ask for what an earlier front suggests for each budget."""
    for task in tasks:
        for start in starts(points, task):
            _ask(start, settled(start, start.prior), tried)


def carry_over(
    tasks: Sequence[CompressionTask], tried: list[Tried], points: Sequence[Point]
) -> None:
    """Ask for what this network's own measurements suggest, and another network's front."""
    for task in tasks:
        for start in (task, *carried_over(points, task)):
            _ask(start, settled(start, start.prior), tried)


def warm_start(
    tasks: Sequence[CompressionTask], tried: list[Tried], prunings: Sequence[float]
) -> None:
    """Ask for what the tables say, under every budget."""
    for task in tasks:
        for pruning in prunings:
            _ask(task, table_settings(task, prior_pruned(task, pruning)), tried)
        if task.budget.max_drop is not None:
            _ask(task, task.prior, tried)


def polish(tasks: Sequence[CompressionTask], tried: list[Tried]) -> None:
    """Ask for every budget's best candidate with the widths that the tables give it, if one is new.

    Budgets keep equal shares of the trials: if one asks, all do, and what is known costs no images.
    """
    known, asked = {one.hash for one in tried}, []
    for task in tasks:
        best = best_of(tried, task)
        if best is not None and task.tables:
            own = task.with_shares(best.shares)
            asked.append((own, table_settings(own, best.settings)))
    if any(own.policy(settings).hash not in known for own, settings in asked):
        for own, settings in asked:
            _ask(own, settings, tried)


def descend(
    trials: Trials,
    tasks: Sequence[CompressionTask],
    tried: list[Tried],
    cautions: Sequence[float],
    left: set[Departure],
) -> None:
    """Go downhill from every budget's best candidate, one step each in turn, while that helps.

    Does nothing for tasks without slopes.

    Args:
        cautions: see :func:`agents.descent.downhill`; each asks for one candidate in every step.
        left: from where steps were taken before: the same slopes would lead to the same again.
            What is left now is added.
    """
    for task in [*tasks] * _MOST_STEPS if cautions else ():
        best, bounds = best_of(tried, task), tuple(task.budget.bounds.items())
        if best is not None and task.slopes is not None and (bounds, best.hash) not in left:
            start = best.hash
            own = task.with_shares(best.shares)
            policy = own.policy(best.settings)
            if policy.hash != best.hash:  # settings stand for a solution of the program nearly
                _ask(own, settled(own, best.settings), tried)
                best = tried[-1]
                policy = own.policy(best.settings)
            slopes = trials.slopes(task, policy)
            for caution in cautions:
                _ask(*downhill(task, best, slopes, caution), tried)
            left |= {(bounds, start), (bounds, policy.hash)}


def _ask(task: CompressionTask, settings: np.ndarray, tried: list[Tried]) -> None:
    policy = task.policy(settings)
    metrics = task.assess(policy)
    tried.append(Tried(settings, task.shares or (), metrics, policy.hash))


def known_sensitivities(setup: Setup) -> SensitivityTable | None:
    """What the origin has measured, if that is of these layers, widths and sparsities."""
    return None if setup.origin is None else load_sensitivities(setup.origin, setup.tasks[0])


def integer_program(
    setup: Setup, solutions: int, known: SensitivityTable | None = None
) -> list[Tried]:
    """``solutions`` of ``milp`` for each budget, as settings, with half of the trials at most.

    Args:
        known: the divergences to plan by; measured and paid for if None.
    """
    part, found = setup.trials.part(0.5), list[Tried]()

    def judge(task: CompressionTask, policy: CompressionPolicy) -> Metrics:
        metrics, own = setup.trials.metrics(task, policy), sharing(task)
        found.append(Tried(settings_of(own, policy), own.shares or (), metrics, policy.hash))
        return metrics

    options, first = Milp(perturbations=solutions - 1), setup.tasks[0]
    with contextlib.suppress(SearchOver):
        table = known or measure_sensitivities(first, part, options.sparsity_levels)
        save_sensitivities(setup.folder / "agent", table)
        asking = dataclasses.replace(setup, trials=dataclasses.replace(part, judge=judge))
        planned(asking, options, table)
    return found
