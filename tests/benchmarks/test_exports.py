"""The networks and policies whose exported files are checked, and how the outcome is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ajpq.config.schema import SearchConfig
from ajpq.data import load_data
from ajpq.exporters.expected import Expected, Verdict
from ajpq.graph.legality import check_legal
from ajpq.graph.structure import layers
from ajpq.packed import pack
from ajpq.policy import uniform_policy
from benchmarks import exports, host_latency, subjects
from benchmarks.exports import EXACT, ROUNDED, Checked
from benchmarks.timing import interleaved
from hw_models.network import Edge, Network


@pytest.fixture(scope="module")
def problem():
    """The network as a user might write it, untrained, on digits."""
    from ajpq.base import build_problem
    from ajpq.config.files import load_search_config
    from ajpq.finetune.recipe import Recipe, Stage

    brief = Recipe(name="brief", stages=(Stage(mode="float", steps=2),))
    config: SearchConfig = load_search_config(
        "digits", {"model": "benchmarks.own_network:network", "target": "size-only", "base": brief}
    )
    return build_problem(config)


def test_a_quarter_of_the_channels_goes_together_wherever_channels_can_go(problem):
    policy = subjects.mixed(problem)
    pruned = {name: own.bits == 0 for name, own in policy.layers.items()}
    check_legal(problem.graph, pruned)
    *inner, last = layers(problem.graph)
    assert {pruned[layer.name].mean() for layer in inner} == {0.25}
    assert not pruned[last.name].any()
    # The stem, the block's end and nothing else make the first residual stream.
    assert (pruned["0.0"] == pruned["2.mix.0"]).all()
    living = {bits for own in policy.layers.values() for bits in own.weight_bits} - {0}
    assert living == set(subjects.WIDTHS)


def test_more_important_channels_get_no_fewer_bits(problem):
    policy = subjects.mixed(problem)
    for name, own in policy.layers.items():
        bits = own.bits[np.argsort(problem.scores[name], kind="stable")]
        assert (np.diff(bits[bits > 0]) >= 0).all()


def test_resized_images_keep_labels_and_brightness(monkeypatch):
    digits = load_data("digits")
    monkeypatch.setattr(subjects, "load_data", lambda name: digits)
    larger = subjects.resized_cifar10(16)
    assert larger.image_shape == (1, 16, 16)
    assert larger.train_images.dtype == np.uint8
    assert (larger.test_labels == digits.test_labels).all()
    means = [own.astype(float).mean((1, 2, 3)) for own in (larger.test_images, digits.test_images)]
    assert np.abs(means[0] - means[1]).max() < 4


def test_interleaved_tells_fast_from_slow():
    small, large = torch.randn(32, 32), torch.randn(1024, 1024)
    found = interleaved({"fast": lambda: small @ small, "slow": lambda: large @ large})
    assert 0 < found["fast"] < found["slow"]


def outcome(tmp_path: Path, unshrunk_equal: bool = True, **own: Verdict) -> Checked:
    """Files that answer as the reference does, but for those given."""
    network = Network("any", "x", "x", {"x": Edge("x", (2,))}, ())
    expected = Expected(
        network,
        uniform_policy({"any": 4}, 4),
        lambda: (),
        logits=np.eye(2, dtype=np.float32),
        labels=np.array([0, 1]),
    )
    verdicts = {name: Verdict(True, "run", 100.0, 100.0) for name in (*EXACT, *ROUNDED)}
    verdicts |= {name.replace("_", "-"): verdict for name, verdict in own.items()}
    files = {name: tmp_path / name for name in verdicts}
    for file in files.values():
        file.write_bytes(b"12345")
    files["packed"].write_bytes(pack(network))
    return Checked("net", files, expected, verdicts, unshrunk_equal, {"onnx": 0.002})


def test_rows_tell_bytes_and_milliseconds(tmp_path):
    rows = {row["format"]: row for row in exports.rows_of(outcome(tmp_path))}
    assert rows["onnx"]["bytes"] == 5
    assert rows["onnx"]["host_ms"] == 2.0
    assert rows["packed"]["host_ms"] is None


def test_bars_hold_only_where_every_network_keeps_its_promise(tmp_path):
    good = outcome(tmp_path)
    assert all(bar["holds"] for bar in exports.bars_of([good]).values())
    for bad, missed in (
        (outcome(tmp_path, unshrunk_equal=False), "networks_not_equal_bit_for_bit_at_most"),
        (
            outcome(tmp_path, packed=Verdict(False, "", 100.0, 100.0)),
            "networks_not_equal_bit_for_bit_at_most",
        ),
        (
            outcome(tmp_path, onnx_blocked=Verdict(False, "", 100.0, 99.4)),
            "onnx_blocked_agreement_percent_at_least",
        ),
        (
            outcome(tmp_path, tflite=Verdict(False, "", 99.8, 100.0)),
            "tflite_difference_points_at_most",
        ),
        (outcome(tmp_path, qonnx=Verdict(False, "no")), "qonnx_agreement_percent_at_least"),
    ):
        assert not exports.bars_of([good, bad])[missed]["holds"]


def test_the_compressed_file_is_compared_with_the_slowest_network():
    rows = [
        {"network": net, "file": file, "host_ms": ms}
        for net, times in (("a", (4, 3, 2, 1)), ("b", (4, 3, 2, 8)))
        for file, ms in zip(
            (host_latency.FLOAT, host_latency.RUNTIME, host_latency.INT8, host_latency.OURS),
            times,
            strict=True,
        )
    ]
    bars = host_latency.bars_of(rows)
    assert bars["times_faster_than_float32_at_least"]["value"] == 0.5
    assert not bars["times_faster_than_float32_at_least"]["holds"]
