"""What every searcher is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.config import AgentConfig
from agents.trials import SearchOver, Trials
from envs.task import CompressionTask


@dataclass(frozen=True, eq=False)
class Setup:
    """A search to be done.

    Attributes:
        tasks: the same problem under one budget each, the tightest first.
        trials: answers for candidates.
        config: of the searcher.
        seed: of everything random.
        folder: where the searcher leaves what it has learned, and logs.
    """

    tasks: tuple[CompressionTask, ...]
    trials: Trials
    config: AgentConfig
    seed: int
    folder: Path


def reward_of(task: CompressionTask, trials: Trials, settings: np.ndarray) -> float:
    """Reward of the candidate that ``settings [L, K]`` in [0, 1] stand for, within the budget.

    Raises:
        SearchOver: nothing more may be asked.
    """
    return task.score(trials.metrics(task, task.policy(within_budget(task, settings))))


def within_budget(task: CompressionTask, settings: np.ndarray) -> np.ndarray:
    """``settings`` moved onto a hard budget; a soft one is part of the reward."""
    return task.projected(settings) if task.hard else settings


def each_in_turn(
    setup: Setup, search: Callable[[CompressionTask, Trials, np.random.Generator], None]
) -> None:
    """Search for one budget after the other, each with an equal part of what is left."""
    for number, task in enumerate(setup.tasks):
        trials = setup.trials.part(1 / (len(setup.tasks) - number))
        try:
            search(task, trials, np.random.default_rng((setup.seed, number)))
        except SearchOver:
            continue
