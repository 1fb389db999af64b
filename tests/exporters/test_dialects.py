"""The blocked ONNX file and the QONNX file against the reference, operator by operator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from ajpq.exporters import EXPORTERS
from ajpq.exporters.qonnx_file import run_qonnx
from ajpq.exporters.verify import run_onnx
from ajpq.policy import uniform_policy
from ajpq.reference import simulate
from hw_models.network import Network
from hw_models.onnx.blocked import stored_widths
from tests.exporters.calibrated_builder import Builder, random_images

POLICY = uniform_policy({"any": 1}, 8)
IMAGES = random_images(300)
RUNNERS = {"onnx-blocked": run_onnx, "qonnx": run_qonnx}
POINT = {"kernel": (1, 1), "padding": (0, 0)}


@pytest.fixture(params=RUNNERS)
def agrees(request, tmp_path):
    """Equal classes nearly everywhere, and logits that differ in the last digits of float32."""

    def check(network: Network) -> None:
        path = EXPORTERS[request.param](network, POLICY, tmp_path)
        found = RUNNERS[request.param](path, [IMAGES[:100], IMAGES[100:]])
        expected = simulate(network, torch.from_numpy(IMAGES)).numpy()
        assert expected.std() > 0.01
        assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.995
        assert np.abs(found - expected).mean() < 0.001 * expected.std()

    return check


@pytest.mark.parametrize(
    "layer",
    [
        {"widths": (0, 2, 3, 4, 5, 6, 7, 8)},
        {"widths": (8, 2, 32, 4)},
        {"widths": (2,), "stride": (2, 1), "kernel": (3, 5), "padding": (0, 2)},
        {"widths": (3, 8), "groups": 4},
        {"widths": (2, 4), "dilation": (2, 2), "padding": (2, 2)},
    ],
    ids=str,
)
def test_convolutions(layer, agrees):
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu", widths=(8, 3))
    agrees(net.classifier(net.layer("conv", x, 16, activation="relu", **layer), widths=(4, 2)))


@pytest.mark.parametrize("function", ["relu6", "hardswish", "hardsigmoid", "sigmoid", "silu"])
def test_activations_and_narrow_edges(function, agrees):
    net = Builder()
    x = net.layer("conv", "input", 12, activation=function, bits=4, widths=(3,))
    x = net.layer("conv", x, 12, bits=6, widths=(2, 5))
    agrees(net.classifier(net.add("activation", (x,), (12, 12, 12), {"function": function})))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_layer_reads_fewer_bits_than_the_stream(bits, agrees):
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu", widths=(8, 3))
    entry = net.add("requantize", (x,), (12, 12, 12), bits=bits)
    y = net.layer("conv", entry, 12, widths=(2, 4, 8))
    agrees(net.classifier(net.add("add", (x, y), (12, 12, 12), activation="relu")))


def test_relu6_limits_the_codes(agrees):
    net = Builder()
    agrees(net.classifier(net.layer("conv", "input", 12, activation="relu6", scale=6 / 200)))


def test_shortcut_with_zero_channels_gate_and_concatenation(agrees):
    net = Builder()
    x = net.layer("conv", "input", 8, activation="relu", widths=(8, 2, 4))
    y = net.layer("conv", x, 16, stride=(2, 2), widths=(3, 4, 0))
    short = net.move("subsample", (x,), (8, 6, 6), stride=(2, 2))
    short = net.move("select", (short,), (16, 6, 6), index=(*[-1] * 4, *range(8), *[-1] * 4))
    x = net.add("add", (y, short), (16, 6, 6), activation="relu")
    gate = net.add("globalavgpool", (x,), (16, 1, 1))
    gate = net.layer("conv", gate, 16, activation="hardsigmoid", widths=(4,), **POINT)
    x = net.add("mul", (x, gate), (16, 6, 6))
    x = net.move("concat", (x, x), (32, 6, 6))
    agrees(net.classifier(net.move("select", (x,), (6, 6, 6), index=(30, -1, 7, 0, 3, 3))))


def test_pools_borders_and_vectors(agrees):
    net = Builder()
    x = net.layer("conv", "input", 8)
    x = net.move("pad", (x,), (8, 15, 13), padding=(0, 1, 2, 1))
    x = net.layer("affine", x, 8, activation="relu")
    window = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": False}
    x = net.move("maxpool", (x,), (8, 8, 7), **window)
    x = net.add("avgpool", (x,), (8, 4, 4), {**window, "count_include_pad": True})
    x = net.move("flatten", (x,), (128,))
    x = net.layer("linear", x, 20, widths=(2, 3, 8, 0))
    x = net.layer("affine", x, 20, activation="relu")
    agrees(net.network(net.layer("linear", x, 10, bits=32, widths=(4,))))


def test_negative_and_zero_scales_and_codes_without_a_mirror_image(agrees):
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu", widths=(2, 4, 8))
    op = net.operators[0]
    lowest = -(2.0 ** (op.weights.bits.astype(int) - 1))
    codes, scales = op.weights.codes.copy(), op.weights.scales.copy()
    codes[:, 0, 0, 0] = lowest  # -2 is a code of 2 bits, +2 is none
    scales[3] = 0
    net.operators[0] = replace(op, weights=replace(op.weights, codes=codes, scales=scales))
    agrees(net.classifier(x))


def mixed() -> Network:
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu", widths=(8, 2, 3, 5))
    x = net.layer("conv", x, 16, activation="relu", widths=(4, 0, 6, 2))
    return net.classifier(x, widths=(3,))


def test_rows_are_stored_in_the_smallest_type_that_holds_them(tmp_path):
    """Channels that nothing fixes are sorted, so only the logits may need a Gather."""
    network = mixed()
    model = onnx.load(EXPORTERS["onnx-blocked"](network, POLICY, tmp_path))
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 25}
    rows = {}
    for constant in model.graph.initializer:
        if len(constant.dims) > 1:
            rows[constant.data_type] = rows.get(constant.data_type, 0) + constant.dims[0]
            size = {TensorProto.INT2: 2, TensorProto.INT4: 4, TensorProto.INT8: 8}
            bits = np.prod(constant.dims) * size[constant.data_type]
            assert len(constant.raw_data) == -(-bits // 8)
    assert rows == {TensorProto.INT2: 3 + 8, TensorProto.INT4: 3 + 4 + 10, TensorProto.INT8: 6 + 4}
    axes = [
        node.attribute[0].i for node in model.graph.node if node.name.startswith("conv0::Dequant")
    ]
    assert axes == [0, 0, 0]
    assert "Gather" not in {node.op_type for node in model.graph.node}


def test_widths_that_onnx_stores():
    assert stored_widths(np.array([0, 2, 3, 4, 5, 7, 8, 32])).tolist() == [2, 2, 4, 4, 8, 8, 8, 32]


def test_qonnx_states_the_width_of_every_block_and_edge(tmp_path):
    network = mixed()
    model = onnx.load(EXPORTERS["qonnx"](network, POLICY, tmp_path))
    constants = {own.name: numpy_helper.to_array(own) for own in model.graph.initializer}
    stated = {}
    for node in model.graph.node:
        if node.op_type == "IntQuant":
            assert node.domain == "qonnx.custom_op.general"
            scale, zero, width = (constants[name] for name in node.input[1:])
            assert zero == 0
            assert (scale > 0).all()
            rows = constants.get(node.input[0])
            if rows is not None:
                codes = rows / scale
                assert np.allclose(codes, np.rint(codes), atol=1e-4)
                assert np.abs(codes).max() < 2 ** (width - 1)
                owner = node.name.split("::")[0]
                stated.setdefault(owner, {})[int(width)] = len(rows)
    assert stated == {
        "conv0": {8: 3, 5: 3, 3: 3, 2: 3},
        "conv1": {6: 4, 4: 4, 2: 8},
        "linear4": {3: 10},
    }
