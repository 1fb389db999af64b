"""Random settings, moved onto the budget: what every other searcher has to beat."""

from __future__ import annotations

import numpy as np

from agents.searchers.setup import Hyperparameters, Setup, each_in_turn, hyperparameters, reward_of
from agents.trials import Trials
from envs.task import CompressionTask


def random_search(setup: Setup) -> None:
    """Ask about settings drawn uniformly from all that the knobs allow."""
    hyperparameters(setup, Hyperparameters)  # there are none
    each_in_turn(setup, _search)


def _search(task: CompressionTask, trials: Trials, rng: np.random.Generator) -> None:
    while not trials.over:
        reward_of(task, trials, rng.uniform(size=task.prior.shape))
