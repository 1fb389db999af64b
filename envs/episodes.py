"""How an episode of any environment ends: settings become a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np

from ajpq.policy import CompressionPolicy
from envs.task import CompressionTask


def settled(task: CompressionTask, settings: np.ndarray) -> np.ndarray:
    """``settings [L, K]`` moved onto a hard budget; a soft one is part of the reward."""
    return task.projected(settings) if task.hard else settings


def fits(task: CompressionTask, policy: CompressionPolicy) -> bool:
    """Does ``policy`` keep all bounds, margin included?"""
    free, budget = 1 - task.margin, task.budget
    if "size" in budget.bounds:  # cheaper to ask than the target
        most = free * budget.bounds["size"] * budget.reference["size"]
        if task.packed_bytes(policy) > most:
            return False
    return not budget.bounds or budget.met(task.price(policy), task.margin)


def assessed(task: CompressionTask, settings: np.ndarray) -> tuple[float, dict[str, Any]]:
    """Reward of settings ``[L, K]`` on the budget, and the last step's info."""
    policy = task.policy(settings)
    metrics = task.assess(policy)
    value = task.score(metrics)
    return value, {"policy": policy, "metrics": metrics, "actions": settings, "reward": value}
