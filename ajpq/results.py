"""The final report of a run: the only place where test images are looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ajpq.compressed import State
from ajpq.data import Dataset, test_batches
from ajpq.evaluate import Costs, exact_costs, layer_latencies, top1
from ajpq.graph.execute import channels_last, execute, frozen_batchnorm
from ajpq.graph.structure import Graph
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.reference import prepare
from ajpq.runs.folder import append_to_ledger
from ajpq.selection.finalists import Finalist, validation_images
from ajpq.surroundings import surroundings
from hw_models.network import Network, bops, macs


def build_result(
    problem: Problem, winner: Finalist, *, seed: int, seconds: float, run_dir: Path
) -> dict[str, Any]:
    """``result.json``: the uncompressed network against the winner, in one shape."""
    found = network_of(problem, winner.policy, winner.weights)
    answers = test_answers(problem, found, winner)
    record_test(problem, run_dir, run_dir.name, winner.policy.hash, answers)
    full = answers.get("full_precision")
    return {
        "baseline": baseline_metrics(problem, answers["baseline"]),
        "found": {
            "top1_val": winner.metrics.top1_val,
            "top1_test": answers["found"],
            "top1_test_full_precision": full,
            **_cost_fields(exact_costs(found, problem.target)),
        },
        "layer_latencies_s": {
            "baseline": layer_latencies(_int8(problem), problem.target),
            "found": layer_latencies(found, problem.target),
        },
        "policy": winner.policy.hash,
        "target": problem.target.name,
        "seed": seed,
        "threads": winner.threads,
        "seconds": round(seconds, 1),
        **surroundings(),
    }


def record_test(
    images: Problem | Dataset,
    run_dir: Path,
    occasion: str,
    policy_hash: str,
    answers: dict[str, float],
) -> None:
    """Write down that test images were looked at, when, why, and what came out.

    Args:
        images: whose test images they are.
        policy_hash: ``none`` where there is no policy.
    """
    dataset = images if isinstance(images, Dataset) else images.dataset
    append_to_ledger(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "occasion": occasion,
            "data": dataset.name.split(":")[0],
            "images": len(dataset.test_labels),
            "policy": policy_hash,
            "top1_test": {name: round(value, 4) for name, value in answers.items()},
        },
        run_dir,
    )


def baseline_metrics(problem: Problem, top1_test: float) -> dict[str, Any]:
    """The uncompressed network: float accuracy and bytes, latency and flash of its int8 form."""
    int8 = exact_costs(_int8(problem), problem.target)
    real = network_of(problem, problem.uniform(32), direct_weights(problem))
    sample = validation_images(problem)
    assert sample.float_logits is not None
    return {
        "top1_val": top1(sample.float_logits, sample.labels),
        "top1_test": top1_test,
        "latency_s": int8.latency_s,
        "packed_bytes": problem.float_bytes,
        "flash_bytes": int8.flash_bytes,
        "peak_activation_bytes": int8.peak_activation_bytes,
        "energy_j": int8.energy_j,
        "bops": bops(real),
        "macs": macs(real),
    }


def _int8(problem: Problem) -> Network:
    return network_of(problem, problem.uniform(8), direct_weights(problem))


def test_answers(problem: Problem, found: Network, winner: Finalist) -> dict[str, float]:
    """Top-1 on all test images: ``baseline``, ``found`` by the exact reference, and
    ``full_precision`` where the recipe keeps that mode."""
    networks = {"baseline": float_network(problem.graph, problem.state), "found": prepare(found)}
    latent = winner.weights.latent
    trained = any(not torch.equal(value, latent[name]) for name, value in problem.state.items())
    if winner.keeps_full_precision and trained:
        networks["full_precision"] = float_network(problem.graph, latent)
    answers = top1_test(problem, networks)
    if winner.keeps_full_precision and not trained:
        answers["full_precision"] = answers["baseline"]
    return answers


def reference_top1_test(problem: Problem, network: Network) -> float:
    """Top-1 of one network on all test images by the exact reference (replay and verifiers)."""
    return top1_test(problem, {"found": prepare(network)})["found"]


def float_network(graph: Graph, state: State) -> Callable[[Tensor], Tensor]:
    """Images to logits at full precision."""
    laid_out = {name: channels_last(value) for name, value in state.items()}

    def run(images: Tensor) -> Tensor:
        return execute(graph, laid_out, channels_last(images), batchnorm=frozen_batchnorm)

    return run


@torch.no_grad()
def top1_test(
    problem: Problem, networks: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, float]:
    """Percent of all test images that each of ``networks`` classifies right.

    Whoever calls this writes it down with :func:`record_test`.
    """
    right = dict.fromkeys(networks, 0)
    for images, labels in test_batches(problem.dataset, 500):
        for name, network in networks.items():
            right[name] += int((network(images).argmax(1) == labels).sum())
    return {name: 100.0 * count / len(problem.dataset.test_labels) for name, count in right.items()}


def _cost_fields(costs: Costs) -> dict[str, Any]:
    return costs.model_dump(mode="json")
