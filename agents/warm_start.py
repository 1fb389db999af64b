"""Candidates that need no learning: what the tables say, on the budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.actions import KEEP_ALL
from envs.allocation import mean_width_at
from envs.task import CompressionTask

_BISECTIONS = 24


def table_settings(task: CompressionTask, pruning: float) -> np.ndarray:
    """``[L, K]`` settings on the task's budget: every bit where the tables say it saves most.

    Args:
        task: with shares.
        pruning: how far sparsity follows the prior: 0 prunes nothing of itself, 1 as the prior
            says. What bounds on compute demand beyond, projection adds.
    """
    if not task.tables:
        return task.projected(_pruned(task, pruning))
    wide, narrow = _log_worths(task)
    fits = _bounded_storage(task)
    for _ in range(_BISECTIONS):
        middle = (wide + narrow) / 2
        if fits(_settings(task, np.exp(middle), pruning)):
            narrow = middle
        else:
            wide = middle
    return task.projected(_settings(task, np.exp(narrow), pruning))


def _settings(task: CompressionTask, worth: float, pruning: float) -> np.ndarray:
    settings, bits = _pruned(task, pruning), task.knobs.names.index("bits")
    low, high = task.knobs.weight_bits[0], task.knobs.weight_bits[-1]
    means = [mean_width_at(t.ladder, worth, len(t.errors)) for t in task.tables]
    settings[:, bits] = np.clip((np.array(means) - low) / (high - low), 0, 1)
    return settings


def _pruned(task: CompressionTask, pruning: float) -> np.ndarray:
    settings, sparsity = task.prior.copy(), task.knobs.names.index("sparsity")
    settings[:, sparsity] = (1 - pruning) * KEEP_ALL / 2 + pruning * settings[:, sparsity]
    return settings


def _log_worths(task: CompressionTask) -> tuple[float, float]:
    """From where everything is bought to where nothing is."""
    worths = np.concatenate([table.ladder.worth for table in task.tables])
    return float(np.log(worths.min())) - 1, float(np.log(worths.max())) + 1


def _bounded_storage(task: CompressionTask) -> Callable[[np.ndarray], bool]:
    """Do settings keep the bounds on bytes; where there are none, all bounds?"""
    budget, stored = task.budget, task.budget.bounds.keys() & {"size", "flash"}

    def small(settings: np.ndarray) -> bool:
        most = budget.bounds["size"] * (1 - task.margin) * budget.reference["size"]
        return task.packed_bytes(task.policy(settings)) <= most

    def fits(settings: np.ndarray) -> bool:
        excess = budget.excess(task.price(task.policy(settings)), task.margin)
        return all(value == 0 for name, value in excess.items() if name in (stored or excess))

    return small if stored == {"size"} else fits
