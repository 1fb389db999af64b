"""A finished run again: the same measured again, priced elsewhere, or as an ordinary module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ajpq.base import build_problem
from ajpq.compressed import (
    CompressedWeights,
    compressed_view,
    fit_scales,
    weight_bits,
    with_widths,
)
from ajpq.config.files import load_recipe, validated
from ajpq.config.schema import CompressConfig, ProblemConfig, ReplayConfig
from ajpq.evaluate import Costs, exact_costs, measured
from ajpq.finetune.tuning import fine_tune
from ajpq.policy import CompressionPolicy, uniform_policy
from ajpq.problem import Problem, network_of
from ajpq.progress import Progress, SilentProgress
from ajpq.quantizers import make_quantizer
from ajpq.reference import simulate
from ajpq.results import record_test, reference_top1_test
from ajpq.runs.finished import FinishedRun, check_weights, check_widths, load_finished
from ajpq.selection.executor import thread_count
from ajpq.selection.finalists import validation_images
from ajpq.shrink import shrink
from ajpq.surroundings import changed_surroundings
from hw_models.errors import AjpqError
from hw_models.network import Network
from hw_models.plain import shown

RECORDED = frozenset(
    ["top1_val", "top1_test"]
    + [name for name, field in Costs.model_fields.items() if field.is_required()]
)
"""The metrics that a run of every version has recorded; a replay without them proves nothing."""
MOST_LOST = 1.0
"""Points of validation top-1 by which a training that is repeated elsewhere may be worse."""
_OF_THE_POLICY = ("macs", "bops")  # a training changes them only by choosing other widths


def replay(
    run_dir: str | Path,
    *,
    retrain: bool = False,
    data: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Rebuild the compressed network of a run and measure it again.

    What is compared does not depend on machine or threads: the weights, activation ranges and grids
    are those of the run folder, so that nothing is calibrated; accuracies are the exact
    reference's, whose sums are of integers (layers with 32-bit weights or inputs, and sigmoids, are
    computed in float64 and rounded once); costs are counted, but for the latency and energy of a
    target that measures, which are left out. Another version of a target's compiler may price
    differently; the message then says which versions have changed.

    A training's last bits do depend on machine, threads and versions. ``retrain`` uses the run's
    number of threads; where the rest is the same too, weights and metrics must be equal. Elsewhere
    the difference is told: MACs and bit operations must be equal even so, unless the training chose
    other widths, and the top-1 on validation images at most ``MOST_LOST`` points lower.

    Args:
        retrain: repeat the fine-tuning from the policy instead of loading the weights.
        data: where the run's images lie on this machine, if not where they did.

    Returns:
        ``{"recorded": M, "replayed": M, "changed": [...]}`` with the metrics that can be measured
        again, and what is different here from where the run was made, if retrained weights differ.

    Raises:
        AjpqError: the run is damaged, lacks a metric that every run records, or a metric differs
            from what it recorded.
    """
    progress, run_dir = progress or SilentProgress(), Path(run_dir)
    run = load_finished(run_dir, data=data, note=progress.note)
    _check_recorded(run)
    problem = problem_of(run, progress)
    weights = _retrained(run, problem, progress) if retrain else run.weights
    with progress.phase("measuring"):
        network = network_of(problem, run.policy, weights)
        replayed = _metrics(problem, network)
    answer = {"found": replayed["top1_test"]}
    record_test(problem, run_dir, f"{run_dir.name} (replay)", run.policy.hash, answer)
    noisy = {"latency_s", "energy_j"} if problem.target.measured else set()
    recorded = {k: v for k, v in run.result["found"].items() if k in replayed.keys() - noisy}
    return {
        "recorded": recorded,
        "replayed": {key: replayed[key] for key in recorded},
        "changed": _excuses(run, weights, recorded, replayed),
    }


def _check_recorded(run: FinishedRun) -> None:
    found = run.result["found"]
    missing = sorted(RECORDED - found.keys())
    if missing:
        raise AjpqError(f"{run.folder} cannot be replayed: its result lacks {missing[0]!r}")
    if type(found["top1_val"]) not in (int, float):
        value = shown(found["top1_val"])
        raise AjpqError(f"{run.folder} cannot be replayed: its top1_val is {value}, no number")


def problem_of(run: FinishedRun, progress: Progress | None = None) -> Problem:
    """The problem of a run, which its policy and its weights fit.

    Raises:
        AjpqError: they do not, or something that the configuration names is not there.
    """
    progress = progress or SilentProgress()
    with progress.phase("loading network, data and target"):
        problem = build_problem(run.config, progress.base_step, (run.policy, run.asked))
    check_weights(run.weights, problem.graph, problem.state)
    check_widths(run.weights, run.policy)
    return problem


def _retrained(run: FinishedRun, problem: Problem, progress: Progress) -> CompressedWeights:
    threads = run.result.get("threads") or torch.get_num_threads()
    with progress.phase("repeating the fine-tuning"), thread_count(threads):
        return fine_tune(problem, run.asked, run.config.full_recipe, progress.watch("replay"))


def uniform(config: CompressConfig, problem: Problem) -> CompressionPolicy:
    """The policy that a compression without a search starts from."""
    policy = uniform_policy(
        problem.channels, config.weight_bits, config.activation_bits, config.outer_bits
    )
    return policy.model_copy(update={"quantizer": problem.quantizer})


def _metrics(problem: Problem, network: Network) -> dict[str, Any]:
    costs, sample = exact_costs(network, problem.target), validation_images(problem)
    metrics = measured(costs, simulate(network, sample.images), sample)
    return {
        **metrics.model_dump(mode="json", exclude={"kl"}),
        "top1_test": reference_top1_test(problem, network),
    }


def _excuses(
    run: FinishedRun,
    weights: CompressedWeights,
    recorded: dict[str, Any],
    replayed: dict[str, Any],
) -> list[str]:
    """Why retrained weights may differ, if they do.

    Raises:
        AjpqError: something differs that must not.
    """
    same = same_weights(run.weights, weights)
    misses = [key for key, value in recorded.items() if replayed[key] != value]
    if same and not misses:
        return []
    changed = changed_surroundings(run.result)
    if not same and changed:
        settled = with_widths(run.policy, weights.widths)
        fixed = _OF_THE_POLICY if settled == run.policy else ()
        misses = _beyond_training(recorded, replayed, fixed)
    if misses or not changed:
        what = (
            f"{misses[0]} was {shown(recorded[misses[0]])}, is {replayed[misses[0]]}"
            if misses
            else ""
        )
        hint = f" ({'; '.join(changed)})" if changed else ""
        reason = what or "the retrained weights differ, though machine and versions are the same"
        raise AjpqError(f"{run.folder} does not replay: {reason}{hint}")
    return changed


def _beyond_training(
    recorded: dict[str, Any], replayed: dict[str, Any], fixed: Sequence[str] = _OF_THE_POLICY
) -> list[str]:
    """The metrics that no difference between two trainings excuses, ``fixed`` in any case."""
    wrong = [key for key in fixed if replayed[key] != recorded[key]]
    near = replayed["top1_val"] >= recorded["top1_val"] - MOST_LOST  # not with NaN
    return wrong if near else [*wrong, "top1_val"]


def same_weights(one: CompressedWeights, other: CompressedWeights) -> bool:
    """Are they equal bit for bit?"""
    pairs = (
        (one.latent, other.latent),
        (one.buffers, other.buffers),
        (one.scales, other.scales),
        (one.widths, other.widths),
    )
    return one.ranges == other.ranges and all(
        left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
        for left, right in pairs
    )


def reprice(
    run_dir: str | Path, target: str, *, data: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """What the compressed network of a run costs on another target; no test image is looked at.

    Args:
        target: as the commands take it.
        data: as of :func:`replay`.

    Returns:
        ``{"recorded": C, "priced": C}``: costs as the run recorded them, and on ``target``.

    Raises:
        AjpqError: the run is damaged, or the target does not store a width of the policy; the
            message names the layer.
    """
    progress = progress or SilentProgress()
    run = load_finished(Path(run_dir), data=data, note=progress.note)
    elsewhere = replace(run, config=_changed(run.config, {"target": target}))
    problem = problem_of(elsewhere, progress)
    with progress.phase(f"pricing on {problem.target.name}"):
        costs = exact_costs(network_of(problem, run.policy, run.weights), problem.target)
    priced = costs.model_dump(mode="json")
    return {"recorded": {key: run.result["found"].get(key) for key in priced}, "priced": priced}


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    return validated(type(config), {**config.model_dump(), **changes}, "the replay")


def carried(run: FinishedRun, policy: CompressionPolicy, **changes: Any) -> ReplayConfig:
    """The settings under which :func:`ajpq.api.carry` gives a run's network another policy, or its
    policy another network, without repeating the recipe.

    Args:
        changes: ``model``, ``checkpoint``, ``target``, ``recipe`` where they differ from the
            run's; another model without a checkpoint is trained first, and without a recipe the
            weights are only calibrated.
    """
    settings = {name: getattr(run.config, name) for name in ProblemConfig.model_fields}
    if "model" in changes:
        settings["checkpoint"] = None
    content = {
        **settings,
        "recipe": load_recipe("direct"),
        **changes,
        "kind": "replay",
        "quantizer": policy.quantizer,
        "policy": policy.hash,
    }
    found: ReplayConfig = validated(ReplayConfig, content, "the replay")
    return found


def shrunk(run_dir: str | Path, *, data: str | None = None) -> nn.Module:
    """The compressed network of a run as an ordinary module, pruned channels removed.

    Its weights are those of the compressed mode: real numbers on the grids of the policy, with the
    BatchNorm statistics of that mode. Activations are not rounded, so that its accuracy is near
    that of the run, not equal to it.

    Args:
        data: as of :func:`replay`; nothing but the shape of the images is taken from there.

    Returns:
        A trainable module in evaluation mode; see :func:`ajpq.shrink.shrink`.

    Raises:
        AjpqError: the run is damaged.
    """
    run = load_finished(Path(run_dir), data=data)
    problem = problem_of(run)
    quantizer = make_quantizer(run.policy.quantizer)
    bits = weight_bits(problem.graph, run.policy)
    state = run.weights.compressed_state
    scales = run.weights.scales or fit_scales(problem.graph, state, bits, quantizer)
    view = compressed_view(problem.graph, state, bits, scales, quantizer)
    return shrink(problem.graph, view, run.policy)
