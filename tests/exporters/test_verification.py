"""Every format on small networks against the reference, and what is said of files that differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ajpq.exporters import FORMATS, formats_for
from ajpq.exporters.expected import Batches, Expected
from ajpq.exporters.tflite_file import logit_range
from ajpq.exporters.verification import record, verify_files
from ajpq.policy import uniform_policy
from ajpq.reference import simulate
from hw_models.errors import UnknownNameError
from hw_models.network import Network
from hw_models.registry import load_target
from tests.exporters.calibrated_builder import Builder, random_images

POLICY = uniform_policy({"any": 4}, 4)
IMAGES = torch.from_numpy(random_images(400))
MIXED = (2, 3, 4, 5, 8, 0)


def batches():
    """Two batches of different size; the labels are arbitrary."""
    labels = torch.arange(len(IMAGES)) % 10
    return [(IMAGES[:250], labels[:250]), (IMAGES[250:], labels[250:])]


def plain() -> Network:
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu", widths=MIXED)
    x = net.layer("conv", x, 13, activation="relu6", widths=MIXED, stride=(2, 2))
    return net.classifier(x, widths=(3, 8, 2))


def depthwise() -> Network:
    net = Builder()
    point = {"kernel": (1, 1), "padding": (0, 0)}
    x = net.layer("conv", "input", 9, activation="relu", widths=(4,))
    y = net.layer("conv", x, 9, groups=9, activation="relu", widths=MIXED)
    y = net.layer("conv", y, 9, widths=(2, 8, 5), **point)
    return net.classifier(net.add("add", (x, y), (9, 12, 12), activation="relu"), widths=(4,))


def grouped() -> Network:
    net = Builder()
    x = net.layer("conv", "input", 8, activation="relu", widths=(8, 2))
    x = net.layer("conv", x, 12, groups=4, activation="relu", widths=MIXED)
    x = net.layer("affine", x, 12, activation="relu")
    return net.classifier(x, widths=(2,))


def two_linear() -> Network:
    net = Builder()
    x = net.layer("conv", "input", 8, activation="relu", widths=(5, 3))
    x = net.add("globalavgpool", (x,), (8, 1, 1))
    x = net.move("flatten", (x,), (8,))
    x = net.layer("linear", x, 21, activation="relu", widths=MIXED)
    return net.network(net.layer("linear", x, 10, widths=(8, 4), bits=32))


NETWORKS = {own.__name__: own for own in (plain, depthwise, grouped, two_linear)}


def bound(network: Network, target=None) -> dict:
    """The formats, with the range of the logits on images of their own."""
    calibration = torch.from_numpy(random_images(300, seed=9))
    return formats_for(target, logit_range(simulate(network, calibration)))


def decided(network: Network) -> Batches:
    """Batches without the images whose two best classes are less than a code of 8 bits apart."""
    best, second = simulate(network, IMAGES).topk(2, 1).values.unbind(1)
    clear = best - second > 0.01 * best.abs().max()
    assert clear.float().mean() > 0.9
    labels = torch.arange(len(IMAGES)) % 10
    return lambda: [(IMAGES[clear], labels[clear])]


def written(network: Network, folder, names=tuple(FORMATS)) -> dict:
    known = bound(network)
    return {name: known[name].export(network, POLICY, folder) for name in names}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_file_gives_the_answers_of_the_reference(name, tmp_path):
    network = NETWORKS[name]()
    files = written(network, tmp_path)
    assert {path.name for path in files.values()} == {own.file for own in FORMATS.values()}
    steps = []
    expected, verdicts = verify_files(
        network,
        POLICY,
        files,
        decided(network),
        formats=bound(network),
        on_batch=lambda *step: steps.append(step),
    )
    assert {key: found.note for key, found in verdicts.items() if not found.ok} == {}
    assert steps[-1][1:] <= (steps[-1][2], steps[-1][2])
    assert [done for _, done, _ in steps] == sorted({done for _, done, _ in steps})
    for key in ("packed", "torch"):
        assert verdicts[key].agreement == 100
        assert verdicts[key].top1 == expected.top1
    for key in ("onnx", "onnx-blocked", "qonnx", "tflite"):
        assert verdicts[key].agreement >= 99.5
    assert verdicts["vela"].top1 is None
    assert "the accuracy is that of the tflite file" in verdicts["vela"].note


def test_a_file_of_another_network_is_found_out(tmp_path):
    network, other = plain(), plain()
    for op in other.layers:
        op.weights.codes[:] = -op.weights.codes
    files = written(other, tmp_path)
    FORMATS["policy"].export(other, uniform_policy({"any": 4}, 5), tmp_path)
    _, verdicts = verify_files(network, POLICY, files, batches)
    assert [key for key, found in verdicts.items() if found.ok] == []


def test_one_changed_bit_is_too_much_for_exact_formats_only(tmp_path):
    network, other = plain(), plain()
    other.layers[-1].weights.bias[0] += 1e-6
    files = written(other, tmp_path, ("packed", "torch", "onnx-blocked"))
    _, verdicts = verify_files(network, POLICY, files, batches)
    assert not verdicts["packed"].ok
    assert not verdicts["torch"].ok
    assert "from the bits" in verdicts["packed"].note
    assert verdicts["onnx-blocked"].ok


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_or_missing_file_has_a_verdict(name, tmp_path):
    network = plain()
    path = FORMATS[name].export(network, POLICY, tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    expected, verdicts = verify_files(network, POLICY, {name: path}, batches)
    assert not verdicts[name].ok
    assert len(verdicts[name].note.splitlines()) == 1
    path.unlink()
    expected, verdicts = verify_files(network, POLICY, {name: path}, batches)
    assert "no file" in verdicts[name].note
    assert record(expected, {name: path}, verdicts)["files"][name]["sha256"] is None


def test_bounds_are_those_of_the_rule():
    labels = np.zeros(1000, int)
    logits = np.tile([1.0, 0.0, -1.0], (1000, 1)).astype(np.float32)
    logits[0] = [-1.0, 1.0, 0.0]  # the reference errs once
    expected = Expected(None, POLICY, batches, logits, labels)
    assert expected.top1 == pytest.approx(99.9)

    def verdict(right, wrong, other):
        """So many answers become right, wrong, or wrong in another way."""
        found = logits.copy()
        found[0] = [1, 0, 0] if right else found[0]
        found[1 : 1 + wrong] = [0, 1, 0]
        found[0] = [0, 0, 1] if other else found[0]
        return expected.within_rounding(found, "")

    assert verdict(0, 0, 0).ok
    assert verdict(0, 1, 0).ok  # 0.1 points less
    assert verdict(1, 0, 0).ok
    assert not verdict(0, 2, 0).ok
    assert verdict(0, 0, 1).agreement == pytest.approx(99.9)
    assert not expected.bit_equal(np.nextafter(logits, np.float32(2)), "").ok


def test_agreement_counts_images_whatever_their_labels_are():
    logits = np.tile([1.0, 0.0, -1.0], (1000, 1)).astype(np.float32)
    expected = Expected(None, POLICY, batches, logits, np.full(1000, 2))
    found = logits.copy()
    found[:5] = [0, 1, 0]
    assert expected.within_rounding(found, "").ok
    found[5] = [0, 1, 0]
    assert not expected.within_rounding(found, "").ok


def test_unknown_formats_are_named():
    with pytest.raises(UnknownNameError, match="did you mean 'onnx-blocked'"):
        verify_files(plain(), POLICY, {"onnx_blocked": None}, batches)


def test_vela_compiles_for_the_target_if_it_is_an_ethos_u(tmp_path):
    network = plain()
    sizes = {}
    for target in ("edge-npu", "size-only", "ethos-u55-128"):
        own = formats_for(load_target(target))["vela"]
        path = own.export(network, POLICY, tmp_path)
        sizes[target] = path.read_bytes()
        _, verdicts = verify_files(
            network, POLICY, {"vela": path}, batches, formats=formats_for(load_target(target))
        )
        assert verdicts["vela"].ok
        named = "ethos-u55-128" if target == "ethos-u55-128" else "edge-npu"
        assert named in verdicts["vela"].note
    assert sizes["edge-npu"] == sizes["size-only"] != sizes["ethos-u55-128"]
    _, verdicts = verify_files(network, POLICY, {"vela": path}, batches)
    assert "not what the tflite file of this network compiles to" in verdicts["vela"].note


def test_narrow_activations_have_no_tflite_form_that_agrees(tmp_path):
    """The reference clips what narrow codes cannot hold, the int8 file does not."""
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu", bits=2, scale=0.1)
    network = net.classifier(x)
    files = written(network, tmp_path, ("tflite", "onnx", "onnx-blocked", "qonnx", "torch"))
    _, verdicts = verify_files(network, POLICY, files, batches)
    assert [key for key, found in verdicts.items() if not found.ok] == ["tflite"]


def test_verdicts_are_written_down_with_the_files(tmp_path):
    network = plain()
    files = written(network, tmp_path, ("packed", "policy"))
    expected, verdicts = verify_files(network, POLICY, files, batches)
    content = record(expected, files, verdicts)
    assert content["images"] == 400
    assert content["policy"] == POLICY.hash
    assert content["files"]["packed"]["bytes"] == files["packed"].stat().st_size
    assert content["files"]["packed"]["ok"] is True
    assert content["files"]["policy"]["top1"] is None
    worse = record(expected, files, {**verdicts, "packed": replace(verdicts["packed"], ok=False)})
    assert worse["files"]["packed"]["ok"] is False
