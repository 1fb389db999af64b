"""The greedy path against the exhaustive optimum, and what it has to get right about devices."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.greedy import greedy_path, last_that_holds

ALONE = [[], [], []]


def separable(savings, harms):
    """Cost and harm of ladders that do not influence each other; each step's own share."""
    saved = [np.concatenate([[0.0], np.cumsum(steps)]) for steps in savings]
    done = [np.concatenate([[0.0], np.cumsum(steps)]) for steps in harms]

    def cost(rungs):
        return 100.0 - sum(saved[ladder][rung] for ladder, rung in enumerate(rungs))

    return cost, lambda ladder, rung: float(done[ladder][rung])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_with_falling_returns_no_position_is_cheaper_for_less_harm(seed):
    rng = np.random.default_rng(seed)
    efficiencies = -np.sort(-rng.uniform(0.1, 10, (3, 3)), axis=1)  # falling down each ladder
    harms = rng.uniform(0.1, 1, (3, 3))
    cost, harm = separable(efficiencies * harms, harms)
    path = greedy_path([4, 4, 4], ALONE, cost, harm, 100.0)

    def total(rungs):
        return sum(harm(ladder, rung) for ladder, rung in enumerate(rungs))

    assert path[0] == (0, 0, 0)
    assert path[-1] == (3, 3, 3)
    every = [(cost(rungs), total(rungs)) for rungs in itertools.product(range(4), repeat=3)]
    for rungs in path:
        assert not any(c < cost(rungs) - 1e-9 and h <= total(rungs) + 1e-9 for c, h in every)


def test_rungs_that_save_nothing_are_passed_over():
    cost, harm = separable([[0, 0, 5], [1, 1, 1], [0, 0, 0]], [[1, 1, 1], [1, 1, 1], [1, 1, 1]])
    path = greedy_path([4, 4, 4], ALONE, cost, harm, 100.0)
    assert path == [(0, 0, 0), (3, 0, 0), (3, 1, 0), (3, 2, 0), (3, 3, 0)]


def test_a_step_that_pays_only_after_another_is_found_through_their_relation():
    """Arithmetic as fast as the wider operand: narrow weights pay only with narrow inputs."""

    def cost(rungs):
        weights, inputs, other = rungs
        return 100 - weights - 50 * min(weights, inputs) - 2 * other

    path = greedy_path([2, 2, 2], [[1], [0], []], cost, lambda ladder, rung: float(rung), 100.0)
    assert path == [(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1)]


def test_it_ends_before_the_harm_gets_too_large():
    cost, harm = separable([[9, 9, 9], [5, 5, 5], [1, 1, 1]], [[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    assert greedy_path([4, 4, 4], ALONE, cost, harm, 5.5)[-1] == (3, 1, 0)


@given(st.integers(1, 300), st.data())
def test_the_border_is_where_a_scan_finds_it(count, data):
    last = data.draw(st.integers(0, count - 1))
    asked = []

    def holds(index):
        asked.append(index)
        return index <= last

    assert last_that_holds(count, holds, more=lambda: True) == last
    assert len(asked) <= 9
    assert 0 not in asked


def test_with_few_questions_the_border_is_one_that_was_seen_to_hold():
    asked = []

    def holds(index):
        asked.append(index)
        return index <= 60

    assert last_that_holds(100, holds, more=lambda: len(asked) < 2) == 50
    assert asked == [50, 75]
