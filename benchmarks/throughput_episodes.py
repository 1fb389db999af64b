"""What an episode of a search costs beside judging the candidate that it ends with.

The shipped experiment for CIFAR-10 on the network of ``zoo/base``: an agent walks the layers, its
proposal is projected onto the budget, the compiler of the device is asked, the candidate is judged
and journalled, and the agent learns. Evaluation is whatever shows images to a network, and the
price of the candidate meanwhile. Once with a single agent and nothing else, and once with the
default.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from unittest import mock

from agents.config import load_agent_config
from ajpq.base import build_problem
from ajpq.checkpoints import load_tensors
from ajpq.config.files import load_search_config
from ajpq.config.schema import SearchConfig
from ajpq.problem import Problem
from ajpq.progress import SilentProgress
from ajpq.proposals import propose
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.journal import Journal
from ajpq.selection.contest import contest
from ajpq.selection.judge import judge
from benchmarks.throughput_parts import row
from envs.build import build_task
from hw_models import vela

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def episodes(
    checkpoint: Path, data: str, count: int, count_of_default: int
) -> list[dict[str, Any]]:
    """Mean seconds of the first episodes, those without a trained agent and the warm start too."""
    about = load_tensors(checkpoint)[1]
    given = {
        "model": about["model"],
        "seed": int(about["seed"]),
        "checkpoint": str(checkpoint),
        "data": data,
    }
    # One agent, every layer a step: nothing but learning and asking.
    alone = load_search_config("cifar10-resnet20", {**given, "agent": "td3", "episodes": count})
    default = load_search_config("cifar10-resnet20", {**given, "episodes": count_of_default})
    problem = build_problem(alone)
    return [
        *_rows("episode", alone, problem),
        *_rows("episode of the default search", default, problem),
    ]


def _rows(name: str, config: SearchConfig, problem: Problem) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        # Answers that an earlier run left on disk would make asking look free.
        vela.forget()
        with mock.patch.dict(os.environ, AJPQ_CACHE=folder):
            total, evaluating, asking = _seconds(config, problem, Path(folder))
    seconds = {
        name: total,
        f"{name} outside evaluation": total - evaluating,
        f"{name}, asking the target while projecting": asking,
    }
    return [row(what, config.model, own / config.episodes, "s") for what, own in seconds.items()]


def _seconds(config: SearchConfig, problem: Problem, folder: Path) -> tuple[float, float, float]:
    """Of a whole search, of its evaluations, and of the prices that its projections asked for."""
    task = build_task(
        config, problem, lambda policy, budget: judge(problem, config.candidate, policy)
    )
    log = CandidateLog(Journal(folder / "journal.jsonl", time.monotonic()))
    evaluating, asking = [0.0], [0.0]
    assert task.slopes is not None
    task = dataclasses.replace(
        task,
        judge=_timed(contest(config, problem, log), evaluating),
        harm=_timed(task.harm, evaluating),
        slopes=_timed(task.slopes, evaluating),
        price=_timed(task.price, asking),
    )
    started = time.perf_counter()
    propose(config, load_agent_config(config.agent), task, log, folder, SilentProgress())
    return time.perf_counter() - started, evaluating[0], asking[0]


def _timed(function: Callable[Given, Answer], total: list[float]) -> Callable[Given, Answer]:
    """``function``, its seconds added to the only entry of ``total``."""

    def timed(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            total[0] += time.perf_counter() - started

    return timed
