"""Prices of single changes, guessed where a target is slow to ask."""

import dataclasses

import numpy as np
import pytest

from agents.searchers.milp import linearised, program_of
from agents.sensitivity import SensitivityTable
from ajpq.base import build_problem
from envs.build import build_task, repriced
from envs.digits_task import digits_config


@pytest.fixture(scope="module")
def edge_npu():
    config = digits_config().model_copy(update={"target": "edge-npu", "latency_ratio": 0.8})
    problem = build_problem(config)
    return problem, build_task(config, problem, None)


def table_of(task):
    widths, levels = np.array(task.knobs.weight_bits), np.array([0.25, 0.5])
    groups = np.array(sorted(set(task.leaders)))
    return SensitivityTable(
        widths,
        np.zeros((len(task.layers), len(widths))),
        groups,
        levels,
        np.zeros((len(groups), len(levels))),
    )


@pytest.mark.parametrize("pruned", [0, 1])
def test_prices_of_single_changes_are_guessed_from_a_few_answers(edge_npu, pruned):
    problem, task = edge_npu
    exact, slow = program_of(task, table_of(task)), repriced(task, problem)
    asked = []
    counted = dataclasses.replace(slow, price=lambda own: asked.append(own) or slow.price(own))
    program = program_of(counted, table_of(task))
    centre = (*program.richest[: program.layers], *[pruned] * len(table_of(task).groups))
    found = linearised(program, centre)
    changes = [
        exact.ratios((*centre[:row], index, *centre[row + 1 :])) - exact.ratios(centre)
        for row, kl in enumerate(exact.kl)
        for index in range(len(kl))
    ]
    assert np.ptp(np.stack(changes), axis=0).max() > 0.03
    assert np.concatenate(found.added) == pytest.approx(np.stack(changes), abs=0.003)
    assert len({policy.hash for policy in asked}) < len(changes) / 2


def test_costs_that_nobody_guesses_are_asked_for(edge_npu):
    problem, task = edge_npu
    budget = dataclasses.replace(task.budget, bounds={**task.budget.bounds, "flash": 0.9})
    own = dataclasses.replace(repriced(task, problem), budget=budget)
    policy = problem.uniform(5)
    costs = own.price(policy)
    assert own.guess(policy) is not None
    assert own.quick_costs(policy) is costs
