"""Single-layer divergences and the target's prices as an integer program.

The method of HAWQ-V3 (arXiv 2011.10680) and of commercial mixed-precision toolkits, with pruning
beside widths: the least sum of divergences under all bounds of the budget. Costs do not add up (a
pruned channel saves less where weights are narrow, devices step), so prices of single changes are
taken around the last solution too, and bounds are moved by the error that is left, until the exact
price lies within the budget and near it. Solutions of slightly moved bounds are what else to try.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from agents.integer_program import cheapest
from agents.searchers.setup import (
    Hyperparameters,
    Setup,
    each_in_turn,
    hyperparameters,
)
from agents.sensitivity import SensitivityTable, measure_sensitivities, sparsity_setting
from agents.trials import Trials
from envs.episodes import settled
from envs.fitting import fits
from envs.greedy import last_that_holds
from envs.ladders import richest
from envs.task import CompressionTask

Choice = tuple[int, ...]
"""For every layer the index of its width, for every group 0 or 1 + the index of its sparsity."""

# Bounds on the mean cost among which a bounded drop is bisected.
_COST_LEVELS = 64


class Milp(Hyperparameters):
    """How the program is set up and solved.

    Attributes:
        sparsity_levels: of each group of layers.
        linearisations: so often single changes are priced, first around the richest policy.
        rounds: solutions at most on the way to the budget.
        perturbations: of the bounds, for more candidates.
        step: by how much the first of them moves a bound, as a share of it.
    """

    sparsity_levels: int = Field(default=4, ge=1)
    linearisations: int = Field(default=2, ge=1)
    rounds: int = Field(default=8, ge=1)
    perturbations: int = Field(default=240, ge=0)
    step: float = Field(default=0.0025, gt=0, lt=1)


@dataclass(frozen=True, eq=False)
class Program:
    """Rows of choices.

    Attributes:
        kl: per row ``[C]`` nats.
        richest, poorest: the widest widths and nothing pruned, and the opposite.
        settings: ``[L, K]`` that a choice stands for.
        ratios: ``[B]`` exact cost ratios of a choice.
    """

    kl: tuple[np.ndarray, ...]
    richest: Choice
    poorest: Choice
    settings: Callable[[Choice], np.ndarray]
    ratios: Callable[[Choice], np.ndarray]

    def harm(self, choice: Choice) -> float:
        """The sum of single divergences, nats."""
        return float(sum(row[index] for row, index in zip(self.kl, choice, strict=True)))


@dataclass(frozen=True, eq=False)
class Linear:
    """Costs as sums: ``base [B]`` at the centre, and per row ``[C, B]`` what each choice adds."""

    base: np.ndarray
    added: tuple[np.ndarray, ...]

    def predicted(self, choice: Choice) -> np.ndarray:
        """``[B]`` cost ratios by this model."""
        return self.base + sum(row[index] for row, index in zip(self.added, choice, strict=True))


@dataclass(frozen=True, eq=False)
class Solution:
    """A choice, and the model of costs and how much tighter bounds had to be for it, ``[B]``."""

    choice: Choice
    linear: Linear
    tighter: np.ndarray


def milp(setup: Setup) -> None:
    """Ask about the solution for each budget, then about those of slightly moved bounds."""
    options = hyperparameters(setup, Milp)
    table = measure_sensitivities(setup.tasks[0], setup.trials, options.sparsity_levels)
    planned(setup, options, table)


def planned(setup: Setup, options: Milp, table: SensitivityTable) -> None:
    """:func:`milp` with divergences that are known already."""
    each_in_turn(setup, functools.partial(_search, options, table))


def _search(
    options: Milp,
    table: SensitivityTable,
    task: CompressionTask,
    trials: Trials,
    rng: np.random.Generator,
) -> None:
    program, bounds = program_of(task, table), bounds_of(task)
    asked: set[str] = set()
    if task.budget.max_drop is not None:
        bounds = np.append(bounds, _mean_cost(options, program, task, trials, bounds, asked))
    found = solved(options, program, bounds)
    if found is None:
        settings = settled(task, program.settings(program.poorest))
        trials.metrics(task, task.policy(settings))
        return
    for choice in itertools.chain([found.choice], _perturbed(options, program, found, bounds)):
        policy = task.policy(program.settings(choice))
        if policy.hash not in asked and fits(task, policy):
            asked.add(policy.hash)
            trials.metrics(task, policy)


def bounds_of(task: CompressionTask) -> np.ndarray:
    """``[B]`` largest ratios, margin included."""
    return np.array(list(task.budget.bounds.values())) * (1 - task.margin)


def program_of(task: CompressionTask, table: SensitivityTable) -> Program:
    """The integer program of a task; with a bounded drop the last cost is the mean of all."""
    names, budget = list(task.budget.bounds), task.budget
    layers = len(task.layers)
    pruned = [np.concatenate([[0.0], row]) for row in table.kl_pruned]

    def settings(choice: Choice) -> np.ndarray:
        values = richest(task.knobs, layers)
        if "bits" in task.knobs.names:
            widths = table.widths[list(choice[:layers])]
            low, high = table.widths[0], table.widths[-1]
            values[:, task.knobs.names.index("bits")] = (widths - low) / (high - low)
        for group, level in zip(table.groups, choice[layers:], strict=True):
            if level:
                share = table.levels[level - 1]
                column = task.knobs.names.index("sparsity")
                values[group, column] = sparsity_setting(task.knobs, share)
        return values

    @functools.cache
    def ratios(choice: Choice) -> np.ndarray:
        policy = task.policy(settings(choice))
        if budget.max_drop is None and names == ["size"]:  # cheaper to ask than the target
            return np.array([task.packed_bytes(policy) / budget.reference["size"]])
        costs = task.price(policy)
        found = budget.ratios(costs)
        mean = [] if budget.max_drop is None else [budget.cost(costs)]
        return np.array([*(found[name] for name in names), *mean])

    groups, widths, levels = len(table.groups), len(table.widths), len(table.levels)
    return Program(
        kl=(*table.kl, *pruned),
        richest=(widths - 1,) * layers + (0,) * groups,
        poorest=(0,) * layers + (levels,) * groups,
        settings=settings,
        ratios=ratios,
    )


def linearised(program: Program, centre: Choice) -> Linear:
    """Costs of single changes of ``centre``."""
    base = program.ratios(centre)
    added = tuple(
        np.array(
            [
                program.ratios((*centre[:row], index, *centre[row + 1 :])) - base
                for index in range(len(kl))
            ]
        )
        for row, kl in enumerate(program.kl)
    )
    return Linear(base, added)


def solved(options: Milp, program: Program, bounds: np.ndarray) -> Solution | None:
    """The least harm found whose exact costs keep ``bounds [B]``; None if none was found."""
    best: Solution | None = None
    choice, tighter = program.richest, np.zeros(len(bounds))
    linear = linearised(program, choice)
    for number in range(options.rounds):
        if 0 < number < options.linearisations:
            linear, tighter = linearised(program, choice), np.zeros(len(bounds))
        found = cheapest(program.kl, linear.added, bounds - tighter - linear.base)
        if found is None:
            tighter = tighter / 2
            continue
        repeated, choice = tuple(found.tolist()) == choice, tuple(found.tolist())
        exact = program.ratios(choice)
        better = best is None or program.harm(choice) < program.harm(best.choice)
        if better and (exact <= bounds).all():
            best = Solution(choice, linear, tighter)
        tighter = _corrected(tighter, exact - linear.predicted(choice), exact - bounds, repeated)
    return best


def _corrected(
    tighter: np.ndarray, error: np.ndarray, excess: np.ndarray, repeated: bool
) -> np.ndarray:
    """``[B]`` by how much to tighten the bounds of the program next.

    By the error of the last solution; halfway there if it was within the budget, so that two
    solutions do not take turns, and by what it exceeds the budget if it came again.
    """
    if (excess > 0).any():
        return np.maximum(tighter, error) + repeated * np.maximum(excess, 0.0)
    return (tighter + error) / 2


def _perturbed(
    options: Milp, program: Program, found: Solution, bounds: np.ndarray
) -> Iterator[Choice]:
    """Solutions with one bound after the other moved, down and up, further and further."""
    for number in range(options.perturbations if len(bounds) else 0):
        turn, bound = divmod(number, len(bounds))
        moved = bounds.copy()
        moved[bound] *= 1 + (turn // 2 + 1) * options.step * (1 if turn % 2 else -1)
        rest = moved - found.tighter - found.linear.base
        choice = cheapest(program.kl, found.linear.added, rest)
        if choice is not None:
            yield tuple(choice.tolist())


def _mean_cost(
    options: Milp,
    program: Program,
    task: CompressionTask,
    trials: Trials,
    bounds: np.ndarray,
    asked: set[str],
) -> float:
    """The smallest bound on the mean cost whose solution keeps the accuracy, by bisection.

    What it takes to ask about on the way is added to ``asked``.
    """
    dearest, least = (program.ratios(end)[-1] for end in (program.richest, program.poorest))
    levels = np.linspace(dearest, least, _COST_LEVELS)

    def kept(index: int) -> bool:
        found = solved(options, program, np.append(bounds, levels[index]))
        if found is None:
            return False
        policy = task.policy(program.settings(found.choice))
        asked.add(policy.hash)
        metrics = trials.metrics(task, policy)
        return task.budget.keeps_accuracy(metrics)

    return float(levels[last_that_holds(_COST_LEVELS, kept, more=lambda: trials.left > 1)])
