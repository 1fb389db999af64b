"""What a search may ask is counted in candidates and images."""

import numpy as np
import pytest

from agents.trials import SearchOver, Trials
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.policy import LayerPolicy
from ajpq.proposals import candidate_cost, scales
from tests.envs.toy import joint_toy, toy_task


def trials_of(**limits):
    return Trials(
        judge=lambda task, policy: task.assess(policy), cost=lambda metrics: 100, **limits
    )


def asked(trials, task, levels):
    """How many settings of the first layer get an answer."""
    count = 0
    for level in levels:
        try:
            trials.metrics(task, task.policy(np.array([[level], [0.5], [0.5]])))
        except SearchOver:
            break
        count += 1
    return count


DIFFERENT = (0.0, 0.75, 0.9, 1.0)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 4),
        ({"most_candidates": 3}, 3),
        ({"most_candidates": 2.9}, 2),
        ({"most_images": 250}, 3),
        ({"in_time": lambda: False}, 0),
    ],
)
def test_nothing_is_answered_beyond_the_limits(limits, expected):
    assert asked(trials_of(**limits), toy_task(), DIFFERENT) == expected


def test_equal_policies_are_candidates_each_and_shown_images_once():
    trials = trials_of()
    assert asked(trials, toy_task(), (1.0, 1.0, 0.0)) == 3
    assert (trials.candidates, trials.images) == (3, 200)


def test_sensitivities_are_paid_for():
    trials = trials_of(most_images=250)
    trials.charge(160)
    assert asked(trials, toy_task(), DIFFERENT) == 1


def test_parts_share_what_is_left_and_are_counted_in_the_whole():
    whole, task = trials_of(most_candidates=9), toy_task()
    assert asked(whole, task, (0.0,)) == 1
    assert [asked(whole.part(1 / n), task, DIFFERENT * 3) for n in (4, 3, 2, 1)] == [2, 2, 2, 2]
    assert whole.candidates == 9
    assert whole.over


def test_a_candidate_costs_what_it_is_shown_and_three_times_what_it_is_trained_on():
    task = toy_task()
    metrics = task.assess(task.policy(task.prior)).model_copy(update={"images": 256})
    direct = Recipe(
        name="direct", calibration=Calibration(batchnorm_batches=4, range_batches=2, batch_size=32)
    )
    assert candidate_cost(direct, 1000, metrics) == 128 + 256
    steps = Stage(mode="psg", steps=10, batch_size=20)
    epochs = Stage(mode="psg", epochs=2, batch_size=100)
    trained = direct.model_copy(update={"stages": (steps, epochs)})
    assert candidate_cost(trained, 1000, metrics) == 128 + 256 + 3 * (200 + 2000)


def test_budgets_lie_equal_factors_apart():
    assert scales(1.0, 3) == (1.0,)
    assert scales(4.0, 3) == pytest.approx((1.0, 2.0, 4.0))


def test_harms_are_paid_for_in_the_whole_too_and_end_with_the_images():
    whole, task = trials_of(most_images=250), joint_toy(harm_images=100)
    part = whole.part(0.8)
    narrow = {"layer0": LayerPolicy(weight_bits=(2,) * 4, activation_bits=32)}
    assert part.harm(task, narrow) == pytest.approx(1 / 16)
    assert part.harm(task, narrow) == pytest.approx(1 / 16)
    assert (part.images, whole.images) == (200, 200)
    with pytest.raises(SearchOver):
        part.harm(task, narrow)
    assert not whole.over
