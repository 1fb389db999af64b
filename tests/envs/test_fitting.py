"""What a projection leaves is spent, where it saves most, and never more than there is."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import fitting
from envs.episodes import settled
from envs.fitting import fits, spent, uses_the_budget
from envs.layer_control import sharing
from tests.envs.toy import BYTES, joint_toy, layer_harm

BITS = 1  # column of the knob
MARGIN = 0.01


def toy(size, block=1, **own):
    task = sharing(joint_toy(size, margin=MARGIN, **own))
    return dataclasses.replace(task, knobs=dataclasses.replace(task.knobs, width_block=block))


def proposal(task, seed):
    return task.projected(np.random.default_rng(seed).random(task.prior.shape))


def wider(task, values):
    """Every policy with a single layer's mean width larger by any number of bits."""
    for layer, bits in itertools.product(range(len(values)), np.linspace(0, 1, 6 * 4 * 2 + 1)):
        if bits > values[layer, BITS]:
            other = values.copy()
            other[layer, BITS] = bits
            yield layer, task.policy(other)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.15, 0.9), st.sampled_from([1, 2, 4]))
def test_nothing_fits_besides_any_more_and_nothing_is_lost(seed, size, block):
    task = toy(size, block)
    before = proposal(task, seed)
    after = spent(task, before)
    policy = task.policy(after)
    assert fits(task, policy)
    assert (after[:, BITS] >= before[:, BITS]).all()
    assert np.array_equal(np.delete(after, BITS, 1), np.delete(before, BITS, 1))
    assert task.harm(policy.layers) <= task.harm(task.policy(before).layers) + 1e-12
    more = [other for _, other in wider(task, after) if other.hash != policy.hash]
    assert not any(fits(task, other) for other in more)
    assert np.array_equal(spent(task, after), after)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 0.8))
def test_the_first_step_is_the_one_that_saves_most_per_byte(seed, size):
    task = toy(size)
    before = proposal(task, seed)
    old = [layer.bits for layer in task.policy(before).layers.values()]
    worth, cost = {}, {}
    for layer, policy in wider(task, before):
        new = list(policy.layers.values())[layer].bits
        if layer not in cost and (new != old[layer]).any():
            cost[layer] = BYTES[layer] * (new - old[layer]).sum() / 8
            worth[layer] = (layer_harm(layer, old[layer]) - layer_harm(layer, new)) / cost[layer]
    if not worth:
        return
    best = max(worth, key=worth.get)
    spare = (task.packed_bytes(task.policy(before)) + cost[best] + 2) / (1 - MARGIN)
    budget = dataclasses.replace(
        task.budget, bounds={"size": spare / task.budget.reference["size"]}
    )
    after = spent(dataclasses.replace(task, budget=budget), before)
    assert after[best, BITS] > before[best, BITS]


def one_at_a_time(task, before):
    """Every step asked about by itself."""
    found, still_open, wider_by = before, list(range(len(before))), fitting._widened(task, before)
    while steps := wider_by(found, still_open, 1):
        if fits(task, task.policy(steps[0])):
            found = steps[0]
        else:
            still_open.remove(int((steps[0] != found).any(1).argmax()))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.15, 0.95), st.sampled_from([1, 2, 4]))
def test_steps_asked_about_together_are_those_asked_about_one_by_one(seed, size, block):
    task = toy(size, block)
    before = proposal(task, seed)
    assert np.array_equal(spent(task, before), one_at_a_time(task, before))


def test_a_slow_target_that_corrects_its_guesses_is_asked_a_few_times():
    asked = []
    plain = with_seconds(toy(0.9), 0.6)
    exact = dataclasses.replace(
        plain, price=lambda policy: asked.append(policy) or plain.price(policy)
    )

    def guess(policy):  # too low by a tenth until it is told
        return plain.packed_bytes(policy) / 1000 * (1.0 if asked else 0.9)

    low = np.zeros_like(plain.prior)  # nothing pruned
    wanted = exact.policy(spent(exact, low))
    asked.clear()
    found = exact.policy(spent(dataclasses.replace(exact, guess=guess), low))
    assert 1 < len(asked) <= 3
    assert fits(exact, found)
    assert plain.packed_bytes(found) > 0.95 * plain.packed_bytes(wanted)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 0.9), st.sampled_from([1, 2, 4]))
def test_what_is_on_the_budget_is_not_moved_again(seed, size, block):
    task = toy(size, block)
    found = settled(task, np.random.default_rng(seed).random(task.prior.shape))
    assert fits(task, task.policy(found))
    assert np.array_equal(settled(task, found), found)


def with_seconds(task, bound):
    """A device that takes a millisecond for each byte of the packed file."""

    def price(policy):
        costs = task.price(policy)
        return costs.model_copy(update={"latency_s": costs.packed_bytes / 1000})

    bounds = {**task.budget.bounds, "latency": bound}
    reference = {**task.budget.reference, "latency": task.budget.reference["size"] / 1000}
    budget = dataclasses.replace(task.budget, bounds=bounds, reference=reference)
    return dataclasses.replace(task, price=price, budget=budget)


def with_latency(task, bound):
    """A device that computes a channel a second, whatever its width."""

    def price(policy):
        live = sum(int((layer.bits > 0).sum()) for layer in policy.layers.values())
        return task.price(policy).model_copy(update={"latency_s": float(live)})

    bounds = {**task.budget.bounds, "latency": bound}
    reference = {**task.budget.reference, "latency": 16.0}
    budget = dataclasses.replace(task.budget, bounds=bounds, reference=reference)
    return dataclasses.replace(task, price=price, budget=budget)


def test_pruning_for_bytes_stands_where_latency_has_room():
    task = with_latency(toy(0.4), 1.0)
    asked = np.tile([0.8, 0.3], (4, 1))
    found = settled(task, asked)
    assert np.array_equal(found[:, 0], asked[:, 0])
    assert uses_the_budget(task, task.price(task.policy(found)))
    assert (task.projected(asked)[:, 0] < asked[:, 0]).all()


def test_a_proposal_that_leaves_most_of_the_budget_is_projected():
    task = with_latency(toy(0.8), 0.9)
    asked = np.tile([0.95, 0.2], (4, 1))
    found = settled(task, asked)
    assert (found[:, 0] < asked[:, 0]).all()
    assert uses_the_budget(task, task.price(task.policy(found)))


def test_a_step_that_gains_nothing_hides_none_that_does():
    task = toy(0.9, 4)
    tables = [dataclasses.replace(own, errors=own.errors.copy()) for own in task.tables]
    for own in tables:
        own.errors[:, 1] = 1.1 * own.errors[:, 0]
    odd = dataclasses.replace(task, tables=tuple(tables))
    low = np.tile(task.knobs.tightest, (4, 1))
    assert spent(odd, low)[:, BITS].max() > 0.5


def test_shares_say_whose_steps_are_worth_most():
    task = toy(0.5)
    start = np.tile([0.0, 0.0, 1.0], (4, 1))[:, : task.prior.shape[1]]
    loved = [np.full(4, 9.0 * (layer == 3)) for layer in range(4)]
    after = spent(task.with_shares(loved), start)
    assert after[3, BITS] > 0.5 > spent(task, start)[3, BITS]


@pytest.mark.parametrize("latency", [0.3, 0.5, 0.7])
def test_guesses_that_are_too_low_are_found_out(latency):
    task = with_seconds(toy(0.9), latency)
    exact, fooled = (
        spent(own, np.zeros_like(task.prior))  # nothing pruned
        for own in (task, dataclasses.replace(task, guess=lambda policy: 0.0))
    )
    assert fits(task, task.policy(fooled))
    assert not fits(task, task.policy(np.ones_like(task.prior) * [0.0, 1.0]))
    assert task.packed_bytes(task.policy(fooled)) > 0.9 * task.packed_bytes(task.policy(exact))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.3, 0.9), st.floats(0.0, 1.2))
def test_whatever_is_guessed_a_candidate_keeps_its_budget_and_the_margin(seed, latency, share):
    exact = with_seconds(toy(0.9), latency)
    guessing = dataclasses.replace(
        exact, guess=lambda policy: share * exact.packed_bytes(policy) / 1000
    )
    asked = np.random.default_rng(seed).random(exact.prior.shape)
    assert fits(exact, exact.policy(settled(guessing, asked)))


def test_a_candidate_just_on_a_bound_stays_though_its_guess_exceeds_it():
    exact = with_seconds(toy(0.9), 0.5)
    found = settled(exact, np.random.default_rng(0).random(exact.prior.shape))
    most = 0.5 * (1 - MARGIN) * exact.budget.reference["latency"]
    guessing = dataclasses.replace(exact, guess=lambda policy: 1.001 * most)
    assert np.array_equal(settled(guessing, found), found)


def test_nothing_is_spent_where_cheaper_is_better_or_steps_have_no_worth():
    task = toy(0.5)
    low = np.tile(task.knobs.tightest, (4, 1))
    drop = dataclasses.replace(task, budget=dataclasses.replace(task.budget, max_drop=1.0))
    free = dataclasses.replace(task, budget=dataclasses.replace(task.budget, bounds={}))
    for own in (drop, free):
        assert np.array_equal(spent(own, low), low)
    ramps = joint_toy(0.5)
    moved = proposal(ramps, 0)
    assert np.array_equal(settled(ramps, moved), ramps.projected(moved))
