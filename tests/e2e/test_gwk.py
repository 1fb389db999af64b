"""``python -m ajpq.compress --method gwk``: a file of codebooks that replays and verifies."""

import json
from pathlib import Path

import numpy as np
import pytest

from ajpq.packed import breakdown, load
from tests.e2e.commands import command


def distinct(codes, length):
    return len(np.unique(codes.reshape(-1, length), axis=0))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gwk")
    recipe = folder / "short.yaml"
    recipe.write_text(
        "name: short\n"
        "stages: [{mode: straight_through, method: {name: gwk, params: {words: 16}}, steps: 4}]\n"
        "calibration: {batchnorm_batches: 4, range_batches: 2}\n"
    )
    done = folder / "run"
    tiny = Path(__file__).with_name("tiny_compress.yaml")
    options = ("--method", "gwk", "--recipe", recipe, "--config", tiny, "--run-dir", done)
    outcome = command("compress", *options)
    assert outcome.returncode == 0, outcome.stderr
    return done


def test_a_run_leaves_a_file_of_codebooks_and_replays(run, tmp_path):
    outcome = command("export", run, "--format", "packed", "--verify", "--out", tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    (path,) = tmp_path.glob("*.ajpq")
    network = load(path)
    inner = network.layers[1:-1]
    lengths = {op.name: 9 if op.weights.codes[0, 0].size == 9 else 4 for op in inner}
    assert all(distinct(op.weights.codes, lengths[op.name]) <= 16 for op in inner)
    sizes = {layer.name: layer for layer in breakdown(path).layers}
    assert all(sizes[op.name].numbers and not sizes[op.name].codes for op in inner)
    assert not sizes[network.layers[0].name].numbers
    result = json.loads((run / "result.json").read_text())
    assert result["found"]["packed_bytes"] == path.stat().st_size
    for options in ((), ("--retrain",)):
        outcome = command("replay", run, *options)
        assert outcome.returncode == 0, outcome.stderr
