"""Where controllers look: around each budget's best candidate, at what is not known yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence, Set

import numpy as np

from agents.experience import Tried, best_of
from ajpq.evaluate import Metrics
from envs.budget import Budget
from envs.episodes import settled
from envs.fitting import uses_the_budget
from envs.task import CompressionTask

# A tenth of a point of top-1, and so many units below the best candidate at most.
_LEAST_UNIT, _WORST = 1e-3, -4.0
_LENGTHS = (1.0, 0.5, 0.25, 0.125)
# Standard deviations of the steps away from a known policy.
_STEPS = np.geomspace(0.01, 0.5, 48)


def centred(task: CompressionTask, tried: Sequence[Tried], reach: float) -> CompressionTask:
    """``task`` with offsets from its best candidate, and rewards next to that one's.

    Args:
        reach: how far an action of 1 moves a setting.
    """
    best = best_of(tried, task)
    if best is None:
        return task
    return dataclasses.replace(
        task.with_shares(best.shares),
        prior=best.settings,
        reach=reach,
        value=relative(task, tried, task.score(best.metrics)),
    )


def relative(
    task: CompressionTask, tried: Sequence[Tried], best: float
) -> Callable[[Metrics, Budget], float]:
    """The reward as seen from the best candidate, in units of what the usual one falls short.

    A tight budget costs points of accuracy where a wide one costs tenths; one critic that learns
    both would see the first only. Those who fall short by far are all equally bad, and nobody who
    was given up is better than the best.
    """
    short = [best - task.score(one.metrics) for one in tried if uses_the_budget(task, one.metrics)]
    unit = max(float(np.median(short or [0.0])), _LEAST_UNIT)

    def value(metrics: Metrics, budget: Budget) -> float:
        ahead = max((task.value(metrics, budget) - best) / unit, _WORST)
        return min(ahead, 0.0) if metrics.given_up else ahead

    return value


def shorter(centres: Sequence[CompressionTask]) -> list[CompressionTask]:
    """Every budget with its whole reach, then with shorter ones.

    What the controller proposes is a direction too: the further down a search has come, the smaller
    the steps along it that still find something better.
    """
    return [
        dataclasses.replace(centre, reach=step * centre.reach)
        for step in _LENGTHS
        for centre in centres
    ]


def unknown(
    task: CompressionTask,
    goals: np.ndarray,
    known: Set[str],
    rng: np.random.Generator,
    moved_layers: int | None = None,
) -> tuple[np.ndarray, bool]:
    """``goals [L, K]`` on the budget, or if their policy is known a neighbour's that is not.

    Steps grow from one try to the next; if all fail, what was asked for is asked again.

    Args:
        moved_layers: in so many of them a neighbour differs; None: in all. With two, one takes what
            the other gives.

    Returns:
        Settings, and whether they are those of ``goals``.
    """
    asked = moved = settled(task, goals)
    for width in _STEPS:
        if task.policy(moved).hash not in known:
            return moved, moved is asked
        near, rows = goals.copy(), np.arange(len(goals))
        if moved_layers is not None:
            rows = rng.permutation(rows)[:moved_layers]
        near[rows] += rng.normal(0.0, width, (len(rows), goals.shape[1]))
        moved = settled(task, np.clip(near, 0.0, 1.0))
    return asked, True
