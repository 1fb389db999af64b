"""Files of every version stay readable.

The JSON beside each file was written from the network in memory, not from the file; images and
logits are those of the reference simulation when the file was made.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from ajpq.packed import load, pack, unpack
from ajpq.reference import simulate
from hw_models.network import KINDS
from tests.packed.hostile import STRUCTURE, WIDTHS, sections_of
from tests.packed.test_container import assert_equal

FOLDER = Path(__file__).parent.parent / "golden"
VERSIONS = ["1", "2", "2_requantize"]


def golden(version):
    told = json.loads((FOLDER / f"packed_v{version}.json").read_text())
    return FOLDER / f"packed_v{version}.ajpq", told


def as_lists(value):
    return [as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def told_weights(weights):
    if weights is None:
        return None
    fields = ("codes", "scales", "bits", "bias")
    return {
        field: {"dtype": str(own.dtype), "values": own.tolist()}
        for field, own in ((field, getattr(weights, field)) for field in fields)
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_the_file_says_what_it_said_when_it_was_written(version):
    path, told = golden(version)
    network = load(path)
    assert path.read_bytes()[4] == int(version[0])
    assert [network.name, network.input, network.output] == [
        told[key] for key in ("name", "input", "output")
    ]
    assert told["edges"] == [
        [e.name, list(e.shape), e.bits, e.signed, e.scale] for e in network.edges.values()
    ]
    assert told["operators"] == [
        {
            "name": op.name,
            "kind": op.kind,
            "inputs": list(op.inputs),
            "output": op.output,
            "activation": op.activation,
            "attributes": {key: as_lists(value) for key, value in op.attributes.items()},
            "weights": told_weights(op.weights),
        }
        for op in network.operators
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_it_has_everything_and_still_gives_the_same_answers(version):
    path, told = golden(version)
    network = load(path)
    weights = [op.weights for op in network.operators if op.weights is not None]
    bits = set(np.concatenate([own.bits for own in weights]).tolist())
    later = {"requantize"} if version in ("1", "2") else set()
    assert {op.kind for op in network.operators} == KINDS - later
    assert bits == {0, 2, 3, 4, 5, 6, 7, 8, 32}
    assert any((own.scales < 0).any() for own in weights)
    logits = simulate(network, torch.tensor(told["images"]))
    # a layer with a row of real values accumulates in float64 and is rounded once
    torch.testing.assert_close(logits, torch.tensor(told["logits"]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_written_today_is_equal(version):
    network = load(golden(version)[0])
    assert_equal(unpack(pack(network)), network)


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_the_writer_of_today_writes_the_golden_files_of_its_version(version):
    """All bytes but those of zlib, whose implementations differ: they are compared unpacked."""
    path, _ = golden(version)
    expected, found = path.read_bytes(), pack(load(path))
    assert found == pack(load(path))
    assert found[:8] == expected[:8]
    assert unpacked_sections(found) == unpacked_sections(expected)


def unpacked_sections(data):
    return {
        kind: zlib.decompress(content) if kind in (STRUCTURE, WIDTHS) else content
        for kind, content in sections_of(data).items()
    }
