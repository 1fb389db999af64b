"""What has been tried, and how it looks from any budget and any prior."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from ajpq.evaluate import Metrics
from ajpq.policy import CompressionPolicy
from envs.fitting import uses_the_budget
from envs.observation import observe
from envs.task import CompressionTask


@dataclass(frozen=True, eq=False)
class Tried:
    """One candidate as the controllers describe it.

    Attributes:
        settings: ``[L, K]`` goals of the layers, on the budget.
        shares: of each layer's channels.
        hash: of its policy.
        learned: did a controller propose it?
    """

    settings: np.ndarray
    shares: tuple[np.ndarray, ...]
    metrics: Metrics
    hash: str
    learned: bool = False


def best_of(tried: Iterable[Tried], task: CompressionTask) -> Tried | None:
    """The candidate with the largest reward within the task's budget; None if there is none.

    Those that were judged in full come first.
    """
    fitting = [one for one in tried if task.budget.met(one.metrics)]
    return max(
        fitting,
        key=lambda one: (not one.metrics.given_up, task.score(one.metrics)),
        default=None,
    )


def learned_reward(task: CompressionTask, tried: Sequence[Tried]) -> float | None:
    """What controllers' candidates added to the best reward so far; None if the first was one."""
    best, learned = None, 0.0
    for one in tried:
        if task.budget.met(one.metrics) and not one.metrics.given_up:
            reward = task.score(one.metrics)
            if best is None and one.learned:
                return None
            if best is not None and one.learned:
                learned += max(reward - best, 0.0)
            best = reward if best is None else max(best, reward)
    return learned


def settings_of(task: CompressionTask, policy: CompressionPolicy) -> np.ndarray:
    """``[L, K]`` settings that stand for a policy, as far as sparsity and mean widths go."""
    knobs, found = task.knobs, np.zeros((len(task.layers), len(task.knobs.names)))
    reach = knobs.weight_bits[-1] - knobs.weight_bits[0] or 1
    top = max(len(knobs.activation_bits) - 1, 1)
    for index, layer in enumerate(policy.layers.values()):
        live = layer.bits[layer.bits > 0]
        share = layer.sparsity / knobs.max_sparsity if knobs.max_sparsity else 0.0
        columns = {
            "sparsity": 0.25 if share == 0 else 0.5 + min(share, 1.0) / 2,
            "bits": (live.mean() - knobs.weight_bits[0]) / reach,
            "spread": 0.0,
            "activation": knobs.activation_bits.index(layer.activation_bits) / top,
        }
        found[index] = [columns[name] for name in knobs.names]
    return np.clip(found, 0.0, 1.0)


def remember(
    agent: OffPolicyAlgorithm, tasks: Sequence[CompressionTask], tried: Sequence[Tried]
) -> None:
    """Fill the replay buffer anew: every candidate, as a walk under every budget that it uses.

    Hindsight relabelling: what was found under one budget is experience for the others. The
    actions are those that would have led to the settings after projection, from the present prior;
    the reward is that of the other budget.
    """
    forget(agent)
    assert agent.replay_buffer is not None
    for task in tasks:
        for one in tried:
            # What a soft budget says of excess is true of every candidate.
            if not task.hard or uses_the_budget(task, one.metrics):
                for step in walk(task, one):
                    agent.replay_buffer.add(*step)


def forget(agent: OffPolicyAlgorithm) -> None:
    """Empty the replay buffer; what was learned from it stays."""
    assert agent.replay_buffer is not None
    agent.replay_buffer.reset()


def walk(
    task: CompressionTask, one: Tried
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict]]]:  # type: ignore[type-arg]
    """The steps of the layer controller that lead to a candidate, for a buffer of one environment.

    Yields:
        Observation, next observation, action, reward, end of episode, info.
    """
    layers = len(task.layers)
    actions = np.clip((one.settings - task.prior) / task.reach, -1.0, 1.0).astype(np.float32)
    seen = [observe(task, index, one.settings[:index]) for index in range(layers + 1)]
    for index in range(layers):
        done = index == layers - 1
        reward = task.score(one.metrics) if done else 0.0
        yield (
            seen[index][None],
            seen[index + 1][None],
            actions[index][None],
            np.array([reward], dtype=np.float32),
            np.array([done]),
            [{}],
        )
