"""How an episode of any environment ends: settings become a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.fitting import fits, fits_nearly_surely, spent, uses_the_budget
from envs.task import CompressionTask


def settled(task: CompressionTask, settings: np.ndarray) -> np.ndarray:
    """``settings [L, K]`` on a hard budget; a soft one is part of the reward.

    Where tables say what bits are worth, what is left over goes to the widths that are worth most,
    and a proposal that uses the budget so and keeps it is not moved otherwise.
    """
    if not task.hard:
        return settings
    if task.ladders and fits_nearly_surely(task, task.policy(settings)):
        found = spent(task, settings)
        policy = task.policy(found)
        if fits(task, policy) and uses_the_budget(task, task.price(policy)):
            return found
    return spent(task, task.projected(settings))


def assessed(task: CompressionTask, settings: np.ndarray) -> tuple[float, dict[str, Any]]:
    """Reward of settings ``[L, K]`` on the budget, and the last step's info."""
    policy = task.policy(settings)
    metrics = task.assess(policy)
    value = task.score(metrics)
    return value, {"policy": policy, "metrics": metrics, "actions": settings, "reward": value}
