"""Greedy descent by cost saved per harm done, then swaps.

Down from the richest policy as in :mod:`envs.greedy`, until the budget is met; from there a hill
climb among the neighbours on the ladders, the most promising by single-layer harms first.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from agents.searchers.setup import (
    Hyperparameters,
    Setup,
    each_in_turn,
    hyperparameters,
)
from agents.trials import Trials
from ajpq.policy import CompressionPolicy
from envs.episodes import settled
from envs.fitting import fits
from envs.greedy import Rungs, greedy_path
from envs.ladders import Ladder, differences, ladders, related, rungs_near, settings_at
from envs.task import CompressionTask


class Greedy(Hyperparameters):
    """There is nothing to set."""


@dataclass(frozen=True, eq=False)
class Descent:
    """What can be stepped down in a network, whatever the budget.

    Attributes:
        harm: (ladder, rung) -> nats when only this ladder is stepped down so far.
    """

    ladders: tuple[Ladder, ...]
    settings: Callable[[Rungs], np.ndarray]
    policy: Callable[[Rungs], CompressionPolicy]
    harm: Callable[[int, int], float]


def greedy(setup: Setup) -> None:
    """Ask about the border of each budget, then about what lies around it."""
    hyperparameters(setup, Greedy)
    down = descent(setup.tasks[0], setup.trials)
    # All ways down first: what they measure serves all budgets, which then share what is left.
    starts = {id(task): _start(down, task) for task in setup.tasks}
    each_in_turn(setup, lambda task, trials, rng: _climb(down, task, trials, starts[id(task)]))


def descent(task: CompressionTask, trials: Trials) -> Descent:
    """The ladders of a task; every harm is measured, and paid for, once."""
    layers = range(len(task.layers))
    channels = [len(scores) for scores in task.scores.values()]
    prunable = [name not in task.unprunable for name in task.scores]
    found = ladders(task.knobs, channels, task.leaders, task.readers or layers, prunable)

    def settings(rungs: Rungs) -> np.ndarray:
        return settings_at(task.knobs, len(channels), found, rungs)

    def policy(rungs: Rungs) -> CompressionPolicy:
        return task.policy(settings(rungs))

    top = (0,) * len(found)

    @functools.cache
    def harm(ladder: int, rung: int) -> float:
        changes = differences(policy(top), policy(_at(top, {ladder: rung})))
        return trials.harm(task, changes) if changes else 0.0

    return Descent(tuple(found), settings, policy, harm)


def _start(down: Descent, task: CompressionTask) -> Rungs:
    """The border of the budget, or of a bounded drop, which was found before the search."""
    return rungs_near(down.ladders, task.prior) if task.path else border(down, task)


def _climb(down: Descent, task: CompressionTask, trials: Trials, start: Rungs) -> None:
    """Go on from the best position whose neighbours have not all been asked about."""
    # Where devices step, no single step may lead within the budget: then all move at once.
    inside = fits(task, down.policy(start))
    first = down.policy(start) if inside else task.policy(settled(task, down.settings(start)))
    rewards = {start: task.score(trials.metrics(task, first))}
    ahead = {start: neighbours(down, start)}
    asked = {first.hash}
    while ahead:
        here = max(ahead, key=rewards.__getitem__)
        near = next(ahead[here], None)
        if near is None:
            del ahead[here]
            continue
        policy = down.policy(near)
        if policy.hash not in asked and _worth_asking(down, task, here, policy):
            asked.add(policy.hash)
            rewards[near] = task.score(trials.metrics(task, policy))
            ahead[near] = neighbours(down, near)


def border(down: Descent, task: CompressionTask) -> Rungs:
    """Where the greedy way down first meets the budget; it costs what bounds are exceeded by."""
    path = greedy_path(
        [len(ladder.settings) for ladder in down.ladders],
        related(down.ladders),
        lambda rungs: sum(task.budget.excess(task.price(down.policy(rungs)), task.margin).values()),
        down.harm,
        math.inf,
    )
    return path[-1]


def _worth_asking(
    down: Descent, task: CompressionTask, rungs: Rungs, policy: CompressionPolicy
) -> bool:
    """Is it within the budget and, where the cheaper policy is the better one, cheaper?"""
    if not fits(task, policy):
        return False
    cost = task.budget.cost
    cheap = task.budget.max_drop is not None
    return not cheap or cost(task.price(policy)) < cost(task.price(down.policy(rungs)))


def neighbours(down: Descent, rungs: Rungs) -> Iterator[Rungs]:
    """One rung up somewhere, down somewhere, or both; the least harm by the sum of harms first."""

    def added(moves: dict[int, int]) -> float:
        return sum(down.harm(i, rung) - down.harm(i, rungs[i]) for i, rung in moves.items())

    found = sorted(_moves(down, rungs), key=added)  # stable: ties stay in the order of ladders
    yield from (_at(rungs, moves) for moves in found)


def _moves(down: Descent, rungs: Rungs) -> Iterator[dict[int, int]]:
    heights = [len(ladder.settings) for ladder in down.ladders]
    ups = [{i: rung - 1} for i, rung in enumerate(rungs) if rung > 0]
    downs = [{i: rung + 1} for i, rung in enumerate(rungs) if rung + 1 < heights[i]]
    yield from ups
    yield from downs
    yield from (
        {**up, **step} for up, step in itertools.product(ups, downs) if up.keys() != step.keys()
    )


def _at(rungs: Rungs, moves: dict[int, int]) -> Rungs:
    return tuple(moves.get(ladder, rung) for ladder, rung in enumerate(rungs))
