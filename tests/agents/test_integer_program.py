"""The integer program against all choices there are."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.integer_program import cheapest


def best_by_trying(kl, costs, bounds):
    """The least harm of choices within the bounds, infinite if there are none."""
    found = np.inf
    for choice in itertools.product(*(range(len(row)) for row in kl)):
        cost = sum(row[index] for row, index in zip(costs, choice, strict=True))
        if (cost <= bounds).all():
            found = min(found, sum(row[index] for row, index in zip(kl, choice, strict=True)))
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.floats(0.05, 0.95))
def test_no_choice_within_the_bounds_does_less_harm(seed, count, tightness):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, rng.integers(1, 6))
    kl = [rng.uniform(0, 1, size) * 10.0 ** rng.integers(-6, 1) for size in sizes]
    costs = [rng.integers(-50, 200, (size, count)).astype(float) for size in sizes]
    least = sum(row.min(axis=0) for row in costs)
    most = sum(row.max(axis=0) for row in costs)
    bounds = np.floor(least + tightness * (most - least)) + 0.5  # no sum lies on a bound
    expected = best_by_trying(kl, costs, bounds)
    found = cheapest(kl, costs, bounds)
    if found is None:
        assert expected == np.inf
        return
    assert (sum(row[index] for row, index in zip(costs, found, strict=True)) <= bounds).all()
    harm = sum(row[index] for row, index in zip(kl, found, strict=True))
    largest = max(float(row.max()) for row in kl)
    assert harm == pytest.approx(expected, rel=1e-9, abs=2e-6 * largest)


def test_the_unit_of_costs_does_not_matter():
    kl = [np.array([0.3, 0.1, 0.0]), np.array([0.5, 0.2, 0.0])]
    costs = np.array([[0.0], [1.0], [2.0]])
    for unit in (1e-9, 1.0, 1e9):
        found = cheapest(kl, [unit * costs, unit * costs], np.array([2.5 * unit]))
        assert found.tolist() == [1, 1] or found.tolist() == [0, 2]


def test_without_bounds_every_row_takes_its_least():
    kl = [np.array([0.3, 0.1]), np.array([0.0, 0.2])]
    assert cheapest(kl, [np.zeros((2, 0))] * 2, np.zeros(0)).tolist() == [1, 0]


def test_bounds_that_nothing_keeps_have_no_answer():
    assert cheapest([np.zeros(2)], [np.array([[1.0], [2.0]])], np.array([0.5])) is None
