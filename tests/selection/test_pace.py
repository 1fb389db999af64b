"""How many workers pay: a decision on two figures."""

import time

import pytest

from ajpq.selection import pace
from ajpq.selection.executor import InProcess, thread_count
from ajpq.selection.pace import Plan, described, made_plan, soonest


@pytest.mark.parametrize(
    ("items", "workers", "together_s", "beside"),
    [
        (2, 2, 1.7, 2),  # two at once take less than one after the other
        (2, 2, 2.1, 0),
        (3, 2, 1.7, 2),  # the third would be alone on half of the cores
        (4, 2, 1.7, 4),
        (5, 4, 2.0, 4),
        (7, 4, 2.0, 7),
        (3, 2, 0.9, 3),
        (1, 4, 1.0, 0),
    ],
)
def test_pieces_go_where_all_are_done_soonest(items, workers, together_s, beside):
    assert soonest(items, workers, 1.0, together_s) == beside


def sleepy(shared, item, report):
    time.sleep(0.01)


def test_what_was_asked_for_is_not_measured():
    assert made_plan(1, None, sleepy, [0, 1, 2], 1e9).beside == 0
    with thread_count(4):
        assert made_plan(2, None, sleepy, [0, 1, 2], 1e9) == Plan(2, 2, 3)
        assert made_plan(8, None, sleepy, [0, 1, 2], 1e9) == Plan(3, 1, 3)
        assert made_plan("auto", None, sleepy, [0], 1e9) == Plan(1, 4, 0)
    with thread_count(1):
        assert made_plan("auto", None, sleepy, [0, 1, 2], 1e9) == Plan(1, 1, 0)


def test_short_work_starts_no_processes():
    with thread_count(2):
        plan = made_plan("auto", None, sleepy, [0, 1], 10.0)
    assert (plan.workers, plan.threads, plan.beside, plan.together_s) == (1, 2, 0, None)
    assert 0.01 <= plan.alone_s < 10
    assert "too little work" in described(plan, 2)


def test_long_work_is_measured_both_ways():
    """Sleeping takes no core: side by side it is twice as fast."""
    with thread_count(2):
        plan = made_plan("auto", None, sleepy, [0, 1], pace.WORTH_MEASURING_S * 100)
    assert (plan.workers, plan.threads) == (2, 1)
    assert plan.together_s >= 0.01
    assert plan.beside == soonest(2, 2, plan.alone_s, plan.together_s)
    assert "2 at the same time" in described(plan, 2)


def test_threads_are_those_of_where_a_piece_is_done():
    with thread_count(4):
        assert [Plan(2, 2, 2).threads_of(place) for place in range(3)] == [2, 2, 4]


def test_a_sample_is_timed_when_everything_is_warm():
    times = []

    def work(shared, item, report):
        times.append(time.perf_counter())
        time.sleep(0.2 if len(times) == 1 else 0.001)

    assert pace.seconds_of(InProcess(None), work, [0]) < 0.15
    assert len(times) == 2
