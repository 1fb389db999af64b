"""Candidates that need no learning: what the tables say, on the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from envs.actions import KEEP_ALL
from envs.allocation import mean_width_at
from envs.fitting import spent
from envs.task import CompressionTask

_BISECTIONS = 24


def table_settings(task: CompressionTask, settings: np.ndarray) -> np.ndarray:
    """``settings [L, K]`` on the budget, with widths from where the tables say bits save most.

    Args:
        task: with shares.
        settings: all but the mean widths are kept, as far as bounds on compute let them; pruning
            that these do not ask for is taken back, for tables say nothing in favour of it.
    """
    if not task.tables or "bits" not in task.knobs.names:
        return _on_budget(task, settings)
    live = [layer.bits > 0 for layer in task.policy(settings).layers.values()]
    wide, narrow = _log_worths(task)
    fits = _bounded_storage(task)
    for _ in range(_BISECTIONS):
        middle = (wide + narrow) / 2
        if fits(_with_widths(task, settings, live, np.exp(middle))):
            narrow = middle
        else:
            wide = middle
    return _on_budget(task, _with_widths(task, settings, live, np.exp(narrow)))


def _on_budget(task: CompressionTask, settings: np.ndarray) -> np.ndarray:
    return spent(task, task.projected(settings)) if task.hard else settings


def prior_pruned(task: CompressionTask, pruning: float) -> np.ndarray:
    """``[L, K]`` the prior, as sparse as it says times ``pruning``: 0 prunes nothing."""
    settings, sparsity = task.prior.copy(), task.knobs.names.index("sparsity")
    settings[:, sparsity] = (1 - pruning) * KEEP_ALL / 2 + pruning * settings[:, sparsity]
    return settings


def _with_widths(
    task: CompressionTask, settings: np.ndarray, live: Sequence[np.ndarray], worth: float
) -> np.ndarray:
    """``settings`` with the mean widths of layers that buy everything worth so much."""
    low, high = task.knobs.weight_bits[0], task.knobs.weight_bits[-1]
    ladders = task.ladders or [table.ladder for table in task.tables]
    means = [mean_width_at(*pair, worth) for pair in zip(ladders, live, strict=True)]
    found = settings.copy()
    found[:, task.knobs.names.index("bits")] = np.clip((np.array(means) - low) / (high - low), 0, 1)
    return found


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
