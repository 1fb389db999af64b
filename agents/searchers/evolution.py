"""(mu + lambda) evolution of settings, as in Once-for-All (arXiv 1908.09791) and APQ (2006.08509).

There a population is drawn, the best become parents, one half of the children are mutated parents,
the other half crossed ones, and candidates beyond the constraint are drawn again. Here they are
moved onto the budget instead, and so live on as they were judged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from agents.searchers.setup import (
    Hyperparameters,
    Setup,
    each_in_turn,
    hyperparameters,
    searched,
)
from agents.trials import Trials
from envs.episodes import settled
from envs.task import CompressionTask

# Children that were candidates already are replaced so many times: moving onto a budget takes time.
_ATTEMPTS = 5


class Evolution(Hyperparameters):
    """How settings are bred.

    Attributes:
        population: children of a generation.
        parents: the best of all so far, from which they descend.
        mutation_probability: of every number of a mutated parent.
        mutation_step: standard deviation of what is added to it, in units of the task's reach.
        mutated_share: of the children; the others have two parents.
    """

    population: int = Field(default=12, ge=1)
    parents: int = Field(default=4, ge=2)
    mutation_probability: float = Field(default=0.1, gt=0, le=1)
    mutation_step: float = Field(default=0.5, gt=0)
    mutated_share: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _few_parents(self) -> Evolution:
        if self.parents > self.population:
            raise ValueError(f"more parents ({self.parents}) than population ({self.population})")
        return self


@dataclass(frozen=True, eq=False)
class Individual:
    """Settings ``[L, K]`` as they were judged, and their reward."""

    settings: np.ndarray
    reward: float


def evolution(setup: Setup) -> None:
    """Breed settings, the first generation around the prior."""
    each_in_turn(setup, functools.partial(_search, hyperparameters(setup, Evolution)))


def _search(
    options: Evolution, task: CompressionTask, trials: Trials, rng: np.random.Generator
) -> None:
    asked: set[str] = set()
    parents: tuple[Individual, ...] = ()

    def born(number: int) -> np.ndarray:
        if not parents:
            return rng.uniform(*searched(task)) if number else task.prior
        return _child(options, task, parents, rng)

    while not trials.over:
        children = []
        for number in range(options.population):
            settings = _new(task, asked, functools.partial(born, number))
            reward = task.score(trials.metrics(task, task.policy(settings)))
            children.append(Individual(settings, reward))
        best_first = sorted((*parents, *children), key=lambda one: -one.reward)
        parents = tuple(best_first[: options.parents])


def _new(task: CompressionTask, asked: set[str], born: Callable[[], np.ndarray]) -> np.ndarray:
    """Settings within the budget that stand for another policy than those ``asked`` about.

    Equal ones after some attempts: where a space is that small, every search repeats itself.
    """
    for _ in range(_ATTEMPTS):
        settings = settled(task, born())
        policy = task.policy(settings)
        if policy.hash not in asked:
            break
    asked.add(policy.hash)
    return settings


def _child(
    options: Evolution,
    task: CompressionTask,
    parents: Sequence[Individual],
    rng: np.random.Generator,
) -> np.ndarray:
    """``[L, K]`` settings of a mutated parent, or every layer from one of two parents."""
    first, second = (parents[index].settings for index in rng.choice(len(parents), 2, False))
    if rng.random() >= options.mutated_share:
        return np.where(rng.random((len(first), 1)) < 0.5, first, second)
    mutated = rng.random(first.shape) < options.mutation_probability
    mutated.flat[rng.integers(mutated.size)] = True  # one at least
    step = options.mutation_step * task.reach * rng.standard_normal(first.shape)
    return np.clip(first + mutated * step, *searched(task))
