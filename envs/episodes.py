"""How an episode of any environment ends: settings become a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.task import CompressionTask


def assessed(task: CompressionTask, settings: np.ndarray) -> tuple[float, dict[str, Any]]:
    """Reward of ``settings [L, K]``, moved onto a hard budget first, and the last step's info."""
    moved = task.projected(settings) if task.hard else settings
    policy = task.policy(moved)
    metrics = task.assess(policy)
    value = task.score(metrics)
    return value, {"policy": policy, "metrics": metrics, "actions": moved, "reward": value}
