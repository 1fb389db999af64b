"""The Python API: what the commands do, as functions."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agents.config import load_agent_config
from agents.front import load_front
from agents.searchers import searcher
from ajpq.base import build_problem
from ajpq.checkpoints import save_tensors
from ajpq.comparing.comparison import compare
from ajpq.compressed import with_widths
from ajpq.config.schema import CompressConfig, FinalRound, ReplayConfig, RunConfig, SearchConfig
from ajpq.evaluate import Metrics
from ajpq.exporting import export, verify
from ajpq.policy import CompressionPolicy, check_policy
from ajpq.problem import Problem
from ajpq.progress import Progress, SilentProgress
from ajpq.proposals import propose
from ajpq.quantizers import make_quantizer
from ajpq.replaying import replay, reprice, shrunk, uniform
from ajpq.reporting import write_report
from ajpq.results import build_result
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.folder import (
    check_new,
    check_resumable,
    create_run,
    load_config,
    save_pareto,
    save_weights,
)
from ajpq.runs.journal import Journal, recorded_seconds
from ajpq.runs.seal import BASE_WEIGHTS, load_sealed, save_result
from ajpq.selection.contest import contest
from ajpq.selection.finalists import Finalist, run_finals
from ajpq.selection.judge import judge
from envs.budget import Budget, reward
from envs.build import build_task
from envs.measured import described_fit, journalled, measured_first
from envs.task import CompressionTask
from hw_models.errors import AjpqError
from hw_models.registry import load_target

__all__ = [
    "carry",
    "compare",
    "compress",
    "export",
    "replay",
    "report",
    "reprice",
    "search",
    "shrunk",
    "verify",
]


def search(
    config: SearchConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search a policy, fine-tune the best candidates, measure the winner once on test images.

    Args:
        config: what to search; see :func:`ajpq.config.files.load_search_config`.
        run_dir: a new folder, or with ``resume`` the folder of a run that was interrupted.
        progress: told what happens; silent by default.

    Returns:
        The content of ``result.json``.

    Raises:
        AjpqError: bad input, or a budget that no policy can meet.
    """
    started, run_dir = time.monotonic(), Path(run_dir)
    progress = progress or SilentProgress()
    _check_folder(run_dir, config, resume)
    agent_config = load_agent_config(config.agent)
    searcher(agent_config.algorithm)  # an unknown one is told before anything is trained
    finished = (run_dir / "result.json").exists()
    if config.agent_from is not None and agent_config.algorithm == "ajpq" and not finished:
        load_front(Path(config.agent_from) / "agent")  # so is one that is not there
    with progress.phase("loading network, data and target"):
        problem = build_problem(config, on_step=progress.base_step)
    measurements: list[dict[str, Any]] = []
    if problem.target.measured:
        with progress.phase(f"measuring random policies on {problem.target.name}"):
            problem, measurements = measured_first(config, problem, run_dir)
        progress.note(described_fit(measurements))
    with progress.phase("measuring sensitivities"):
        task, log = _task(config, problem, run_dir, started)
    journalled(measurements, log.journal)
    if finished:
        result, _ = load_sealed(run_dir)
        _tidy(run_dir)
        progress.result(result, task.budget)
        return result
    with progress.phase("searching"):
        propose(
            config,
            agent_config,
            task,
            log,
            run_dir,
            progress,
            train_images=len(problem.split.train),
        )
    save_pareto(run_dir / "pareto.csv", log.entries)
    with progress.phase("fine-tuning the best candidates"):
        winner = run_finals(
            problem,
            config.final,
            log.ranked(task.budget.met),
            functools.partial(_final_order, config, task.budget),
            log.journal,
            run_dir / "checkpoints",
            progress.training_step,
            config.workers,
            progress.note,
        )
    with progress.phase("measuring the winner on the test images"):
        result = _finish(config, problem, winner, run_dir, started)
    progress.result(result, task.budget)
    wider = winner.policy != with_widths(winner.policy, winner.weights.asked)
    if wider and not task.budget.met(winner.metrics):
        methods = ", ".join(config.full_recipe.methods)
        progress.note(f"{methods} stores other widths than the search has found; ask for less")
    return result


def _final_order(
    config: SearchConfig, budget: Budget, metrics: Metrics, float_top1: float
) -> tuple[bool, bool, float]:
    """Sort key of finalists: cost bounds, then the accuracy bound, then the reward.

    ``metrics`` are on the whole validation split, and so is ``float_top1`` that they are compared
    with; the search ranked on fewer, augmented images.
    """
    budget = dataclasses.replace(budget, reference_top1=float_top1)
    soft = config.budget_mode == "soft"
    value = reward(metrics, budget, kl_weight=config.kl_weight, soft=soft)
    return budget.met(metrics), budget.keeps_accuracy(metrics), value


def _task(
    config: SearchConfig, problem: Problem, run_dir: Path, started: float
) -> tuple[CompressionTask, CandidateLog]:
    """The task, with a journal behind its judge; the run folder is created last, so that bad
    input leaves nothing behind."""

    task = build_task(
        config, problem, lambda policy, budget: judge(problem, config.candidate, policy)
    )
    _begin(config, problem, run_dir)
    log = CandidateLog(Journal(run_dir / "journal.jsonl", started))
    return dataclasses.replace(task, judge=contest(config, problem, log)), log


def compress(
    config: CompressConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Give every kernel the same width, fine-tune, measure once on test images; no search.

    Args:
        config: what to do; see :func:`ajpq.config.files.load_compress_config`.
        run_dir: a new folder, or with ``resume`` the folder of a run that was interrupted.
        progress: told what happens; silent by default.

    Returns:
        The content of ``result.json``.

    Raises:
        AjpqError: bad input, or a width that the target does not store.
    """
    run_dir = Path(run_dir)
    _check_folder(run_dir, config, resume)
    _check_widths(config)
    return _given(config, run_dir, functools.partial(uniform, config), progress)


def carry(
    config: ReplayConfig,
    run_dir: str | Path,
    policy: CompressionPolicy,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Give a network a policy that another run has found; measure once on test images.

    Args:
        config: what to do; see :func:`ajpq.replaying.carried`.
        run_dir: a new folder, or with ``resume`` the folder of a run that was interrupted.
        progress: told what happens; silent by default.

    Returns:
        The content of ``result.json``.

    Raises:
        AjpqError: bad input, or a policy that does not fit the network or the target; the message
            names the layer.
    """
    run_dir = Path(run_dir)
    _check_folder(run_dir, config, resume)
    own = {name: len(layer.weight_bits) for name, layer in policy.layers.items()}
    check_policy(policy, own, load_target(config.target))  # before anything is trained
    return _given(config, run_dir, lambda problem: policy, progress, (policy,))


def _given(
    config: CompressConfig | ReplayConfig,
    run_dir: Path,
    policy_for: Callable[[Problem], CompressionPolicy],
    progress: Progress | None,
    policies: Sequence[CompressionPolicy] = (),
) -> dict[str, Any]:
    """A run whose policy is known before it starts, ``policies`` even before the network."""
    started = time.monotonic()
    progress = progress or SilentProgress()
    with progress.phase("loading network, data and target"):
        problem = build_problem(config, progress.base_step, policies)
        policy = policy_for(problem)
        check_policy(policy, problem.channels, problem.target)
    _begin(config, problem, run_dir)
    if (run_dir / "result.json").exists():
        result, _ = load_sealed(run_dir)
        _tidy(run_dir)
    else:
        with progress.phase("fine-tuning"):
            winner = run_finals(
                problem,
                (FinalRound(keep=1, recipe=config.full_recipe),),
                [policy],
                lambda metrics, float_top1: metrics.top1_val,
                Journal(run_dir / "journal.jsonl", started),
                run_dir / "checkpoints",
                progress.training_step,
            )
        with progress.phase("measuring on the test images"):
            result = _finish(config, problem, winner, run_dir, started)
    progress.result(result, None)
    return result


def _check_widths(config: CompressConfig) -> None:
    """What can be said of the widths before anything is trained."""
    target = load_target(config.target)
    make_quantizer(config.quantizer)
    for what, bits, known in (
        ("weight", config.weight_bits, target.weight_bits),
        ("activation", config.activation_bits, target.activation_bits),
        ("weight", config.outer_bits, target.weight_bits),
    ):
        if bits is not None and bits not in known:
            raise AjpqError(f"target {target.name!r} has {what} widths {known}, got {bits}")


def _check_folder(run_dir: Path, config: RunConfig, resume: bool) -> None:
    if resume:
        check_resumable(run_dir, config)
    else:
        check_new(run_dir)


def _begin(config: RunConfig, problem: Problem, run_dir: Path) -> None:
    if not (run_dir / "config.yaml").exists():
        create_run(run_dir, config)
    if not (run_dir / BASE_WEIGHTS).exists():
        save_tensors(run_dir / BASE_WEIGHTS, dict(problem.state))


def _finish(
    config: RunConfig, problem: Problem, winner: Finalist, run_dir: Path, started: float
) -> dict[str, Any]:
    winner.policy.save(run_dir / "policy.json")
    save_weights(run_dir / "weights.safetensors", winner.weights)
    result = build_result(
        problem,
        winner,
        seed=config.seed,
        seconds=max(time.monotonic() - started, recorded_seconds(run_dir / "journal.jsonl")),
        run_dir=run_dir,
    )
    save_result(run_dir, result)
    _tidy(run_dir)
    return result


def _tidy(run_dir: Path) -> None:
    """The last step of a run: also after a kill right behind ``result.json``."""
    if not (run_dir / "report.html").exists():
        write_report(run_dir)
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)


def report(run_dir: str | Path) -> Path:
    """Write ``report.html`` from the files of a run folder, finished or not."""
    run_dir = Path(run_dir)
    load_config(run_dir)
    return write_report(run_dir)
