"""From settings to widths: known answers and properties."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.policy import QuantizerSpec
from envs.actions import activation_width, channel_bits, decode, make_knobs, with_sparsity_of
from hw_models.errors import AjpqError

ALL = (0, 2, 3, 4, 5, 6, 7, 8, 32)
unit = st.floats(0, 1)


def knobs(weight_bits=ALL, activation_bits=(8,), max_sparsity=0.5, fixed_bits=None, granularity=1):
    return make_knobs(
        weight_bits,
        activation_bits,
        max_sparsity=max_sparsity,
        fixed_bits=fixed_bits,
        granularity=granularity,
    )


def test_the_least_important_channels_are_pruned():
    scores = np.array([5.0, 1.0, 4.0, 2.0])
    bits = channel_bits(scores, knobs(), np.array([1.0, 1.0, 0.0]), True)
    assert bits.tolist() == [8, 0, 8, 0]


def test_a_fractional_mean_is_met_by_two_neighbouring_widths():
    bits = channel_bits(np.arange(10.0), knobs(), np.array([0.0, (4.3 - 2) / 6, 0.0]), True)
    assert bits.tolist() == [4] * 7 + [5] * 3


@settings(max_examples=100, deadline=None)
@given(st.lists(unit, min_size=1, max_size=40), unit, unit, unit, st.sampled_from([4, 16, 64]))
def test_live_channels_share_widths_in_blocks_and_keep_their_mean(
    scores, sparsity, mean, spread, n
):
    values, scores = np.array([sparsity, mean, spread]), np.array(scores)
    plain = channel_bits(scores, knobs(), values, True)
    found = channel_bits(scores, dataclasses.replace(knobs(), width_block=n), values, True)
    live = plain > 0
    assert ((found > 0) == live).all()
    counts = [int((found == width).sum()) for width in set(found[live].tolist())]
    assert sum(count % n != 0 for count in counts) <= 1  # only the last block may be smaller
    assert len(counts) <= -(-int(live.sum()) // n)
    assert (np.diff(found[np.lexsort((scores, plain))]) >= 0).all()
    assert abs(found[live].mean() - plain[live].mean()) <= 0.5


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=40),
    unit,
    unit,
    unit,
    st.sampled_from([ALL, (0, 2, 4, 8), (0, 8), (2, 4)]),
    st.sampled_from([1, 8]),
)
def test_widths_are_offered_monotone_in_importance_and_leave_a_live_channel(
    scores, sparsity, mean, spread, offered, granularity
):
    chosen = knobs(weight_bits=offered, granularity=granularity)
    values = np.array({1: [sparsity], 3: [sparsity, mean, spread]}[len(chosen.names)])
    scores = np.array(scores)
    bits = channel_bits(scores, chosen, values, True)
    assert set(bits.tolist()) <= set(offered)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(bits[order]) >= 0).all()
    live = int((bits > 0).sum())
    assert live >= 1
    assert live == len(scores) or live % granularity == 0 or live < granularity


def test_settings_up_to_one_half_prune_nothing():
    for setting in (0.0, 0.25, 0.5):
        bits = channel_bits(np.arange(16.0), knobs(), np.array([setting, 0.5, 0.0]), True)
        assert (bits > 0).all()


def test_logits_are_never_pruned():
    assert (channel_bits(np.arange(4.0), knobs(), np.ones(3), False) > 0).all()


def test_fixed_precision_leaves_one_knob():
    chosen = knobs(fixed_bits=4)
    assert chosen.names == ("sparsity",)
    bits = channel_bits(np.arange(8.0), chosen, np.array([1.0]), True)
    assert bits.tolist() == [0] * 4 + [4] * 4


def test_activation_widths_follow_the_target():
    chosen = knobs(activation_bits=(2, 4, 8, 32))
    assert chosen.names[-1] == "activation"
    assert activation_width(chosen, np.array([0, 0, 0, 0.0])) == 2
    assert activation_width(chosen, np.array([0, 0, 0, 1.0])) == 8
    assert activation_width(knobs(), np.array([0, 0, 0.0])) == 8


def test_a_target_with_real_activations_only_keeps_them_real():
    chosen = knobs(activation_bits=(32,))
    assert "activation" not in chosen.names
    assert activation_width(chosen, np.zeros(3)) == 32


def test_followers_take_the_sparsity_of_their_leader():
    scores = {"a": np.arange(4.0), "b": np.arange(4.0), "c": np.arange(4.0)}
    actions = np.array([[1.0, 1.0, 0], [0.0, 0.0, 0], [0.0, 0.5, 0]])
    policy = decode(actions, scores, (0, 1, 0), frozenset(), knobs(), QuantizerSpec())
    assert [policy.layers[name].sparsity for name in "abc"] == [0.5, 0.0, 0.5]
    assert policy.layers["c"].weight_bits[-1] == 5


def test_a_policy_is_made_of_its_layers_one_by_one():
    rng = np.random.default_rng(0)
    channels = {"a": 4, "b": 9, "c": 4, "d": 7}
    scores = {name: rng.normal(size=count) for name, count in channels.items()}
    leaders, own = (0, 1, 0, 3), knobs(activation_bits=(4, 8))
    for actions in rng.uniform(size=(20, 4, len(own.names))):
        policy = decode(actions, scores, leaders, frozenset("d"), own, QuantizerSpec())
        for index, (name, layer) in enumerate(policy.layers.items()):
            values = with_sparsity_of(actions[index], actions[leaders[index]])
            bits = channel_bits(scores[name], own, values, name != "d")
            assert layer.weight_bits == tuple(bits)
            assert layer.activation_bits == activation_width(own, values)


def test_a_width_that_the_target_lacks_is_refused():
    with pytest.raises(AjpqError, match="--fixed-bits 3"):
        knobs(weight_bits=(0, 4, 8), fixed_bits=3)
