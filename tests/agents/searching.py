"""Let a searcher search a toy, and write down what it asks."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from agents.config import AgentConfig, load_agent_config
from agents.searchers import SEARCHERS, Setup
from agents.trials import SearchOver, Trials
from ajpq.policy import CompressionPolicy
from envs.task import CompressionTask

IMAGES = 100  # that a candidate takes


@dataclass(frozen=True)
class Asked:
    task: CompressionTask
    policy: CompressionPolicy
    reward: float


def searched(name, tasks, folder: Path, seed=0, hyperparameters=None, origin=None, **limits):
    """Everything asked, in order, and the trials that counted it."""
    asked = []

    def judge(task, policy):
        metrics = task.assess(policy)
        asked.append(Asked(task, policy, task.score(metrics)))
        return metrics

    config = load_agent_config(name)
    if hyperparameters is not None:
        config = AgentConfig(algorithm=config.algorithm, hyperparameters=hyperparameters)
    trials = Trials(judge=judge, cost=lambda metrics: IMAGES, **limits)
    with contextlib.suppress(SearchOver):
        SEARCHERS[config.algorithm](Setup(tuple(tasks), trials, config, seed, folder, origin))
    return asked, trials


def best(asked):
    return max(each.reward for each in asked)
