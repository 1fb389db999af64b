"""The Python API: ``search``, ``compare``, ``compress``, ``replay``, ``export``, ``verify`` and
``report``."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agents.config import load_agent_config
from agents.searchers import searcher
from ajpq.base import build_problem
from ajpq.checkpoints import save_tensors
from ajpq.comparison import compare
from ajpq.config import CompressConfig, FinalRound, RunConfig, SearchConfig
from ajpq.contest import contest
from ajpq.data import test_batches
from ajpq.evaluate import Metrics, exact_costs, measured
from ajpq.executor import thread_count
from ajpq.exporters import Format, formats_for
from ajpq.exporters.card import check_card_place
from ajpq.exporters.expected import Verdict
from ajpq.exporters.source import Source, packed_file, packed_source
from ajpq.exporters.tflite_file import logit_range
from ajpq.exporters.verification import check_known, record, verify_files
from ajpq.exporters.write import write_files
from ajpq.finalists import Finalist, run_finals, validation_images
from ajpq.judge import judge
from ajpq.policy import CompressionPolicy, check_policy, load_policy, uniform_policy
from ajpq.problem import Problem, direct_weights, fine_tune, network_of
from ajpq.progress import Progress, SilentProgress
from ajpq.proposals import propose
from ajpq.quantizers import make_quantizer
from ajpq.reference import simulate
from ajpq.reporting import write_report
from ajpq.results import build_result, record_test, reference_top1_test
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.folder import (
    check_new,
    check_resumable,
    create_run,
    load_config,
    load_result,
    load_weights,
    save_json,
    save_pareto,
    save_weights,
)
from ajpq.runs.journal import Journal, recorded_seconds
from envs.budget import Budget, reward
from envs.build import build_task
from envs.measured import described_fit, journalled, measured_first
from envs.task import CompressionTask
from hw_models.errors import AjpqError
from hw_models.network import Network
from hw_models.registry import load_target

BASE_WEIGHTS = "base.safetensors"
VERIFIED = "verified.json"

__all__ = ["compare", "compress", "export", "replay", "report", "search", "verify"]


def search(
    config: SearchConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search a policy, fine-tune the best candidates, measure the winner once on test images.

    Args:
        config: what to search; see :func:`ajpq.config.load_search_config`.
        run_dir: a new folder, or with ``resume`` the folder of a run that was interrupted.
        progress: told what happens; silent by default.

    Returns:
        The content of ``result.json``.

    Raises:
        AjpqError: bad input, or a budget that no policy can meet.
    """
    started = time.monotonic()
    progress = progress or SilentProgress()
    _check_folder(run_dir, config, resume)
    agent_config = load_agent_config(config.agent)
    searcher(agent_config.algorithm)  # an unknown one is told before anything is trained
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
    if (run_dir / "result.json").exists():
        result = load_result(run_dir)
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
    run_dir: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Give every kernel the same width, fine-tune, measure once on test images; no search.

    Args:
        config: what to do; see :func:`ajpq.config.load_compress_config`.
        run_dir: a new folder, or with ``resume`` the folder of a run that was interrupted.
        progress: told what happens; silent by default.

    Returns:
        The content of ``result.json``.

    Raises:
        AjpqError: bad input, or a width that the target does not store.
    """
    started = time.monotonic()
    progress = progress or SilentProgress()
    _check_folder(run_dir, config, resume)
    _check_widths(config)
    with progress.phase("loading network, data and target"):
        problem = build_problem(config, on_step=progress.base_step)
        policy = _uniform(config, problem)
    _begin(config, problem, run_dir)
    if (run_dir / "result.json").exists():
        result = load_result(run_dir)
        _tidy(run_dir)
    else:
        with progress.phase("fine-tuning"):
            winner = run_finals(
                problem,
                (FinalRound(keep=1, recipe=config.recipe),),
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


def _uniform(config: CompressConfig, problem: Problem) -> CompressionPolicy:
    policy = uniform_policy(
        problem.channels, config.weight_bits, config.activation_bits, config.outer_bits
    )
    policy = policy.model_copy(update={"quantizer": problem.quantizer})
    check_policy(policy, problem.channels, problem.target)
    return policy


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
    save_json(run_dir / "result.json", result)
    _tidy(run_dir)
    return result


def _tidy(run_dir: Path) -> None:
    """The last step of a run: also after a kill right behind ``result.json``."""
    if not (run_dir / "report.html").exists():
        write_report(run_dir)
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)


def replay(
    run_dir: Path, *, retrain: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Rebuild the compressed network of a run and measure it again.

    Args:
        retrain: repeat the fine-tuning from the policy instead of loading the weights.

    Returns:
        ``{"recorded": M, "replayed": M}`` with the metrics that can be measured again.

    Raises:
        AjpqError: a metric differs from what the run recorded.
    """
    progress = progress or SilentProgress()
    config, result = load_config(run_dir), load_result(run_dir)
    policy = load_policy(run_dir / "policy.json")
    with progress.phase("loading network, data and target"):
        problem = build_problem(_with_own_base(config, run_dir))
    check_policy(policy, problem.channels, problem.target)
    if retrain:
        with (
            progress.phase("repeating the fine-tuning"),
            thread_count(result.get("threads") or torch.get_num_threads()),
        ):
            weights = fine_tune(problem, policy, config.full_recipe, progress.watch("replay"))
    else:
        weights = load_weights(run_dir / "weights.safetensors")
    with progress.phase("measuring"):
        network = network_of(problem, policy, weights)
        costs, sample = exact_costs(network, problem.target), validation_images(problem)
        metrics = measured(costs, simulate(network, sample.images), sample)
        replayed = {
            **metrics.model_dump(mode="json", exclude={"kl"}),
            "top1_test": reference_top1_test(problem, network),
        }
    answer = {"found": replayed["top1_test"]}
    record_test(problem, run_dir, f"{run_dir.name} (replay)", policy.hash, answer)
    noisy = {"latency_s", "energy_j"} if problem.target.measured else set()
    recorded = {k: v for k, v in result["found"].items() if k in replayed.keys() - noisy}
    for key, value in recorded.items():
        if value != replayed[key]:
            raise AjpqError(f"{run_dir} does not replay: {key} was {value}, is {replayed[key]}")
    return {"recorded": recorded, "replayed": {key: replayed[key] for key in recorded}}


def _with_own_base(config: RunConfig, run_dir: Path) -> RunConfig:
    """``config`` with the uncompressed weights that the run kept: it needs no other file."""
    base = run_dir / BASE_WEIGHTS
    return config.model_copy(update={"checkpoint": str(base)}) if base.exists() else config


def export(
    run: Path, formats: Sequence[str], out: Path, *, license: str | None = None
) -> list[Path]:
    """Write a compressed network in the given formats, and a model card (``README.md``) beside.

    Args:
        run: a finished run, a folder with a packed file ``model.ajpq``, or a packed file.
        license: of the checkpoint, for the card.

    Returns:
        The files, in the order of the formats. They are sealed where their format has room:
        :func:`ajpq.exporters.check.inspect` tells later whether they are still the same.

    Raises:
        AjpqError: an unknown format, one that needs more than a packed file, a run that has not
            finished, or a README.md of someone else in ``out``.
    """
    check_known(formats)
    check_card_place(out)
    packed = packed_file(run)
    if packed:
        source, known = packed_source(packed), formats_for(None)
    else:
        problem, policy, network = _compressed(run)
        source = _source(run, problem, policy, network)
        known = _formats(problem, network)
    return write_files(source, {name: known[name].export for name in formats}, out, license)


def _source(run: Path, problem: Problem, policy: CompressionPolicy, network: Network) -> Source:
    baseline = network_of(problem, problem.uniform(8), direct_weights(problem))
    data = problem.dataset
    config, result = load_config(run), load_result(run)
    return Source(network, policy, baseline, config, result, data.mean, data.std)


def verify(
    run_dir: Path, formats: Sequence[str], out: Path, *, progress: Progress | None = None
) -> dict[str, Verdict]:
    """Run the files that :func:`export` wrote on the test images and compare with the reference.

    The result also goes to ``verified.json`` beside the files, and to the test ledger.

    Returns:
        Format -> whether its file keeps what it promises, and the figures.

    Raises:
        AjpqError: an unknown format, a missing package, or a run that has not finished.
    """
    check_known(formats)
    progress = progress or SilentProgress()
    problem, policy, network = _compressed(run_dir)
    known = _formats(problem, network)
    files = {name: out / known[name].file for name in formats}
    with progress.phase("verifying the files on the test images"):
        expected, verdicts = verify_files(
            network,
            policy,
            files,
            lambda: test_batches(problem.dataset, 500),
            formats=known,
            on_batch=progress.part,
        )
    ran = {name: found.top1 for name, found in verdicts.items() if found.top1 is not None}
    answers = {"reference": expected.top1, **ran}
    record_test(problem, run_dir, f"{run_dir.name} (exported files)", policy.hash, answers)
    stated = load_result(run_dir)["found"]["top1_test"]
    if expected.top1 != stated:
        raise AjpqError(
            f"{run_dir} does not replay: it states top1_test {stated}, the reference gives "
            f"{expected.top1}"
        )
    save_json(out / VERIFIED, record(expected, files, verdicts))
    return verdicts


def _formats(problem: Problem, network: Network) -> dict[str, Format]:
    """The formats for this target; the range of the logits is that on validation images."""
    logits = simulate(network, problem.search_sample.images)
    return formats_for(problem.target, logit_range(logits))


def _compressed(run_dir: Path) -> tuple[Problem, CompressionPolicy, Network]:
    """The problem of a finished run, its policy and its compressed network."""
    config = load_config(run_dir)
    policy = load_policy(run_dir / "policy.json")
    problem = build_problem(_with_own_base(config, run_dir))
    check_policy(policy, problem.channels, problem.target)
    network = network_of(problem, policy, load_weights(run_dir / "weights.safetensors"))
    return problem, policy, network


def report(run_dir: Path) -> Path:
    """Write ``report.html`` from the files of a run folder, finished or not."""
    load_config(run_dir)
    return write_report(run_dir)
