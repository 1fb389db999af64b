"""Targets whose answers are measurements: some are taken before a search, and a model fitted.

A stopwatch gives another answer every time and takes a second for it. Inside the loop a search
asks the fitted model, which always gives the same answer; what it reports is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ajpq.config.schema import SearchConfig
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.runs.journal import Journal, read_journal
from envs.actions import decode, make_knobs
from envs.build import sparsity_leaders, unprunable_layers
from hw_models.base import LayerCost, NetworkCost
from hw_models.checks import checked_costs
from hw_models.fitted import fit_error, fit_to

KIND = "measurement"
POLICIES = 60
# The rest is held out, to say how good the fit is; then all are fitted to.
_FITTED_SHARE = 2 / 3
_GOOD = 0.9
_ATTEMPTS = 20


def measured_first(
    config: SearchConfig, problem: Problem, run_dir: Path
) -> tuple[Problem, list[dict[str, Any]]]:
    """Measure random policies and give the problem a model of the device for its loop.

    Does nothing for a target that computes its answers.

    Args:
        run_dir: measurements that an earlier life of the run left there are not repeated.

    Returns:
        The problem, and what :func:`journalled` has to keep.
    """
    if not problem.target.measured:
        return problem, []
    policies = [
        problem.uniform(8),  # what all ratios refer to
        *random_policies(problem, config.max_sparsity, POLICIES, config.seed, config.fixed_bits),
    ]
    direct = direct_weights(problem)
    networks = [network_of(problem, policy, direct) for policy in policies]
    known = {
        entry["hash"]: _cost(entry["cost"])
        for entry in read_journal(run_dir / "journal.jsonl")
        if entry["kind"] == KIND
    }
    missing = {
        policy.hash: network
        for policy, network in zip(policies, networks, strict=True)
        if policy.hash not in known
    }
    known |= zip(missing, checked_costs(problem.target, list(missing.values())), strict=True)
    costs = [known[policy.hash] for policy in policies]
    entries: list[dict[str, Any]] = [
        {"kind": KIND, "hash": policy.hash, "cost": asdict(cost)}
        for policy, cost in zip(policies, costs, strict=True)
    ]
    first = round(_FITTED_SHARE * len(networks))
    trial = fit_to(problem.target, networks[:first], costs[:first], config.seed)
    error = fit_error(trial, networks[first:], costs[first:])
    entries.append({"kind": "fit", "hash": problem.target.name, **asdict(error)})
    fitted = fit_to(problem.target, networks, costs, config.seed)
    return dataclasses.replace(problem, loop_target=fitted), entries


def described_fit(entries: Sequence[Mapping[str, Any]]) -> str:
    """One line about the quality of the fit."""
    fit = entries[-1]
    text = (
        f"model of {fit['hash']}: Spearman {fit['spearman']:.3f}, median error "
        f"{fit['median']:.1%}, 95th percentile {fit['p95']:.1%} on policies held out"
    )
    return text if fit["spearman"] > _GOOD else f"{text}; was the machine busy?"


def journalled(entries: Sequence[Mapping[str, Any]], journal: Journal) -> None:
    """Keep measurements, unless an earlier life of the run did."""
    for entry in entries:
        if journal.next_recorded(kind=entry["kind"], hash=entry["hash"]) is None:
            journal.append(dict(entry))


def random_policies(
    problem: Problem, max_sparsity: float, count: int, seed: int, fixed_bits: int | None = None
) -> list[CompressionPolicy]:
    """Policies from next to nothing pruned to next to everything, different ones.

    Fewer than ``count`` where a target leaves so little choice that there are not so many.
    """
    target = problem.target
    knobs = make_knobs(
        target.weight_bits,
        target.activation_bits,
        max_sparsity=max_sparsity,
        fixed_bits=fixed_bits,
        granularity=target.channel_granularity,
        width_block=target.width_granularity,
    )
    leaders, unprunable = sparsity_leaders(problem), unprunable_layers(problem)
    rng = np.random.default_rng((seed, 3))
    found: dict[str, CompressionPolicy] = {}
    for _ in range(_ATTEMPTS * count):
        if len(found) == count:
            break
        shape = (len(leaders), len(knobs.names))
        actions = np.clip(rng.random(shape[1]) + rng.normal(0, 0.3, shape), 0, 1)
        policy = decode(actions, problem.scores, leaders, unprunable, knobs, problem.quantizer)
        found[policy.hash] = policy
    return list(found.values())


def _cost(stored: Mapping[str, Any]) -> NetworkCost:
    layers = tuple(LayerCost(**layer) for layer in stored["per_layer"])
    return NetworkCost(**{**stored, "per_layer": layers})
