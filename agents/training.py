"""Stable-Baselines3 agents: build one, let it search."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3 import DDPG, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from agents.config import AgentConfig
from agents.noise import FadingNoise
from agents.td3 import EpisodicTD3
from hw_models.errors import AjpqError

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "td3": EpisodicTD3,
    "sac": SAC,
    "ddpg": DDPG,
    "ppo": PPO,
}

# An update costs milliseconds, a candidate seconds: learn more from each.
_GRADIENT_STEPS = 40

EpisodeEnd = Callable[[dict[str, Any]], bool]
"""Called with the last ``info`` of every episode; False ends the search."""


class _OnEpisodeEnd(BaseCallback):
    def __init__(self, episodes: int, on_episode: EpisodeEnd) -> None:
        super().__init__()
        self._left, self._on_episode = episodes, on_episode

    def _on_step(self) -> bool:
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done:
                self._left -= 1
                self.logger.record("candidate/reward", info["reward"])
                self.logger.record("candidate/top1_val", info["metrics"].top1_val)
                self.logger.record("candidate/packed_bytes", info["metrics"].packed_bytes)
                self.logger.dump(self.num_timesteps)
                if not self._on_episode(info) or self._left == 0:
                    return False
        return True


def build_agent(
    config: AgentConfig, env: gym.Env, *, steps_per_episode: int, seed: int
) -> BaseAlgorithm:
    """An untrained agent for ``env``.

    Raises:
        AjpqError: the algorithm does not take one of the hyperparameters.
    """
    algorithm = ALGORITHMS[config.algorithm]
    # Algorithms add to the arguments that they are given.
    settings = {"seed": seed, "device": "cpu", **copy.deepcopy(config.hyperparameters)}
    if issubclass(algorithm, OffPolicyAlgorithm):
        settings.setdefault("learning_starts", config.warmup_episodes * steps_per_episode)
        settings.setdefault("train_freq", (1, "episode"))
        settings.setdefault("gradient_steps", max(steps_per_episode, _GRADIENT_STEPS))
        # The reward comes at the end: with returns over the whole episode the critic learns from
        # it directly, instead of passing it back one layer per update.
        settings.setdefault("n_steps", steps_per_episode)
        if isinstance(settings["train_freq"], list):
            settings["train_freq"] = tuple(settings["train_freq"])
        if config.noise is not None:
            size = int(env.action_space.shape[0])  # type: ignore[index]
            settings["action_noise"] = FadingNoise(
                size, config.noise.initial, config.noise.decay, seed
            )
    else:
        settings.setdefault("n_steps", 4 * steps_per_episode)
        settings.setdefault("batch_size", settings["n_steps"])
    try:
        return algorithm("MlpPolicy", env, **settings)  # type: ignore[arg-type]
    except (TypeError, ValueError, AssertionError) as error:
        raise AjpqError(f"agent {config.algorithm!r}: {error}") from error


def train_agent(
    agent: BaseAlgorithm,
    *,
    episodes: int,
    steps_per_episode: int,
    on_episode: EpisodeEnd,
    log_dir: Path | None = None,
) -> None:
    """Let ``agent`` propose ``episodes`` candidates, learning as it goes."""
    agent.set_logger(
        configure(None if log_dir is None else str(log_dir), ["tensorboard"] if log_dir else [])
    )
    agent.learn(
        total_timesteps=episodes * steps_per_episode,
        callback=_OnEpisodeEnd(episodes, on_episode),
        log_interval=1,
    )
