"""Optuna's tree-structured Parzen estimator (arXiv 2304.11127), one study per budget."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from agents.searchers.setup import Hyperparameters, Setup, each_in_turn, hyperparameters
from agents.studies import asked_policy, enqueue_prior, new_storage, new_study, titled
from agents.trials import Trials
from envs.task import CompressionTask

if TYPE_CHECKING:
    from optuna.storages import JournalStorage


class Tpe(Hyperparameters):
    """Optuna's names are longer.

    Attributes:
        startup_trials: drawn at random.
        ei_candidates: draws among which the expected improvement decides.
        multivariate: model all numbers of a candidate together; needs more trials to pay.
    """

    startup_trials: int = Field(default=10, ge=1)
    ei_candidates: int = Field(default=24, ge=1)
    multivariate: bool = False


def tpe(setup: Setup) -> None:
    """Maximise the reward under one budget after the other."""
    options = hyperparameters(setup, Tpe)
    each_in_turn(setup, functools.partial(_search, options, new_storage(setup.folder)))


def _search(
    options: Tpe,
    storage: JournalStorage,
    task: CompressionTask,
    trials: Trials,
    rng: np.random.Generator,
) -> None:
    from optuna.samplers import TPESampler

    sampler = TPESampler(
        n_startup_trials=options.startup_trials,
        n_ei_candidates=options.ei_candidates,
        multivariate=options.multivariate,
        seed=int(rng.integers(2**32)),
    )
    study = new_study(storage, titled(task), sampler, {"reward": "maximize"})
    enqueue_prior(study, task)
    while not trials.over:
        trial = study.ask()
        study.tell(trial, task.score(trials.metrics(task, asked_policy(trial, task))))
