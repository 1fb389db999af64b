"""``python -m ajpq.compress --method NAME``: runs like any other run."""

import json
from pathlib import Path

import pytest

from ajpq.policy import load_policy
from ajpq.runs.folder import load_config, load_weights
from tests.e2e.commands import command, start_and_kill

TINY = str(Path(__file__).with_name("tiny_compress.yaml"))
W3A3 = ("--weight-bits", "3", "--activation-bits", "3", "--epochs", "2")


def compress(run_dir, *arguments):
    return command("compress", "--config", TINY, "--run-dir", run_dir, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("methods") / "run"
    outcome = compress(run, "--method", "lsq", "--distill", *W3A3)
    assert outcome.returncode == 0, outcome.stderr
    return run


def test_a_run_says_what_it_did(finished):
    config = load_config(finished)
    assert (config.method, config.distill, config.epochs) == ("lsq", True, 2)
    layers = list(load_policy(finished / "policy.json").layers.values())
    assert [set(layer.weight_bits) for layer in layers] == [{8}, *[{3}] * (len(layers) - 2), {8}]
    result = json.loads((finished / "result.json").read_text())
    assert result["found"]["packed_bytes"] < result["baseline"]["packed_bytes"] / 8
    assert result["found"]["top1_test_full_precision"] is None
    assert (finished / "report.html").exists()


def test_it_replays_retrains_and_exports(finished, tmp_path):
    assert command("replay", finished).returncode == 0
    outcome = command("replay", finished, "--retrain")
    assert outcome.returncode == 0, outcome.stderr
    assert command("export", finished, "--format", "packed", "--out", tmp_path).returncode == 0


def test_a_killed_run_resumes_to_the_same_result_with_learned_steps(finished, tmp_path):
    run = tmp_path / "run"
    options = ("--method", "lsq", "--distill", *W3A3)
    start_and_kill(
        "compress", TINY, run, lambda run: any((run / "checkpoints").glob("*.part")), *options
    )
    outcome = command("compress", "--run-dir", run, "--resume")  # all settings are in the folder
    assert outcome.returncode == 0, outcome.stderr
    for name in ("policy.json", "weights.safetensors"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()


def test_channels_that_a_method_prunes_are_pruned_in_the_policy(tmp_path):
    run = tmp_path / "run"
    outcome = compress(run, "--method", "psg-channels", "--epochs", "1")
    assert outcome.returncode == 0, outcome.stderr
    policy = load_policy(run / "policy.json")
    widths = load_weights(run / "weights.safetensors").widths
    assert widths
    for name, own in widths.items():
        assert list(policy.layers[name].weight_bits) == own.tolist()
    assert 0 in {bits for layer in policy.layers.values() for bits in layer.weight_bits}
    assert command("replay", run).returncode == 0
    assert command("export", run, "--format", "packed", "--out", tmp_path).returncode == 0


def test_levels_off_a_grid_are_codes_of_eight_bits(tmp_path):
    run = tmp_path / "run"
    outcome = compress(run, "--method", "codeq-mixed", "--distill", "--epochs", "2")
    assert outcome.returncode == 0, outcome.stderr
    layers = list(load_policy(run / "policy.json").layers.values())
    assert {bits for layer in layers for bits in layer.weight_bits} <= {0, 2, 8}
    assert command("replay", run).returncode == 0
    outcome = command("replay", run, "--retrain")
    assert outcome.returncode == 0, outcome.stderr
    assert command("export", run, "--format", "packed", "--out", tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--method", "lqs"), "unknown method 'lqs'; did you mean 'lsq'"),
        (("--method", "lsq", "--epochs", "0"), "epochs: Input should be greater"),
        (("--method", "lsq", "--target", "edge-npu"), "activation widths (8,), got 4"),
    ],
)
def test_unusable_options_are_one_line(tmp_path, arguments, expected):
    outcome = compress(tmp_path / "run", *arguments)
    assert outcome.returncode == 2
    assert expected in outcome.stderr
    assert not (tmp_path / "run").exists()
