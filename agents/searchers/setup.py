"""What every searcher is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from agents.config import AgentConfig
from agents.trials import SearchOver, Trials
from ajpq.config.files import validated
from envs.episodes import settled
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
        origin: where an earlier searcher of the same kind left what it had learned, to go on from.
    """

    tasks: tuple[CompressionTask, ...]
    trials: Trials
    config: AgentConfig
    seed: int
    folder: Path
    origin: Path | None = None


class Hyperparameters(BaseModel):
    """What a searcher may be told in its YAML file; each has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Own = TypeVar("Own", bound=Hyperparameters)


def hyperparameters(setup: Setup, own: type[Own]) -> Own:
    """The hyperparameters of a setup, checked.

    Raises:
        AjpqError: one is unknown or has no meaning.
    """
    found: Any = validated(
        own, setup.config.hyperparameters, f"agent {setup.config.algorithm!r}: hyperparameters"
    )
    return found  # type: ignore[no-any-return]


def reward_of(task: CompressionTask, trials: Trials, settings: np.ndarray) -> float:
    """Reward of the candidate that ``settings [L, K]`` in [0, 1] stand for, within the budget.

    Raises:
        SearchOver: nothing more may be asked.
    """
    return task.score(trials.metrics(task, task.policy(settled(task, settings))))


def searched(task: CompressionTask) -> tuple[np.ndarray, np.ndarray]:
    """``[L, K]`` least and largest settings to look at: all, or those near a border found."""
    if not task.path:
        return np.zeros(task.prior.shape), np.ones(task.prior.shape)
    low, high = task.prior - task.reach, task.prior + task.reach
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


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
