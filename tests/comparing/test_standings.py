"""What a comparison says of its searches, on numbers that can be checked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajpq.comparing.standings import (
    Asked,
    Comparison,
    MeasuredPolicy,
    Outcome,
    Spread,
    best_within,
    front,
    hypervolume,
    reward_curve,
    spread,
    standings,
)

CELL = st.integers(0, 8)


@given(
    st.lists(st.tuples(CELL, CELL), max_size=10), st.tuples(st.integers(1, 8), st.integers(1, 8))
)
def test_hypervolume_counts_the_cells_that_a_point_is_better_than(points, reference):
    cells = sum(
        any(x <= column and y <= row for x, y in points)
        for column in range(reference[0])
        for row in range(reference[1])
    )
    assert hypervolume(points, reference) == pytest.approx(cells)


def test_a_policy_better_than_the_uncompressed_network_counts_beyond_zero():
    assert hypervolume([(-1.0, 0.25)], (20.0, 1.0)) == pytest.approx(21 * 0.75)


def policy(top1, ratio, within=(True,)):
    return MeasuredPolicy(
        hash=f"{top1}-{ratio}", top1=top1, drop=90 - top1, ratio=ratio, within=within
    )


def outcome(agent, seed, *policies, candidates=10, seconds=1.0, curve=((100.0, -0.1),)):
    return Outcome(
        agent=agent,
        seed=seed,
        candidates=candidates,
        images=1000,
        seconds=seconds,
        measured=policies,
        curve=curve,
    )


def comparison(*searches):
    return Comparison(
        model="resnet8",
        data="digits",
        target="bismo",
        budgets=({"size": 0.1}, {"size": 0.2}),
        images=1000,
        reference=(20.0, 1.0),
        baseline_top1=90.0,
        searches=searches,
        versions={},
    )


def test_a_row_holds_medians_over_seeds_and_the_extremes():
    both, wide = (True, True), (False, True)
    found = comparison(
        outcome("td3", 0, policy(80.0, 0.1, both), policy(85.0, 0.2, wide), candidates=10),
        outcome("random", 0, policy(70.0, 0.1, both)),
        outcome("td3", 1, policy(84.0, 0.1, both), candidates=30, seconds=9.0),
        outcome("random", 1, policy(90.0, 0.2, wide)),
        outcome("td3", 2, policy(82.0, 0.1, both), candidates=14, seconds=2.0),
        outcome("random", 2),
    )
    td3, random = standings(found)
    assert (td3.agent, td3.candidates, td3.seconds) == ("td3", 14, 2.0)
    assert td3.best_top1 == (Spread(82.0, 80.0, 84.0), Spread(84.0, 82.0, 85.0))
    volumes = 10 * 0.9 + 5 * 0.8, 14 * 0.9, 12 * 0.9
    assert td3.hypervolume.median == pytest.approx(volumes[1])
    assert td3.hypervolume.least == pytest.approx(volumes[2])
    assert td3.hypervolume.most == pytest.approx(volumes[0])
    # Only one of three seeds has anything within the tighter budget, and that one is all it has.
    assert random.best_top1 == (Spread(None, None, 70.0), Spread(70.0, None, 90.0))
    assert random.hypervolume.least == 0


def test_nothing_counts_as_less_than_anything():
    assert spread([None, 3.0, 1.0]) == Spread(1.0, None, 3.0)
    assert spread([None, 3.0]) == Spread(None, None, 3.0)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)


def test_the_front_is_what_a_ratio_buys():
    found = outcome("td3", 0, policy(80.0, 0.2), policy(70.0, 0.1), policy(79.0, 0.3))
    assert front(found) == [(0.1, 70.0), (0.2, 80.0)]


ASKED = [
    Asked("a", 100, (None, -0.3)),
    Asked("b", 200, (-0.6, -0.6)),
    Asked("a", 200, (None, -0.3)),
    Asked("c", 300, (-0.4, -0.4)),
    Asked("d", 400, (None, -0.1)),
    Asked("e", 500, (-0.5, -0.5)),
]


def test_the_best_few_within_each_budget_are_measured_each_once():
    assert best_within(ASKED, count=1) == ["c", "d"]
    assert best_within(ASKED, count=2) == ["c", "e", "d", "a"]
    assert best_within([], count=2) == []


def test_the_best_within_each_budget_between_is_measured_too():
    asked = [
        Asked("a", 100, (-0.1,), (-0.1, -0.1)),
        Asked("b", 200, (None,), (-0.2, -0.2)),
        Asked("c", 300, (None,), (None, -0.05)),
        Asked("d", 400, (-0.3,), (-0.3, -0.3)),
    ]
    assert best_within(asked, count=1) == ["a", "c"]
    assert best_within(asked, count=2) == ["a", "d", "c"]


def test_a_reward_curve_is_the_mean_over_budgets_from_where_all_have_one():
    steps = reward_curve(ASKED)
    assert [images for images, _ in steps] == [200, 300, 400]
    assert [reward for _, reward in steps] == pytest.approx([-0.45, -0.35, -0.25])
    assert reward_curve(ASKED[:1]) == []


rewards = st.none() | st.integers(-9, 0).map(float)


@given(st.lists(st.tuples(st.integers(1, 5), rewards, rewards), max_size=8))
def test_a_reward_curve_ends_at_the_mean_of_the_best(steps):
    images, asked = 0, []
    for number, (cost, *own) in enumerate(steps):
        images += cost
        asked.append(Asked(str(number), images, tuple(own)))
    best = [
        max((each.rewards[b] for each in asked if each.rewards[b] is not None), default=None)
        for b in (0, 1)
    ]
    curve = reward_curve(asked)
    if None in best:
        assert curve == []
    else:
        assert math.isclose(curve[-1][1], sum(best) / 2)
