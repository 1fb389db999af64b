"""Projection and reward on a toy whose costs are known in closed form."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.evaluate import Bops, Costs, Metrics
from envs.actions import make_knobs
from envs.budget import Budget, between, project, reward
from hw_models.errors import BudgetError

KNOBS = make_knobs((0, 2, 3, 4, 5, 6, 7, 8), (8,), max_sparsity=0.5, fixed_bits=None)
NONE = Bops(fl32=0, fl8=0, all=0)


def price(actions):
    """Latency falls with sparsity and a little with bits; bytes with both."""
    live = 1 - 0.5 * actions[:, 0].mean()
    bits = 2 + 6 * actions[:, 1].mean()
    return Costs(
        latency_s=live * (0.8 + 0.2 * bits / 8),
        packed_bytes=round(32000 * live * bits / 32),
        flash_bytes=round(1000 + 8000 * live * bits / 8),
        peak_activation_bytes=round(1000 * live),
        energy_j=live + bits / 8,
        bops=NONE,
        macs=0,
    )


def budget(latency=None, size=None, drop=None, **more):
    given = {"latency": latency, "size": size}
    bounds = {name: bound for name, bound in given.items() if bound is not None}
    reference = {"latency": 1.0, "size": 32000.0, "sram": 1000.0, "flash": 9000.0, "energy": 2.0}
    return Budget({**bounds, **more}, reference, drop, 90.0)


def test_budgets_between_lie_equal_factors_apart():
    ends = [budget(size=0.1, latency=0.5), budget(size=0.4, latency=0.5)]
    found = between(ends[:2], 1)
    assert found[0].bounds == pytest.approx({"size": 0.2, "latency": 0.5})
    sizes = [one.bounds["size"] for one in between([ends[0], ends[1], ends[1].scaled(4)], 2)]
    factors = [b / a for a, b in itertools.pairwise([0.1, *sizes[:2], 0.4, *sizes[2:], 1.6])]
    assert factors == pytest.approx([4 ** (1 / 3)] * 6)
    assert between(ends[:1], 3) == between(ends[:2], 0) == []


def projected(actions, bounds, margin=0.0):
    return project(actions, KNOBS, bounds, lambda a: price(a).packed_bytes, price, margin)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.55, 1.0), st.floats(0.06, 0.25), st.floats(0, 0.1))
def test_the_result_meets_the_budget_and_wastes_little_of_it(seed, latency, size, margin):
    actions = np.random.default_rng(seed).random((6, 3))
    bounds = budget(latency, size)
    found = projected(actions, bounds, margin)
    assert bounds.met(price(found), margin)
    assert ((found >= 0) & (found <= 1)).all()
    ratios = bounds.ratios(price(found))
    richest = (found[:, 1] >= 1 - 1e-9).all() and (found[:, 0] <= 1e-9).all()
    close = ratios["size"] > 0.8 * size * (1 - margin) or ratios["latency"] > 0.9 * latency * (
        1 - margin
    )
    assert richest or close


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.fixed_dictionaries(
        {},
        optional={
            "latency": st.floats(0.6, 1.0),
            "size": st.floats(0.08, 0.25),
            "flash": st.floats(0.5, 1.0),
            "sram": st.floats(0.6, 1.0),
            "energy": st.floats(0.5, 1.0),
        },
    ),
)
def test_any_bounds_together_are_met(seed, bounds):
    actions = np.random.default_rng(seed).random((6, 3))
    found = price(projected(actions, budget(**bounds)))
    assert found.latency_s <= bounds.get("latency", 2)
    assert found.packed_bytes <= bounds.get("size", 1) * 32000
    assert found.flash_bytes <= bounds.get("flash", 2) * 9000
    assert found.peak_activation_bytes <= bounds.get("sram", 2) * 1000
    assert found.energy_j <= bounds.get("energy", 2) * 2


def test_what_layers_say_relative_to_each_other_is_kept():
    actions = np.array([[0.2, 0.2, 0.0], [0.6, 0.9, 0.0]])
    found = projected(actions, budget(0.7, 0.12))
    assert found[1, 0] >= found[0, 0]
    assert found[1, 1] >= found[0, 1]


def test_without_bounds_nothing_moves():
    actions = np.random.default_rng(0).random((3, 3))
    assert np.array_equal(projected(actions, budget()), actions)


def test_the_cheapest_policy_is_not_loosened():
    actions = np.full((3, 3), 0.1)
    assert np.array_equal(projected(actions, budget(size=0.9, drop=1.0)), actions)


def test_an_unreachable_budget_names_the_smallest_cost():
    with pytest.raises(
        BudgetError, match=r"size ratio 0\.01 or .* B \(.* smallest reachable 0\.03"
    ):
        projected(np.full((2, 3), 0.5), budget(size=0.01))


def metrics(top1=90.0, kl=0.0, latency=1.0, size=32000):
    return Metrics(
        latency_s=latency,
        packed_bytes=size,
        flash_bytes=None,
        bops=NONE,
        macs=0,
        top1_val=top1,
        kl=kl,
    )


def test_reward_prefers_accuracy_or_with_max_drop_cheapness():
    free = budget()
    assert reward(metrics(), free, kl_weight=0.1, soft=False) == 0
    assert reward(metrics(top1=80), free, kl_weight=0.1, soft=False) == pytest.approx(-0.1)
    assert reward(metrics(kl=1), free, kl_weight=0.1, soft=False) == pytest.approx(-0.1)
    capped = budget(drop=1.0)
    cheap, dear = metrics(top1=89.5, latency=0.5, size=3200), metrics(latency=0.9, size=9000)
    worse = metrics(top1=80, latency=0.4, size=1600)
    values = [reward(m, capped, kl_weight=0.1, soft=False) for m in (cheap, dear, worse)]
    assert values[0] > values[1] > values[2]


def test_soft_budgets_punish_excess_only():
    bounds = budget(latency=0.5)
    inside, outside = metrics(latency=0.5), metrics(latency=0.6)
    assert reward(inside, bounds, kl_weight=0, soft=True) == 0
    assert reward(outside, bounds, kl_weight=0, soft=True) == pytest.approx(-0.4)
    assert reward(outside, bounds, kl_weight=0, soft=False) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.55, 0.95))
def test_no_layer_is_pruned_without_need(seed, latency):
    """On a device that computes in quarters of a layer, each layer alone is as loose as can be."""
    knobs = make_knobs((0, 8), (8,), max_sparsity=0.5, fixed_bits=8)
    share = np.random.default_rng(seed).dirichlet(np.ones(6))

    def stepped(actions):
        live = np.ceil((1 - 0.5 * actions[:, 0]) * 4) / 4
        whole = price(np.zeros((6, 3)))
        return whole.model_copy(update={"latency_s": float(live @ share)})

    def latency_of(actions):
        return stepped(actions).latency_s

    actions = np.random.default_rng(seed).random((6, 1))
    found = project(actions, knobs, budget(latency), lambda a: 0, stepped, 0.0)
    assert latency_of(found) <= latency
    for layer in range(6):
        looser = found.copy()
        looser[layer] = 0
        one_step = found.copy()
        one_step[layer] = max(found[layer, 0] - 0.5, 0)
        for candidate in (looser, one_step):
            assert latency_of(candidate) == latency_of(found) or latency_of(candidate) > latency
