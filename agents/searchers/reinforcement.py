"""One agent of Stable-Baselines3 in the flat environment, for one budget after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from typing import Any

from agents.checkpoints import save_agent
from agents.searchers.setup import Setup
from agents.training import build_agent, train_agent
from agents.trials import SearchOver, Trials
from envs.joint_compression import JointCompressionEnv
from envs.task import CompressionTask

_NO_END = 1_000_000


def reinforcement(setup: Setup) -> None:
    """Let an agent propose; the one of the tightest budget is kept in ``agent/``."""
    # The agent learns again from the start, also in a resumed run, and so do its logs.
    shutil.rmtree(setup.folder / "tensorboard", ignore_errors=True)
    for number, task in enumerate(setup.tasks):
        trials = setup.trials.part(1 / (len(setup.tasks) - number))
        steps = len(task.layers)
        asking = asking_through(trials, task)
        agent = build_agent(
            setup.config,
            JointCompressionEnv(asking),
            steps_per_episode=steps,
            seed=setup.seed + number,
        )
        logs = setup.folder / "tensorboard" / (str(number) if len(setup.tasks) > 1 else "")
        with contextlib.suppress(SearchOver):
            train_agent(
                agent,
                episodes=_NO_END,
                steps_per_episode=steps,
                on_episode=functools.partial(_goes_on, trials),
                log_dir=logs,
            )
        if number == 0:
            save_agent(agent, setup.config, setup.folder / "agent")


def _goes_on(trials: Trials, info: dict[str, Any]) -> bool:
    return not trials.over


def asking_through(trials: Trials, task: CompressionTask) -> CompressionTask:
    """``task`` with a judge that counts what it is asked."""
    return dataclasses.replace(task, judge=lambda policy, budget: trials.metrics(task, policy))
