"""Where candidates come from: a walk to the border that the accuracy sets, then the agent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from agents.checkpoints import save_agent
from agents.config import AgentConfig
from agents.training import build_agent, train_agent
from ajpq.config import SearchConfig
from ajpq.policy import CompressionPolicy
from ajpq.progress import Progress
from ajpq.runs.candidates import CandidateLog
from envs.greedy import last_that_holds
from envs.joint_compression import JointCompressionEnv
from envs.task import CompressionTask


def propose(
    config: SearchConfig,
    agent_config: AgentConfig,
    task: CompressionTask,
    log: CandidateLog,
    run_dir: Path,
    progress: Progress,
) -> None:
    """Fill ``log`` with candidates; keep the agent that learned from them."""

    def shown() -> None:
        progress.candidate(len(log.entries), config.episodes, log.best, task.budget)

    def kept(policy: CompressionPolicy) -> bool:
        metrics = task.assess(policy)
        log.keep(policy, metrics, task.score(metrics))
        shown()
        return task.budget.keeps_accuracy(metrics)

    def on_episode(info: dict[str, Any]) -> bool:
        log.keep(info["policy"], info["metrics"], info["reward"])
        shown()
        return in_time()

    def in_time() -> bool:
        return config.time_budget_s is None or log.seconds < config.time_budget_s

    if task.path:
        kept(task.policy(task.path[0]))  # bisection takes it to hold
        border = last_that_holds(
            len(task.path),
            lambda i: kept(task.policy(task.path[i])),
            more=lambda: len(log.entries) < config.episodes - 1 and in_time(),
        )
        task = task.around(task.path[border])
    steps = len(task.layers)
    agent = build_agent(
        agent_config, JointCompressionEnv(task), steps_per_episode=steps, seed=config.seed
    )
    # The agent learns again from the start, also in a resumed run, and so do its logs.
    shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)
    train_agent(
        agent,
        episodes=config.episodes - len(log.entries) if in_time() else 0,
        steps_per_episode=steps,
        on_episode=on_episode,
        log_dir=run_dir / "tensorboard",
    )
    save_agent(agent, agent_config, run_dir / "agent")
