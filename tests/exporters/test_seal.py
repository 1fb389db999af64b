"""Sealed files: the seal is what it says, and the files compute what they did before."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import onnx
import pytest
import torch
from tflite.Model import Model

from ajpq.exporters import EXPORTERS, formats_for
from ajpq.exporters.check import inspect
from ajpq.exporters.seal import seal, seal_of, sealed, unsealed
from ajpq.exporters.tflite_file import logit_range
from ajpq.exporters.verification import verify_files
from ajpq.exporters.verify import run_onnx, run_tflite
from ajpq.exporters.write import write_files
from ajpq.reference import simulate
from hw_models.errors import AjpqError
from hw_models.vela import Device, ask_vela
from tests.exporters.calibrated_builder import random_images
from tests.exporters.samples import POLICY, exported, small_network, source, written

STATEMENT = {"ajpq": "1.2.3", "policy": "0123456789abcdef", "top1_test": 91.5}
IMAGES = torch.from_numpy(random_images(60))
U55 = Device("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return {name: EXPORTERS[name](small_network(), POLICY, folder) for name in ("onnx", "tflite")}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A ``torch.export`` program and what it answers."""
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    images = torch.randn(2, 3, 2, 2)
    torch.export.save(torch.export.export(network, (images,)), path)
    return path, images, network(images)


def resealed(path, folder):
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    seal(copy, STATEMENT)
    return copy


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(name, sound, tmp_path):
    data = resealed(sound[name], tmp_path).read_bytes()
    (digits,) = re.findall(rb"ajpq-sha256:([0-9a-f]{64})", data)
    blank = data.replace(digits, b"0" * 64)
    assert len(blank) == len(data)
    assert hashlib.sha256(blank).hexdigest() == digits.decode() == seal_of(data)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_behind_the_seal_stands_the_file_as_it_was(name, sound, tmp_path):
    before, after = sound[name].read_bytes(), resealed(sound[name], tmp_path).read_bytes()
    assert after.endswith(before)
    assert len(after) < len(before) + 1200


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_seal_can_be_taken_away_again(name, tmp_path):
    path = written(name, tmp_path)
    before = path.read_bytes()
    assert unsealed(sealed(before, STATEMENT)) == unsealed(before) == before


def test_sealed_files_are_verified_like_others(tmp_path):
    """What a format promises of its file holds behind a seal, too."""
    known = formats_for(None, logit_range(simulate(small_network(), IMAGES)))
    files = write_files(source(), {name: own.export for name, own in known.items()}, tmp_path)
    labels = simulate(small_network(), IMAGES).argmax(1)
    named = dict(zip(known, files, strict=True))
    _, verdicts = verify_files(
        small_network(), POLICY, named, lambda: [(IMAGES, labels)], formats=known
    )
    assert {name: verdict.note for name, verdict in verdicts.items() if not verdict.ok} == {}


def test_a_tflite_file_of_any_length_can_be_sealed(sound, tmp_path):
    for more in range(1, 16):
        data = sound["tflite"].read_bytes() + bytes(range(more))
        assert unsealed(sealed(data, STATEMENT)) == data


def test_onnx_finds_the_statement_and_computes_the_same(sound, tmp_path):
    path = resealed(sound["onnx"], tmp_path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (entry,) = model.metadata_props
    assert entry.key == "ajpq"
    found = json.loads(entry.value)
    assert STATEMENT.items() <= found.items()
    del model.metadata_props[:]
    assert model == onnx.load(sound["onnx"])
    images = random_images(20)
    assert np.array_equal(run_onnx(path, [images]), run_onnx(sound["onnx"], [images]))


def test_tflite_finds_the_statement_and_computes_the_same(sound, tmp_path):
    path = resealed(sound["tflite"], tmp_path)
    model = Model.GetRootAs(path.read_bytes())
    (entry,) = (model.Metadata(number) for number in range(model.MetadataLength()))
    assert entry.Name() == b"ajpq"
    found = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    assert STATEMENT.items() <= found.items()
    images = random_images(20)
    assert np.array_equal(run_tflite(path, [images]), run_tflite(sound["tflite"], [images]))


def test_constants_stay_aligned(sound, tmp_path):
    data = resealed(sound["tflite"], tmp_path).read_bytes()
    model = Model.GetRootAs(data)
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    constants = [b.DataAsNumpy() for b in buffers[:-1] if b.DataLength()]
    base = np.frombuffer(data, np.uint8).ctypes.data
    assert len(constants) > 3
    assert {(array.ctypes.data - base) % 16 for array in constants} == {0}


def test_vela_compiles_the_sealed_file_to_the_same_figures(sound, tmp_path):
    path = resealed(sound["tflite"], tmp_path)
    before, after = (ask_vela(p.read_bytes(), U55) for p in (sound["tflite"], path))
    different = {
        key for key, value in after.model_dump().items() if value != before.model_dump()[key]
    }
    assert different <= {"compiled_bytes"}  # the compiler takes metadata along


def test_a_program_loads_and_computes_the_same(program, tmp_path):
    path, images, expected = program
    copy = resealed(path, tmp_path)
    assert torch.equal(torch.export.load(copy).module()(images), expected)
    found = inspect(copy)
    assert found.format == "torch.export program"
    assert found.stated["policy"] == STATEMENT["policy"]
    assert "seal" in found.integrity


@pytest.mark.parametrize("name", ["policy", "packed"])
def test_files_with_a_check_of_their_own_stay_as_they_are(name, tmp_path):
    path = EXPORTERS[name](small_network(), POLICY, tmp_path)
    before = path.read_bytes()
    assert sealed(before, STATEMENT) == before


def test_a_file_is_sealed_once(sound, tmp_path):
    path = resealed(sound["onnx"], tmp_path)
    with pytest.raises(AjpqError, match="sealed already"):
        seal(path, STATEMENT)


def test_every_format_says_who_made_it(tmp_path):
    for name in ("onnx", "tflite"):
        stated = inspect(exported(name, tmp_path / name)).stated
        assert stated["policy"] == POLICY.hash
        assert stated["network"] == "built"
        assert json.loads(stated["input"])["mean"] == [0.5, 0.5, 0.5]
