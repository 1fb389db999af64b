"""A search on a device whose answers are measurements with noise in them."""

import shutil

import pytest

from tests.e2e.commands import command, journal, search

NOISY = """
import random

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.network import row_macs


class Board(Target):
    name = "board"
    activation_bits = (8,)
    weight_bits = (0, 2, 3, 4, 5, 6, 7, 8)
    measured = True

    def cost(self, network):
        times = [1e-9 * row_macs(network, op) * len(op.weights.bits) for op in network.layers]
        times = [time * random.uniform(0.99, 1.01) for time in times]
        layers = tuple(LayerCost(op.name, time) for op, time in zip(network.layers, times))
        return NetworkCost(latency_s=sum(times) + 1e-6, per_layer=layers)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    (folder / "board.py").write_text(NOISY)
    run = folder / "run"
    outcome = search(run, "--target", f"{folder}/board.py:Board", "--latency-ratio", 0.8)
    assert outcome.returncode == 0, outcome.stderr
    return run, outcome.stdout


def test_measurements_come_first_and_a_fit_prices_the_candidates(finished):
    run, printed = finished
    kinds = [entry["kind"] for entry in journal(run)]
    assert kinds[:61] == ["measurement"] * 61
    assert kinds[61] == "fit"
    assert set(kinds[62:]) == {"candidate", "finalist"}
    fit = journal(run)[61]
    assert fit["spearman"] > 0.9
    assert fit["median"] < 0.1
    assert f"Spearman {fit['spearman']:.3f}" in printed


def test_a_resumed_search_measures_nothing_again(finished, tmp_path):
    """Another measurement would lead to other candidates, and the journal would not fit."""
    run, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for name in ("result.json", "policy.json", "weights.safetensors"):
        (copy / name).unlink()
    outcome = command("search", "--resume", "--run-dir", copy)
    assert outcome.returncode == 0, outcome.stderr
    assert (copy / "policy.json").read_text() == (run / "policy.json").read_text()
    assert (copy / "journal.jsonl").read_text() == (run / "journal.jsonl").read_text()


def test_a_replay_does_not_compare_what_is_never_the_same_twice(finished):
    outcome = command("replay", finished[0])
    assert outcome.returncode == 0, outcome.stderr
    assert "latency_s" not in outcome.stdout
