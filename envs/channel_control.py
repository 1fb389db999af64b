"""``ajpq/ChannelControl-v0``: the lower of two controllers shares a layer's bits out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.actions import channel_bits, mean_width, with_sparsity_of
from envs.allocation import Ladder, error_of, even_shares, weighted, widths_with_mean
from envs.episodes import assessed, settled
from envs.layer_control import sharing
from envs.observation import budget_bounds
from envs.task import CompressionTask

GROUPS = 4
# An action of 1 at a reach of 1 makes a kernel's error count sixteen times as much, about two bits.
_REACH = float(np.log(16.0))
# Of the reward for a layer's error next to that for the whole network.
_INTRINSIC_SCALE = 0.5

Goals = Callable[[CompressionTask], np.ndarray]
"""A task -> all layers' goals ``[L, K]`` on its budget."""


@dataclass(frozen=True, eq=False)
class Part:
    """Kernels of one layer that are decided together.

    Attributes:
        layer, group: numbers.
        rows: ``[n]`` the kernels, neighbours in importance.
        before: ``[C]`` bool: kernels of the layer that were decided before.
        live: ``[C]`` bool: which of the layer's kernels are not pruned.
        mean: width that the live ones shall have on average.
    """

    layer: int
    group: int
    rows: np.ndarray
    before: np.ndarray
    live: np.ndarray
    mean: float


class ChannelControlEnv(gym.Env[np.ndarray, np.ndarray]):
    """One step per group of kernels: how much their error matters next to the layer's others.

    The layer controller has set how many kernels live and their mean width. The least important
    kernels, by the criterion that the layer controller's goals rank by too, have 0 bits; the
    others share the mean. Left alone they buy bits where these save most error by the tables and
    the task's shares (:mod:`envs.allocation`); an action makes a group's error count more or less
    than there, at a ``reach`` of a half up to four times as much or a quarter, about a bit more or
    less. So goals are met whatever the actions are.

    ## Action space

    ``Box(-1, 1, (1,), float32)``.

    ## Observation space

    ``Box(0, 1, (17 + W,), float32)``, W widths of the target

    | index  | content                                                                       |
    |--------|-------------------------------------------------------------------------------|
    | 0, 1   | layer index / number of layers, group index / groups                            |
    | 2, 3   | mean rank of the group's importance in its layer, and its share of the sum       |
    | 4, 5   | the layer's goals: mean width (1 = widest), share of kernels that live           |
    | 6      | mean width left for the groups to come, if those before buy as they said         |
    | 7 - 11 | share of MACs, of weights, of latency; sensitivity to narrow widths, to pruning  |
    |        | (both 0 in searches by ``ajpq``, see ``sees_sensitivities``)                     |
    | 12 - 16| budget: latency, flash, SRAM, energy bounds, size bound x 4                      |
    | 17 ..  | the group's error at each width, log scale, 1 = a nat, 0 = 1e-8 nats             |

    ## Reward

    At the end of a layer the intrinsic one: minus the logarithm of its error over the least that
    tables and the task's shares know for its goal, times ``1 - mix``. At the end of the episode the
    extrinsic one of the whole network, times ``mix``. As in AutoQ (arXiv 1902.05690), which raises
    the mix from 0.1 to 0.8.

    ## Episode end

    After the last layer's last group; ``info`` as in ``ajpq/LayerControl-v0``.

    ## Arguments

    * ``tasks``: the same problem under one budget each; default scikit-learn's digits.
    * ``goals``: the layer controller; default is the prior on the budget.
    * ``mix``: weight of the extrinsic reward.

    ## Version history

    * v0: first version.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium's convention

    def __init__(
        self,
        tasks: Sequence[CompressionTask] | None = None,
        goals: Goals | None = None,
        mix: float = 0.5,
    ) -> None:
        if tasks is None:
            from envs.digits_task import digits_task

            tasks = [digits_task()]
        self.tasks = [sharing(task) for task in tasks]
        self.goals = goals or (lambda task: task.projected(task.prior))
        self.mix = mix
        self.task, self._episodes = self.tasks[0], 0
        size = 17 + len(self.task.tables[0].widths)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        self._begin()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start before the first layer, under the next budget; a seed starts with the first."""
        super().reset(seed=seed)
        self._episodes = 0 if seed is not None else self._episodes
        self.task = self.tasks[self._episodes % len(self.tasks)]
        self._episodes += 1
        self._begin()
        return self._observation(), {}

    def _begin(self) -> None:
        self._start = self.task.shares or even_shares(self.task.tables)
        self._settings = self.goals(self.task)
        self._parts = parts(self.task, self._settings)
        self._shares = [own.copy() for own in self._start]
        self._step = 0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide one group; layers are judged by their tables, the last step by the network."""
        part = self._parts[self._step]
        offset = _REACH * self.task.reach * float(np.asarray(action).reshape(-1)[0])
        self._shares[part.layer][part.rows] = self._start[part.layer][part.rows] + offset
        self._step += 1
        done = self._step == len(self._parts)
        value, info = 0.0, dict[str, Any]()
        if done or self._parts[self._step].layer != part.layer:
            value = (1 - self.mix) * self._intrinsic(part)
        if done:
            task = self.task.with_shares(self._shares)
            extrinsic, info = assessed(task, settled(task, self._settings))
            info = {**info, "shares": tuple(self._shares), "task": self.task}
            value += self.mix * extrinsic
        return self._observation(), value, done, False, info

    def _intrinsic(self, part: Part) -> float:
        table, start = self.task.tables[part.layer], self._start[part.layer]
        known = dataclasses.replace(table, errors=table.errors * np.exp(start)[:, None])
        chosen, least = (
            error_of(known, widths_with_mean(weighted(table.ladder, own), part.live, part.mean))
            for own in (self._shares[part.layer], start)
        )
        share = 1 / len(self.task.layers)
        return -_INTRINSIC_SCALE * share * float(np.log(max(chosen, 1e-12) / max(least, 1e-12)))

    def _observation(self) -> np.ndarray:
        part = self._parts[min(self._step, len(self._parts) - 1)]
        shares, start = self._shares[part.layer], self._start[part.layer]
        table = self.task.tables[part.layer]
        facts = self.task.layers[part.layer]
        vector = np.concatenate(
            [
                [part.layer / len(self.task.layers), part.group / GROUPS],
                _importance(self.task.scores[facts.name], part.rows),
                [part.mean / 8, part.live.mean()],
                [left_for_others(weighted(table.ladder, start), shares - start, part) / 8],
                [facts.macs_share, facts.weights_share, facts.latency_share, *facts.sensitivity],
                budget_bounds(self.task),
                1 + np.log10(table.errors[part.rows].sum(0) + 1e-8) / 8,
            ]
        )
        return np.clip(vector, 0.0, 1.0).astype(np.float32)


def parts(task: CompressionTask, settings: np.ndarray) -> list[Part]:
    """The steps of an episode: up to ``GROUPS`` groups of every layer's live kernels.

    Args:
        settings: ``[L, K]`` goals.
    """
    found = []
    for layer, facts in enumerate(task.layers):
        values = with_sparsity_of(settings[layer], settings[task.leaders[layer]])
        scores = task.scores[facts.name]
        live = channel_bits(scores, task.knobs, values, facts.name not in task.unprunable) > 0
        order = np.argsort(scores, kind="stable")
        kept = order[live[order]]
        mean = mean_width(task.knobs, dict(zip(task.knobs.names, values, strict=True))["bits"])
        before = np.zeros(len(scores), dtype=bool)
        for group, rows in enumerate(np.array_split(kept, min(GROUPS, len(kept)))):
            found.append(Part(layer, group, rows, before.copy(), live, mean))
            before[rows] = True
    return found


def left_for_others(even: Ladder, shares: np.ndarray, part: Part) -> float:
    """Mean width left for a part and those after it, if those before it buy as they said.

    They buy whatever is worth as much as the last thing that all would buy without shares.

    Args:
        even: the layer's ladder without these shares.
        shares: ``[C]``.
    """
    offered = part.live[even.channels]
    gains, worth, own = even.gains[offered], even.worth[offered], even.channels[offered]
    goal = (part.mean - even.lowest) * int(part.live.sum())
    taken = int(np.searchsorted(np.cumsum(gains), goal + 1e-9, side="right"))
    price = worth[taken - 1] if taken else math.inf
    bought = part.before[own] & (worth * np.exp(shares[own]) >= price)
    spent = even.lowest * int(part.before.sum()) + int(gains[bought].sum())
    others = int(part.live.sum()) - int(part.before.sum())
    return float(part.mean * part.live.sum() - spent) / others


def _importance(scores: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
    total = max(float(np.abs(scores).sum()), 1e-12)
    return float(ranks[rows].mean() + 0.5) / len(scores), float(np.abs(scores[rows]).sum()) / total
