"""``python -m ajpq.compress``: a run without a search, like any other run."""

import json
from pathlib import Path

import pytest

from ajpq.policy import load_policy
from tests.e2e.commands import command, start_and_kill

TINY = str(Path(__file__).with_name("tiny_compress.yaml"))


def compress(run_dir, *arguments):
    return command("compress", "--config", TINY, "--run-dir", run_dir, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("compress") / "run"
    outcome = compress(run)
    assert outcome.returncode == 0, outcome.stderr
    return run


def test_every_kernel_has_the_width_and_both_modes_are_measured(finished):
    layers = list(load_policy(finished / "policy.json").layers.values())
    assert [set(layer.weight_bits) for layer in layers] == [{8}, *[{4}] * (len(layers) - 2), {8}]
    assert {layer.activation_bits for layer in layers} == {8}
    result = json.loads((finished / "result.json").read_text())
    assert result["found"]["top1_test_full_precision"] > 50
    assert result["found"]["packed_bytes"] < result["baseline"]["packed_bytes"] / 5
    assert (finished / "report.html").exists()


def test_weights_that_are_not_trained_are_as_accurate_as_before_at_full_precision(tmp_path):
    run = tmp_path / "run"
    outcome = compress(run, "--recipe", "direct")
    assert outcome.returncode == 0, outcome.stderr
    result = json.loads((run / "result.json").read_text())
    baseline, found = result["baseline"], result["found"]
    assert found["top1_test_full_precision"] == baseline["top1_test"]
    assert found["top1_test"] != baseline["top1_test"]


def test_it_replays_retrains_and_exports(finished, tmp_path):
    assert command("replay", finished).returncode == 0
    assert command("replay", finished, "--retrain").returncode == 0
    assert command("export", finished, "--format", "packed", "--out", tmp_path).returncode == 0


def test_resuming_a_finished_run_changes_nothing(finished):
    before = (finished / "result.json").read_bytes()
    outcome = compress(finished, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    assert (finished / "result.json").read_bytes() == before


@pytest.mark.parametrize("moment", ["*.part", "*.safetensors"])
def test_a_killed_compression_resumes_to_the_same_result(finished, tmp_path, moment):
    """Killed in the middle of the fine-tuning, or right after it."""
    run = tmp_path / "run"
    start_and_kill("compress", TINY, run, lambda run: any((run / "checkpoints").glob(moment)))
    outcome = compress(run, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    for name in ("policy.json", "weights.safetensors"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()


def test_the_papers_recipe_on_another_network_and_other_data(tmp_path):
    """4 bits per tensor everywhere, real activations; cut short, from a given checkpoint."""
    (tmp_path / "mine.py").write_text(
        "from ajpq.models.resnet_cifar import CifarResNet, projection_shortcut\n"
        "def net(in_channels, classes):\n"
        "    return CifarResNet(1, in_channels, classes, shortcut=projection_shortcut)\n"
    )
    model = f"{tmp_path / 'mine.py'}:net"
    (tmp_path / "short.yaml").write_text("stages: [{mode: psg, steps: 2}]\n")
    (tmp_path / "base.yaml").write_text("stages: [{mode: float, epochs: 1}]\n")
    options = ("--data", "digits", "--model", model, "--recipe", tmp_path / "short.yaml")
    config = Path("configs/experiments/psg-cifar100.yaml")
    text = (Path(__file__).parents[2] / config).read_text()
    (tmp_path / "paper.yaml").write_text(
        text.replace("base: psg-cifar100-base", f"base: {tmp_path / 'base.yaml'}")
    )
    paper = ("--config", tmp_path / "paper.yaml", *options)
    first = command("compress", *paper, "--run-dir", tmp_path / "one")
    assert first.returncode == 0, first.stderr
    base = tmp_path / "given.safetensors"
    base.write_bytes((tmp_path / "one" / "base.safetensors").read_bytes())
    again = command(
        "compress", *paper, "--checkpoint", base, "--run-dir", tmp_path / "two", "--seed", "0"
    )
    assert again.returncode == 0, again.stderr
    one, two = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("one", "two"))
    assert one["found"] == two["found"]
    out = tmp_path / "out"
    assert command("export", tmp_path / "two", "--format", "policy", "--out", out).returncode == 0
    assert "The original is the checkpoint `given.safetensors`" in (out / "README.md").read_text()
    policy = load_policy(tmp_path / "one" / "policy.json")
    assert {bits for layer in policy.layers.values() for bits in layer.weight_bits} == {4}
    assert {layer.activation_bits for layer in policy.layers.values()} == {32}
    assert policy.quantizer.params == {"scale": "minmax", "granularity": "tensor"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--weight-bits", "9"), "weight_bits: expected one of"),
        (("--weight-bits", "0"), "weight_bits: expected one of"),
        (("--target", "edge-npu", "--activation-bits", "4"), "activation widths (8,), got 4"),
        (("--recipe", "psg-digit"), "did you mean 'psg-digits'"),
        (("--config", "digits"), "is for python -m ajpq.search"),
        (("--resume",), "needs --run-dir"),
        (("--resume", "--run-dir", "nowhere"), "repeat the first command, without --resume"),
    ],
)
def test_unusable_options_are_one_line(tmp_path, arguments, expected):
    config = () if {"--config", "--resume"} & set(arguments) else ("--config", TINY)
    run = () if "--resume" in arguments else ("--run-dir", tmp_path / "run")
    outcome = command("compress", *config, *run, *arguments)
    assert outcome.returncode == 2
    assert expected in outcome.stderr
    assert not (tmp_path / "run").exists()


def test_a_search_does_not_resume_a_compression(finished):
    outcome = command("search", "--run-dir", finished, "--resume")
    assert outcome.returncode == 2
    assert "is for python -m ajpq.compress" in outcome.stderr
