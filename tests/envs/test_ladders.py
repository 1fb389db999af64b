"""What can be stepped down, and the path over a network and a device."""

import itertools

import numpy as np
import pytest

from ajpq.base import build_problem
from ajpq.policy import LayerPolicy, uniform_policy
from envs.actions import channel_bits, make_knobs
from envs.build import build_task, readers_together
from envs.digits_task import digits_config
from envs.ladders import differences, ladders, richest, rungs_near, settings_at


def test_every_rung_is_another_number_of_channels_or_another_width():
    knobs = make_knobs((0, 2, 4, 8), (4, 8), max_sparsity=0.75, fixed_bits=None, granularity=8)
    found = ladders(knobs, [32, 16], (0, 0), (0, 1), [True, True])
    kinds = [(ladder.layers, knobs.names[ladder.knob]) for ladder in found]
    assert kinds == [
        ((0, 1), "sparsity"),
        ((0,), "bits"),
        ((0,), "activation"),
        ((1,), "bits"),
        ((1,), "activation"),
    ]

    def bits(ladder, setting):
        values = {"sparsity": 0.0, "bits": 1.0, "spread": 0.0, "activation": 1.0}
        values[knobs.names[ladder.knob]] = setting
        row = np.array([values[name] for name in knobs.names])
        return channel_bits(np.arange(32.0), knobs, row, prunable=True)

    assert [int((bits(found[0], s) > 0).sum()) for s in found[0].settings] == [32, 24, 16, 8]
    assert [set(bits(found[1], s).tolist()) for s in found[1].settings] == [{8}, {4}, {2}]


@pytest.mark.parametrize(
    ("count", "block", "expected"),
    [
        (16, 1, [16, 14, 12, 10, 8, 6, 4]),
        (64, 8, [64, 56, 48, 40, 32, 24, 16]),
        (20, 8, [20, 16, 8]),
        (40, 16, [40, 32, 16]),
        (100, 8, [100, 96, 80, 64, 48, 32, 24]),
        (10, 1, [10, 8, 6, 4, 3]),
        (8, 8, [8]),
    ],
)
def test_channels_go_in_blocks_as_far_as_the_knob(count, block, expected):
    knobs = make_knobs((0, 8), (8,), max_sparsity=0.75, fixed_bits=None, granularity=block)
    found = ladders(knobs, [count], (0,), (0,), [True])
    settings = found[0].settings if found else (0.0,)
    live = [
        int((channel_bits(np.arange(float(count)), knobs, np.array([s]), True) > 0).sum())
        for s in settings
    ]
    assert live == expected


def test_what_cannot_be_pruned_or_has_one_width_has_no_ladder():
    knobs = make_knobs((0, 4), (8,), max_sparsity=0.5, fixed_bits=None)
    assert ladders(knobs, [8, 8], (0, 1), (0, 1), [False, False]) == []


def test_positions_and_settings_are_told_from_each_other():
    knobs = make_knobs((0, 2, 4, 8), (4, 8), max_sparsity=0.75, fixed_bits=None)
    found = ladders(knobs, [8, 8], (0, 0), (0, 1), [True, True])
    top = (0,) * len(found)
    assert np.array_equal(settings_at(knobs, 2, found, top), richest(knobs, 2))
    assert richest(knobs, 2).tolist() == [[0.25, 1.0, 0.0, 1.0]] * 2
    rungs = (2, 1, 0, 2, 1)
    assert rungs_near(found, settings_at(knobs, 2, found, rungs) + 0.01) == rungs


def test_differences_leave_real_what_did_not_change():
    whole = uniform_policy({"a": 3, "b": 2, "c": 2}, 8, 8)
    changed = whole.model_copy(
        update={
            "layers": {
                **whole.layers,
                "a": LayerPolicy(weight_bits=(0, 8, 4), activation_bits=8),
                "b": LayerPolicy(weight_bits=(8, 8), activation_bits=4),
            }
        }
    )
    assert differences(whole, changed) == {
        "a": LayerPolicy(weight_bits=(0, 32, 4), activation_bits=32),
        "b": LayerPolicy(weight_bits=(32, 32), activation_bits=4),
    }


@pytest.fixture(scope="module")
def problem():
    return build_problem(digits_config().model_copy(update={"target": "bismo"}))


def test_layers_that_read_the_residual_stream_narrow_it_together(problem):
    """A shortcut that is a convolution of its own starts a new stream."""
    names = list(problem.channels)
    streams = {}
    for name, leader in zip(names, readers_together(problem), strict=True):
        streams.setdefault(leader, set()).add(name)
    assert {frozenset(stream) for stream in streams.values() if len(stream) > 1} == {
        frozenset({"block1.conv1", "block2.conv1", "block2.shortcut"}),
        frozenset({"block3.conv1", "block3.shortcut"}),
    }


def test_the_path_of_a_search_gets_cheaper_step_by_step_down_from_8_bits(problem):
    config = digits_config().model_copy(
        update={"target": "bismo", "size_ratio": None, "max_drop": 2.0}
    )
    task = build_task(config, problem, lambda policy, budget: None)
    costs = [task.budget.cost(task.price(task.policy(settings))) for settings in task.path]
    assert all(later < earlier for earlier, later in itertools.pairwise(costs))
    assert costs[-1] < 0.5 * costs[0]
    first = task.policy(task.path[0])
    assert first.layers == problem.uniform(8).layers
    widths = {layer.weight_bits for layer in task.policy(task.path[-1]).layers.values()}
    assert all(len(set(bits) - {0}) == 1 for bits in widths)  # a layer of one width is one product


def test_without_a_bound_on_accuracy_there_is_no_path(problem):
    config = digits_config().model_copy(update={"target": "bismo"})
    assert build_task(config, problem, lambda policy, budget: None).path == ()
