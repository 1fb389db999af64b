"""What single-layer measurements say before any search: a prior for every layer's settings.

The controllers learn offsets from it. Along the prior, projection onto the budget is the greedy
algorithm: it prunes first where a second saved costs the least divergence. Widths follow from the
error model ``a_i * 4**-b_i``: under a bound on ``sum(n_i * b_i)`` the best ``b_i`` is a constant
plus ``log2(a_i / n_i) / 2``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ajpq.evaluate import Costs
from ajpq.graph.structure import layers
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.problem import Problem
from envs.actions import Knobs
from envs.harm import Harm, changed
from envs.task import LayerFacts
from hw_models.network import FLOAT_BITS


def measured_width(knobs: Knobs) -> int:
    """The width at which layers are measured: the second narrowest, or the only one."""
    return knobs.fixed_bits or knobs.weight_bits[min(1, len(knobs.weight_bits) - 1)]


def sensitivities(
    harm: Harm, knobs: Knobs, leaders: Sequence[int], unprunable: frozenset[str]
) -> np.ndarray:
    """``[L, 2]`` KL divergence in nats of changing one thing in the uncompressed network.

    Column 0: the layer at the second narrowest width. Column 1: half of the channels pruned, in
    all layers that have to be pruned with it; zero for layers that cannot be pruned.
    """
    problem = harm.problem
    names = [layer.name for layer in layers(problem.graph)]
    width = measured_width(knobs)
    table = np.zeros((len(names), 2))
    for index, name in enumerate(names):
        channels = problem.channels[name]
        narrow = LayerPolicy(weight_bits=(width,) * channels, activation_bits=FLOAT_BITS)
        table[index, 0] = harm({name: narrow})
        if name not in unprunable and leaders[index] == index:
            halved = _halved(problem, leaders, index, FLOAT_BITS, activation=FLOAT_BITS)
            table[index, 1] = harm(halved)
    table[:, 1] = [table[leader, 1] for leader in leaders]
    return table


def prior_settings(
    problem: Problem,
    knobs: Knobs,
    facts: Sequence[LayerFacts],
    leaders: Sequence[int],
    unprunable: frozenset[str],
    table: np.ndarray,
    price: Callable[[CompressionPolicy], Costs],
) -> np.ndarray:
    """``[L, K]`` settings in [0, 1]."""
    columns = {
        "sparsity": _sparsity_prior(problem, leaders, unprunable, table, price),
        "bits": _bits_prior(facts, knobs, table),
        "spread": np.full(len(facts), 0.1),
        "activation": np.ones(len(facts)),
    }
    return np.stack([columns[name] for name in knobs.names], axis=1)


def _sparsity_prior(
    problem: Problem,
    leaders: Sequence[int],
    unprunable: frozenset[str],
    table: np.ndarray,
    price: Callable[[CompressionPolicy], Costs],
) -> np.ndarray:
    """Rank of cost saved per divergence, 1 for the best; the rank of its leader for every layer."""
    names = list(problem.channels)
    groups = [i for i, name in enumerate(names) if leaders[i] == i and name not in unprunable]
    if not groups:
        return np.zeros(len(names))
    whole = problem.uniform(8)
    full = _main_cost(price(whole))
    gains = []
    for index in groups:
        halved = changed(whole, _halved(problem, leaders, index, 8, activation=8))
        gains.append(max(full - _main_cost(price(halved)), 0.0) / max(full, 1e-12))
    efficiency = np.array(gains) / (table[groups, 1] + 1e-3)
    rank = np.argsort(np.argsort(efficiency, kind="stable"), kind="stable")
    own = np.zeros(len(names))
    own[groups] = rank / max(len(groups) - 1, 1)
    return own[list(leaders)]


def _main_cost(costs: Costs) -> float:
    return float(costs.packed_bytes if costs.latency_s is None else costs.latency_s)


def _bits_prior(facts: Sequence[LayerFacts], knobs: Knobs, table: np.ndarray) -> np.ndarray:
    weights = np.array([layer.weights_share for layer in facts])
    offset = 0.5 * np.log2(np.maximum(table[:, 0], 1e-6) / weights)
    offset -= np.average(offset, weights=weights)
    reach = knobs.weight_bits[-1] - knobs.weight_bits[0] or 1
    return np.clip(0.5 + offset / reach, 0.0, 1.0)


def _halved(
    problem: Problem, leaders: Sequence[int], leader: int, width: int, activation: int
) -> dict[str, LayerPolicy]:
    """The less important half of the channels pruned in the layers that follow ``leader``."""
    changes = {}
    for index, name in enumerate(problem.channels):
        if leaders[index] == leader:
            bits = np.full(problem.channels[name], width)
            order = np.argsort(problem.scores[name], kind="stable")
            bits[order[: len(bits) // 2]] = 0
            changes[name] = LayerPolicy(
                weight_bits=tuple(bits.tolist()), activation_bits=activation
            )
    return changes
