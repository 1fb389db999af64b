"""Optuna studies over settings: one number per layer and knob, kept for optuna-dashboard.

A resumed search starts over with the same seed and gets its answers from the run's journal, so
Optuna's file starts anew as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agents.searchers.setup import searched
from ajpq.policy import CompressionPolicy
from envs.episodes import settled
from envs.task import CompressionTask

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.storages import JournalStorage

FILE = "optuna.journal"


def new_storage(folder: Path) -> JournalStorage:
    """An empty file in ``folder``; locks that a killed run left behind go too."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{FILE}*"):
        old.unlink()
    return JournalStorage(JournalFileBackend(str(folder / FILE)))


def new_study(
    storage: JournalStorage,
    name: str,
    sampler: BaseSampler,
    directions: Mapping[str, Literal["minimize", "maximize"]],
) -> Study:
    """A study of objectives: name -> what is wanted of it."""
    import optuna

    study = optuna.create_study(
        storage=storage, study_name=name, sampler=sampler, directions=list(directions.values())
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(directions))
    return study


def parameters(task: CompressionTask) -> Iterator[tuple[int, int, str]]:
    """Layer, knob and name of each number that decides anything."""
    for index, layer in enumerate(task.layers):
        for knob, name in enumerate(task.knobs.names):
            pruned_by_itself = task.leaders[index] == index and layer.name not in task.unprunable
            if name != "sparsity" or pruned_by_itself:
                yield index, knob, f"{layer.name}.{name}"


def enqueue_prior(study: Study, task: CompressionTask) -> None:
    """Let the first trial be what single-layer measurements suggest."""
    study.enqueue_trial({name: float(task.prior[i, k]) for i, k, name in parameters(task)})


def asked_policy(trial: Trial, task: CompressionTask) -> CompressionPolicy:
    """What a trial proposes, moved onto the budget; noted beside it."""
    low, high = searched(task)
    settings = np.array(task.prior)
    for index, knob, name in parameters(task):
        bounds = float(low[index, knob]), float(high[index, knob])
        settings[index, knob] = trial.suggest_float(name, *bounds)
    policy = task.policy(settled(task, settings))
    trial.set_user_attr("policy", policy.hash)
    return policy


def titled(task: CompressionTask) -> str:
    """A study's name: the budget."""
    bounds: dict[str, Any] = dict(task.budget.bounds)
    return " ".join(f"{cost}<={bound:.4g}" for cost, bound in bounds.items()) or "search"
