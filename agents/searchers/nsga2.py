"""Optuna's NSGA-II (Deb et al. 2002, doi 10.1109/4235.996017): accuracy lost against cost.

One population for the whole range of budgets: candidates are moved onto one budget after the
other, and what is learned for one serves its neighbours.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from pydantic import Field

from agents.searchers.setup import Hyperparameters, Setup, hyperparameters
from agents.studies import asked_policy, enqueue_prior, new_storage, new_study
from ajpq.evaluate import Metrics
from envs.task import CompressionTask


class Nsga2(Hyperparameters):
    """Optuna's names are longer.

    Attributes:
        population: of a generation.
        crossover_probability: that a child has two parents.
        swapping_probability: of every number of such a child to be the second parent's.
    """

    population: int = Field(default=20, ge=2)
    crossover_probability: float = Field(default=0.9, ge=0, le=1)
    swapping_probability: float = Field(default=0.5, ge=0, le=1)


def nsga2(setup: Setup) -> None:
    """Minimise the accuracy lost and the mean cost ratio at once."""
    from optuna.samplers import NSGAIISampler

    options = hyperparameters(setup, Nsga2)
    sampler = NSGAIISampler(
        population_size=options.population,
        crossover_prob=options.crossover_probability,
        swapping_prob=options.swapping_probability,
        seed=int(np.random.default_rng((setup.seed, 0)).integers(2**32)),
    )
    storage = new_storage(setup.folder)
    study = new_study(storage, "nsga2", sampler, {"lost": "minimize", "cost": "minimize"})
    enqueue_prior(study, setup.tasks[0])
    for task in itertools.cycle(setup.tasks):
        if setup.trials.over:
            return
        trial = study.ask()
        metrics = setup.trials.metrics(task, asked_policy(trial, task))
        study.tell(trial, [lost(task, metrics), task.budget.cost(metrics)])


def lost(task: CompressionTask, metrics: Metrics) -> float:
    """The accuracy lost (0..1) and the weighted divergence, whatever the bounds are."""
    return -task.value(metrics, dataclasses.replace(task.budget, bounds={}, max_drop=None))
