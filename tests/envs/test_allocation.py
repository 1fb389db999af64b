"""Widths are checked against all allocations there are."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.allocation import (
    KernelTable,
    error_of,
    even_shares,
    shares_for,
    weighted,
    widths_with_mean,
)

WIDTHS = np.array([2, 3, 4])


def table_of(seed, channels=4, convex=True):
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.1, 3, (channels, len(WIDTHS) - 1))
    saved = -np.sort(-steps, axis=1) if convex else steps
    errors = np.cumsum(np.concatenate([np.zeros((channels, 1)), -saved], axis=1), axis=1)
    stored = np.tile(9.0 * WIDTHS, (channels, 1))
    return KernelTable(WIDTHS, errors - errors.min() + 0.1, stored)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), spent=st.integers(0, 8))
def test_where_bits_buy_less_and_less_the_allocation_is_the_best_of_all(seed, spent):
    table = table_of(seed)
    mean = 2 + spent / 4
    live = np.ones(4, dtype=bool)
    found = widths_with_mean(table.ladder, live, mean)
    assert found.sum() == 8 + spent
    best = min(
        error_of(table, np.array(widths))
        for widths in itertools.product(WIDTHS, repeat=4)
        if sum(widths) <= 8 + spent
    )
    assert error_of(table, found) == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), mean=st.floats(2, 4))
def test_any_table_keeps_the_mean_and_widens_with_it(seed, mean):
    table = table_of(seed, convex=False)
    live = np.array([True, False, True, True])
    found = table.ladder
    widths = widths_with_mean(found, live, mean)
    assert widths[1] == 0
    assert set(widths[live]) <= set(WIDTHS.tolist())
    assert widths.sum() <= 3 * mean + 1e-6
    wider = widths_with_mean(found, live, min(mean + 0.5, 4))
    assert (wider >= widths).all()


def test_ends_are_the_narrowest_and_the_widest():
    table = table_of(0)
    found, live = table.ladder, np.ones(4, dtype=bool)
    assert widths_with_mean(found, live, 2.0).tolist() == [2] * 4
    assert widths_with_mean(found, live, 4.0).tolist() == [4] * 4


def test_a_channel_that_matters_more_gets_more():
    table = table_of(3)
    live = np.ones(4, dtype=bool)
    before = widths_with_mean(table.ladder, live, 3.0)
    for channel in range(4):
        shares = np.zeros(4)
        shares[channel] = 10.0
        assert (
            widths_with_mean(weighted(table.ladder, shares), live, 3.0)[channel]
            == 4
            >= before[channel]
        )


def test_useless_widths_are_never_bought():
    stored = np.array([[10.0, 20.0, 30.0]])
    errors = np.array([[1.0, 1.2, 0.5]])
    found = KernelTable(WIDTHS, errors, stored).ladder
    assert found.gains.tolist() == [2]
    assert even_shares([KernelTable(WIDTHS, errors, stored)])[0].tolist() == [0.0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    widths=st.lists(st.sampled_from([0, 2, 3, 4]), min_size=4, max_size=4).filter(any),
    price=st.floats(-8, 2),
)
def test_shares_for_widths_buy_just_these(seed, widths, price):
    table, widths = table_of(seed), np.array(widths)
    live, near = widths > 0, np.random.default_rng(seed).normal(size=4)
    shares = shares_for(table, widths, near, price)
    ladder = weighted(table.ladder, shares)
    assert (widths_with_mean(ladder, live, widths[live].mean()) == widths).all()
    # At that price, as a whole network pays it, and not only by their order.
    for channel in np.flatnonzero(live):
        own = (ladder.channels == channel) & (ladder.worth >= np.exp(price))
        assert 2 + ladder.gains[own].sum() == widths[channel]
    assert (shares[~live] == near[~live]).all()
    again = shares_for(table, widths, shares, price)
    assert again == pytest.approx(shares)


def test_shares_that_buy_the_widths_already_stay():
    table = table_of(5)
    near = np.array([0.3, -0.2, 0.0, 0.1])
    price = float(np.log(np.median(table.ladder.worth)))
    ladder = weighted(table.ladder, near)
    margin = np.abs(np.log(ladder.worth) - price).min()
    assert margin > 2e-3
    bought = ladder.worth >= np.exp(price)
    widths = 2 + np.array([ladder.gains[bought & (ladder.channels == c)].sum() for c in range(4)])
    assert shares_for(table, widths, near, price).tolist() == near.tolist()
