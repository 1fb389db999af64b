"""The registry of export formats, and the two formats that are not ONNX."""

from __future__ import annotations

import sys

import pytest
import torch

from ajpq.exporters import EXPORTERS
from ajpq.exporters.qonnx_file import run_qonnx
from ajpq.exporters.verify import run_onnx, run_tflite
from ajpq.packed import load
from ajpq.policy import load_policy, uniform_policy
from ajpq.reference import simulate
from hw_models.errors import AjpqError
from hw_models.network import Network
from tests.exporters.calibrated_builder import Builder, random_images

POLICY = uniform_policy({"conv": 4}, 4)


@pytest.fixture
def network() -> Network:
    net = Builder()
    return net.classifier(net.layer("conv", "input", 8, widths=(0, 3, 4), activation="relu"))


def test_policy(network, tmp_path):
    path = EXPORTERS["policy"](network, POLICY, tmp_path)
    assert load_policy(path) == POLICY


def test_packed_gives_the_same_logits(network, tmp_path):
    path = EXPORTERS["packed"](network, POLICY, tmp_path)
    images = torch.from_numpy(random_images(20))
    assert torch.equal(simulate(load(path), images), simulate(network, images))


def test_tflite_gives_logits_within_a_few_codes(network, tmp_path):
    path = EXPORTERS["tflite"](network, POLICY, tmp_path)
    images = random_images(20)
    found = run_tflite(path, [images[:8], images[8:]])
    expected = simulate(network, torch.from_numpy(images)).numpy()
    assert found.shape == expected.shape
    assert abs(found - expected).max() < 0.05 * abs(expected).max()


def test_all_formats_write_different_files_into_the_folder(network, tmp_path):
    paths = {write(network, POLICY, tmp_path) for write in EXPORTERS.values()}
    assert sorted(path.name for path in paths) == [
        "model.ajpq",
        "model.onnx",
        "model.pt2",
        "model.tflite",
        "model_blocked.onnx",
        "model_qonnx.onnx",
        "model_vela.tflite",
        "policy.json",
    ]
    assert all(path.parent == tmp_path for path in paths)


def test_missing_packages_are_named(network, tmp_path, monkeypatch):
    path = EXPORTERS["onnx"](network, POLICY, tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AjpqError, match="package onnx: pip install"):
        EXPORTERS["onnx"](network, POLICY, tmp_path)
    with pytest.raises(AjpqError, match="package onnxruntime: pip install"):
        run_onnx(path, [random_images(1)])
    monkeypatch.setitem(sys.modules, "qonnx.core.modelwrapper", None)
    with pytest.raises(AjpqError, match="package qonnx: pip install"):
        run_qonnx(path, [random_images(1)])
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(AjpqError, match="pip install ai-edge-litert"):
        run_tflite(path, [random_images(1)])
