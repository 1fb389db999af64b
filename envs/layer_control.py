"""``ajpq/LayerControl-v0``: the upper of two controllers sets every layer's goals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.allocation import even_shares
from envs.episodes import assessed, settled
from envs.observation import observation_size, observe
from envs.task import CompressionTask

Shares = Callable[[CompressionTask, np.ndarray], Sequence[np.ndarray]]
"""A task and all layers' goals ``[L, K]`` -> for each layer ``[C]`` shares of its channels."""
Settle = Callable[[CompressionTask, np.ndarray], np.ndarray]
"""A task with shares and all layers' goals ``[L, K]`` -> the goals on the budget to assess."""


class LayerControlEnv(gym.Env[np.ndarray, np.ndarray]):
    """One step per layer: how sparse it becomes, its mean width, the width of what it reads.

    Who gets the bits within a layer is not decided here but by the channel controller
    (:mod:`envs.channel_control`), which is asked once all goals are set.

    ## Action space

    As ``ajpq/JointCompression-v0`` without the knob `spread`: ``Box(-1, 1, (K,), float32)``,
    offsets of `sparsity`, `bits` (the mean of a layer's live kernels) and `activation` from the
    task's prior.

    ## Observation space

    As ``ajpq/JointCompression-v0``, ``Box(0, 1, (23 + 2 K,), float32)``; the budget in it is that
    of the episode.

    ## Reward

    Zero until the last layer, then that of the whole network (:func:`envs.budget.reward`).

    ## Episode end

    After the last layer; ``info`` holds ``policy``, ``metrics``, ``actions`` (the goals on the
    budget), ``shares``, ``task`` and ``reward``. Episodes go through the tasks, that is through
    the budgets, in turn.

    ## Arguments

    * ``tasks``: the same problem under one budget each; default scikit-learn's digits.
    * ``shares``: the channel controller; default keeps the shares that a task has, or takes the
      tables at their word.
    * ``settle``: moves goals onto the budget; default moves all layers by the same share.

    ## Version history

    * v0: first version.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium's convention

    def __init__(
        self,
        tasks: Sequence[CompressionTask] | None = None,
        shares: Shares | None = None,
        settle: Settle = settled,
    ) -> None:
        if tasks is None:
            from envs.digits_task import digits_task

            tasks = [digits_task()]
        self.tasks = [sharing(task) for task in tasks]
        self.shares = shares or (lambda task, goals: task.shares or ())
        self.settle = settle
        self.task, self._episodes = self.tasks[0], 0
        knobs = len(self.task.knobs.names)
        self.action_space = spaces.Box(-1.0, 1.0, (knobs,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (observation_size(self.task),), np.float32)
        self._goals = np.zeros((0, knobs))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start before the first layer, under the next budget; a seed starts with the first."""
        super().reset(seed=seed)
        self._episodes = 0 if seed is not None else self._episodes
        self.task = self.tasks[self._episodes % len(self.tasks)]
        self._episodes += 1
        self._goals = self._goals[:0]
        return observe(self.task, 0, self._goals), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Set one layer's goals; after the last the channels are shared out and assessed."""
        values = self.task.settings(len(self._goals), action)
        self._goals = np.vstack([self._goals, values])
        done = len(self._goals) == len(self.task.layers)
        value, info = self._assessed() if done else (0.0, {})
        return observe(self.task, len(self._goals), self._goals), value, done, False, info

    def _assessed(self) -> tuple[float, dict[str, Any]]:
        shares = tuple(self.shares(self.task, self._goals))
        task = self.task.with_shares(shares)
        value, info = assessed(task, self.settle(task, self._goals))
        return value, {**info, "shares": shares, "task": self.task}


def sharing(task: CompressionTask) -> CompressionTask:
    """``task`` with shares: its own, or those that take the tables at their word."""
    return task if task.shares is not None else task.with_shares(even_shares(task.tables))
