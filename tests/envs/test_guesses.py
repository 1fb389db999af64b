"""Guessed latencies: what they follow from, and that no candidate leaves its budget for them."""

import dataclasses
import functools

import numpy as np
import pytest

from ajpq.base import build_problem
from ajpq.evaluate import costs_in_loop
from ajpq.packed import estimated_bytes
from ajpq.problem import direct_weights, network_of
from envs.budget import project
from envs.build import build_task, prices, repriced
from envs.digits_task import digits_config
from envs.guesses import guess, learn
from hw_models.base import LayerCost


@functools.cache
def problem_and_task(target):
    config = digits_config().model_copy(
        update={"target": target, "latency_ratio": None if target == "size-only" else 0.8}
    )
    problem = build_problem(config)
    return problem, build_task(config, problem, None)


def proposals(task, count):
    rng = np.random.default_rng(5)
    for _ in range(count):
        offsets = rng.uniform(-1, 1, task.prior.shape)
        yield np.stack([task.settings(i, own) for i, own in enumerate(offsets)])


def projected_plainly(problem, task, actions):
    """Every question answered by building the network and asking the target."""
    direct = direct_weights(problem)

    def network(moved):
        return network_of(problem, task.policy(moved), direct)

    return project(
        actions,
        task.knobs,
        task.budget,
        lambda moved: estimated_bytes(network(moved)),
        lambda moved: costs_in_loop(network(moved), problem.pricing),
        task.margin,
    )


@pytest.mark.parametrize("target", ["size-only", "bitfusion", "mpic"])
def test_quick_targets_are_asked_and_the_projection_is_the_plain_one(target):
    problem, task = problem_and_task(target)
    assert task.guess is None
    for actions in proposals(task, 4):
        assert np.array_equal(task.projected(actions), projected_plainly(problem, task, actions))


def test_a_compiler_is_asked_less_and_the_budget_is_met_and_used():
    problem, task = problem_and_task("edge-npu")
    asked = []
    counted = dataclasses.replace(task, price=lambda policy: asked.append(1) or task.price(policy))
    direct, used, plainly = direct_weights(problem), [], []
    for actions in proposals(task, 12):
        asked.clear()
        policy = counted.policy(counted.projected(actions))
        exact = costs_in_loop(network_of(problem, policy, direct), problem.pricing)
        assert task.budget.met(exact, task.margin)
        assert task.price(policy) == exact
        used.append(sum(task.budget.ratios(exact).values()))
        plain = task.policy(projected_plainly(problem, task, actions))
        network = network_of(problem, plain, direct)
        plainly.append(sum(task.budget.ratios(costs_in_loop(network, problem.pricing)).values()))
    assert len(asked) <= 4
    assert np.mean(used) == pytest.approx(np.mean(plainly), rel=0.01)


def test_the_guess_of_what_was_asked_is_the_answer():
    problem = problem_and_task("edge-npu")[0]
    asked = prices(problem)
    policy = problem.uniform(5)
    assert asked.guess(policy) is None
    seconds = asked.price(policy).latency_s
    assert asked.guess(policy) == pytest.approx(seconds, rel=1e-9)


def test_costs_that_nobody_guesses_are_asked_for():
    problem, task = problem_and_task("edge-npu")
    budget = dataclasses.replace(task.budget, bounds={**task.budget.bounds, "flash": 0.9})
    own = dataclasses.replace(repriced(task, problem), budget=budget)
    policy = problem.uniform(5)
    costs = own.price(policy)
    assert own.guess(policy) is not None
    assert own.quick_costs(policy) is costs
    assert dataclasses.replace(own, budget=task.budget).quick_costs(policy) is not costs


def test_a_repriced_task_projects_alike_whatever_was_asked_before():
    problem, task = problem_and_task("edge-npu")
    first, second = repriced(task, problem), repriced(task, problem)
    for actions in proposals(second, 6):
        moved = second.projected(actions)
    third = repriced(second, problem)
    assert second.guess(task.policy(moved)) is not None
    assert third.guess(task.policy(moved)) is None
    for actions in proposals(task, 3):
        assert np.array_equal(first.projected(actions), third.projected(actions))


def test_a_guess_lies_between_near_neighbours_and_is_else_rather_too_low():
    seen = {}
    for size, seconds in ((100.0, 2.0), (140.0, 4.0), (400.0, 9.0)):
        learn(seen, [("conv", ("form",), size)], [LayerCost("conv", seconds)])

    def guessed(size):
        return guess(seen, [("conv", ("form",), size)])

    assert guessed(110.0) == pytest.approx(2.5)  # of every line between two points
    assert guessed(200.0) == 4.0  # far from both
    assert guessed(500.0) == 9.0
    assert guessed(80.0) == 2.0
    assert guessed(50.0) == pytest.approx(1.0)
    assert guess(seen, [("a", ("form",), 100.0), ("b", ("form",), 140.0)]) == pytest.approx(6)
    assert guess(seen, [("conv", ("another form",), 100.0)]) is None
    learn(seen, [("conv", ("form",), 100.0)], [LayerCost("conv", 3.0)])
    assert guessed(100.0) == 3.0


def test_operators_that_a_target_says_nothing_of_are_not_guessed():
    seen = {}
    learn(seen, [("conv", ("form",), 1.0)], [LayerCost("conv", None), LayerCost("relu", 1.0)])
    assert seen == {}
