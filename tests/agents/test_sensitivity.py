"""The table of single changes: what it holds, what it costs."""

import dataclasses
import json

import numpy as np
import pytest

from agents.sensitivity import (
    load_sensitivities,
    measure_sensitivities,
    save_sensitivities,
    sparsity_setting,
)
from agents.trials import SearchOver, Trials
from envs.actions import live_channels
from hw_models.errors import AjpqError
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


def saved(folder, **settings):
    """The file of a measured table, as an object."""
    save_sensitivities(folder, measure_sensitivities(joint_toy(**settings), trials()))
    return json.loads((folder / "sensitivities.json").read_text())


def test_what_is_saved_comes_back(tmp_path):
    for sparsity in (0.75, 0.7, 0.0):
        task = joint_toy(max_sparsity=sparsity)
        wanted = measure_sensitivities(task, trials())
        save_sensitivities(tmp_path, wanted)
        found = load_sensitivities(tmp_path, task)
        for field in dataclasses.fields(wanted):
            own = getattr(found, field.name)
            assert np.array_equal(own, getattr(wanted, field.name)), field.name
            assert own.shape == getattr(wanted, field.name).shape


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("kl", lambda kl: [kl[0][:1], *kl[1:]], r"kl\.0: expected 7 values, got 1"),
        ("kl", lambda kl: [kl[0] + [0.5], *kl[1:]], r"kl\.0: expected 7 values, got 8"),
        ("kl", lambda kl: [[float("nan")] * 7, *kl[1:]], r"kl\.0\.0: .*finite.*, got nan"),
        ("kl", lambda kl: [[float("inf")] * 7, *kl[1:]], r"kl\.0\.0: .*finite.*, got inf"),
        ("kl", lambda kl: [[-4.0] * 7, *kl[1:]], r"kl\.0\.0: .*, got -4\.0"),
        ("kl", lambda kl: "many", r"kl: .*, got 'many'"),
        ("kl_pruned", lambda kl: kl[1:], "kl_pruned: expected 4 rows, got 3"),
        ("kl_pruned", lambda kl: [kl[0][1:], *kl[1:]], r"kl_pruned\.0: expected 4 values, got 3"),
        ("levels", lambda levels: [7.5] * 4, r"levels\.0: .*, got 7\.5"),
        ("levels", lambda levels: [-1.0] * 4, r"levels\.0: .*, got -1\.0"),
        ("levels", lambda levels: levels[::-1], r"levels: expected ascending ones, got \[0\.75"),
    ],
)
def test_a_damaged_file_is_refused_by_field_and_value(tmp_path, field, change, message):
    content = saved(tmp_path)
    content[field] = change(content[field])
    (tmp_path / "sensitivities.json").write_text(json.dumps(content))
    with pytest.raises(AjpqError, match=r"sensitivities\.json is damaged: .*" + message) as caught:
        load_sensitivities(tmp_path, joint_toy())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[" * 100_000, "nested"), (" " * (2**23 + 1), "bytes"), (b"\xff", "decode"), ("[]", "dict")],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "sensitivities.json").write_bytes(raw)
    with pytest.raises(AjpqError, match=f"is damaged: .*{message}"):
        load_sensitivities(tmp_path, joint_toy())


def test_sensitivities_to_other_sparsities_are_not_taken(tmp_path):
    for most in (0.75, 0.0):
        saved(tmp_path, max_sparsity=most)
        assert load_sensitivities(tmp_path, joint_toy(max_sparsity=0.5)) is None


def test_an_infinite_divergence_is_not_saved(tmp_path):
    table = measure_sensitivities(joint_toy(), trials())
    for name in ("kl", "kl_pruned"):
        endless = dataclasses.replace(table, **{name: getattr(table, name) + np.inf})
        save_sensitivities(tmp_path, endless)
        assert load_sensitivities(tmp_path, joint_toy()) is None
