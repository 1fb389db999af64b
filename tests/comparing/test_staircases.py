"""The best so far as something is spent, and the band of several of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajpq.comparing.staircases import band, corners, heights, running_best

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(-9, 9)), max_size=12)


@given(POINTS, st.integers(0, 10))
def test_a_staircase_is_the_largest_y_that_so_much_x_has_bought(points, x):
    expected = max((y for at, y in points if at <= x), default=np.nan)
    found = heights(running_best(points), np.array([x]))[0]
    np.testing.assert_equal(found, float(expected))


@given(POINTS)
def test_every_step_is_further_and_higher_than_the_one_before(points):
    steps = running_best(points)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(steps))
    assert set(steps) <= set(points)


def test_best_so_far_against_images():
    asked = [(100, -0.5), (200, -0.7), (300, -0.2), (300, -0.1), (400, -0.1)]
    assert running_best(asked) == [(100, -0.5), (300, -0.1)]


def test_a_band_begins_where_all_have_begun():
    seeds = [[(1.0, 10.0), (4.0, 30.0)], [(2.0, 20.0)], [(1.0, 0.0), (3.0, 50.0)]]
    grid = corners(seeds, end=5.0)
    assert grid.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    low, middle, high = band(seeds, grid)
    assert np.isnan(middle[0])
    assert low[1:].tolist() == [0, 10, 20, 20]
    assert middle[1:].tolist() == [10, 20, 30, 30]
    assert high[1:].tolist() == [20, 50, 50, 50]


@pytest.mark.parametrize("empty", [[], ()])
def test_a_search_that_found_nothing_leaves_no_band(empty):
    assert np.isnan(band([empty, [(0.0, 1.0)]], np.array([0.0, 1.0]))).all()
