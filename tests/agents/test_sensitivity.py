"""The table of single changes: what it holds, what it costs."""

import dataclasses

import numpy as np
import pytest

from agents.sensitivity import measure_sensitivities, sparsity_setting
from agents.trials import SearchOver, Trials
from envs.actions import live_channels
from tests.envs.toy import joint_toy, layer_harm


def trials(**limits):
    return Trials(judge=lambda task, policy: task.assess(policy), cost=lambda metrics: 0, **limits)


def test_it_holds_the_harm_of_single_changes():
    table = measure_sensitivities(joint_toy(), trials(), sparsity_levels=3)
    assert table.widths.tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert table.levels == pytest.approx([0.25, 0.5, 0.75])
    assert table.groups.tolist() == [0, 1, 2, 3]
    for layer in range(4):
        widths = [layer_harm(layer, np.full(4, width)) for width in table.widths]
        assert table.kl[layer] == pytest.approx(widths)
        pruned = [layer_harm(layer, np.array([0] * n + [32] * (4 - n))) for n in (1, 2, 3)]
        assert table.kl_pruned[layer] == pytest.approx(pruned)


def test_layers_pruned_together_are_one_group_and_logits_in_none():
    task = joint_toy(leaders=(0, 1, 0, 3), unprunable=frozenset({"layer3"}))
    table = measure_sensitivities(task, trials(), sparsity_levels=1)
    assert table.groups.tolist() == [0, 1]
    alone = np.array([0, 0, 0, 32])
    together = layer_harm(0, alone) + layer_harm(2, alone)
    assert table.kl_pruned[0] == pytest.approx([together])


def test_a_target_without_pruned_channels_has_no_levels():
    table = measure_sensitivities(joint_toy(max_sparsity=0.0), trials())
    assert (table.groups.size, table.levels.size, table.kl_pruned.shape) == (0, 0, (0, 0))
    assert table.kl.shape == (4, 7)


def test_equal_changes_are_paid_for_once():
    """Four levels of four channels, up to three of them: the first prunes nothing."""
    asked = []
    task = joint_toy(harm_images=10)
    task = dataclasses.replace(task, harm=lambda changes: asked.append(changes) or 0.5)
    paid = trials()
    table = measure_sensitivities(task, paid, sparsity_levels=4)
    assert len(asked) == 4 * 7 + 4 * 3
    assert paid.images == 10 * len(asked)
    assert table.kl_pruned[:, 0].tolist() == [0.0] * 4


def test_it_stops_when_the_images_are_used_up():
    paid = trials(most_images=95)
    with pytest.raises(SearchOver):
        measure_sensitivities(joint_toy(harm_images=10), paid)
    assert paid.images == 100


def test_levels_are_shares_of_channels():
    knobs = joint_toy(max_sparsity=0.6).knobs
    live = [live_channels(100, knobs, sparsity_setting(knobs, level)) for level in (0.0, 0.3, 0.6)]
    assert live == [100, 70, 40]
