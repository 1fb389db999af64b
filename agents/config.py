"""Searchers as YAML: an algorithm and its hyperparameters."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ajpq.config.files import read_yaml, validated


class ExplorationNoise(BaseModel):
    """Normal noise on actions in [-1, 1]: standard deviation ``initial * decay ** episode``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    initial: float = Field(ge=0)
    decay: float = Field(gt=0, le=1)


class AgentConfig(BaseModel):
    """How to search.

    Attributes:
        algorithm: a key of :data:`agents.searchers.SEARCHERS`.
        warmup_episodes: episodes of uniformly random actions (off-policy algorithms only).
        noise: exploration noise (TD3 and DDPG).
        hyperparameters: passed to the algorithm as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    algorithm: str
    warmup_episodes: int = Field(default=10, ge=0)
    noise: ExplorationNoise | None = None
    hyperparameters: dict[str, Any] = Field(default_factory=dict)


def load_agent_config(name: str) -> AgentConfig:
    """An agent from ``configs/agents`` or from a YAML file."""
    config: AgentConfig = validated(
        AgentConfig, read_yaml("agents", "agent", name), f"agent {name!r}"
    )
    return config
