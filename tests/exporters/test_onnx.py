"""The ONNX file against the reference simulation, operator by operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from ajpq.exporters import EXPORTERS
from ajpq.exporters.verify import run_onnx
from ajpq.policy import uniform_policy
from ajpq.reference import simulate
from hw_models.network import Edge, Network, Operator, Weights
from tests.exporters.calibrated_builder import Builder, random_images

POLICY = uniform_policy({"any": 1}, 8)
IMAGES = random_images(600)


def exported(network: Network, folder) -> np.ndarray:
    """Logits of ONNX Runtime, in two batches of different size."""
    path = EXPORTERS["onnx"](network, POLICY, folder)
    return run_onnx(path, [IMAGES[:100], IMAGES[100:]])


def assert_agrees(
    network: Network, folder, *, tolerance: float = 0.003, agreement: float = 0.995
) -> None:
    """Equal classes on nearly all images, and logits that differ by rounding only."""
    expected = simulate(network, torch.from_numpy(IMAGES)).numpy()
    found = exported(network, folder)
    spread = expected.std()
    assert spread > 0.01
    assert (found.argmax(1) == expected.argmax(1)).mean() >= agreement
    assert np.abs(found - expected).mean() < tolerance * spread


def convolution_net(**layer) -> Network:
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu")
    return net.classifier(net.layer("conv", x, 16, activation="relu", **layer))


@pytest.mark.parametrize(
    "layer",
    [
        {"stride": (2, 2)},
        {"stride": (2, 1), "kernel": (3, 5), "padding": (0, 2)},
        {"dilation": (2, 2), "padding": (2, 2)},
        {"groups": 4},
        {"kernel": (1, 1), "padding": (0, 0)},
        {"widths": (0, 2, 3, 4, 5, 6, 7, 8)},
        {"widths": (0, 4, 8, 32)},
    ],
    ids=str,
)
def test_convolutions(layer, tmp_path):
    assert_agrees(convolution_net(**layer), tmp_path)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8, 32])
@pytest.mark.parametrize("signed", [True, False])
def test_activation_widths(bits, signed, tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 12, bits=bits, activation=None if signed else "relu")
    x = net.layer("conv", x, 16, bits=bits, activation=None if signed else "relu")
    assert_agrees(net.classifier(x), tmp_path)


@pytest.mark.parametrize(
    "function", ["relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu"]
)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bits", [8, 32])
def test_activations(function, fused, bits, tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 12, activation=function if fused else None, bits=bits)
    if not fused:
        x = net.add("activation", (x,), net.edges[x].shape, {"function": function}, bits=bits)
    assert_agrees(net.classifier(x), tmp_path)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("activation", "stream"), [("relu", 8), (None, 8), ("relu", 32)])
def test_a_layer_reads_fewer_bits_than_the_stream(bits, activation, stream, tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 12, activation=activation, bits=stream)
    entry = net.add("requantize", (x,), (12, 12, 12), bits=bits)
    y = net.layer("conv", entry, 12, widths=(4, 8))
    assert_agrees(net.classifier(net.add("add", (x, y), (12, 12, 12))), tmp_path)


def test_relu6_limits_the_codes(tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu6", scale=6 / 200)
    assert_agrees(net.classifier(x), tmp_path)


def test_residual_of_a_shortcut_with_zero_channels(tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 8, activation="relu")
    y = net.layer("conv", x, 16, stride=(2, 2))
    short = net.move("subsample", (x,), (8, 6, 6), stride=(2, 2))
    short = net.move("select", (short,), (16, 6, 6), index=(*[-1] * 4, *range(8), *[-1] * 4))
    assert_agrees(
        net.classifier(net.add("add", (y, short), (16, 6, 6), activation="relu")), tmp_path
    )


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("index", [(3, 1, 2), (0, -1, 7, -1, 7, 2), tuple(range(8)), (-1, 5)])
def test_select(index, bits, tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 8, bits=bits)
    x = net.move("select", (x,), (len(index), 12, 12), index=index)
    assert_agrees(net.classifier(x), tmp_path)


def test_squeeze_and_excite(tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 12, activation="hardswish")
    gate = net.add("globalavgpool", (x,), (12, 1, 1))
    point = {"kernel": (1, 1), "padding": (0, 0)}
    gate = net.layer("conv", gate, 4, activation="relu", **point)
    gate = net.layer("conv", gate, 12, activation="hardsigmoid", **point)
    assert_agrees(net.classifier(net.add("mul", (x, gate), (12, 12, 12))), tmp_path)


@pytest.mark.parametrize("bits", [8, 32])
def test_gate_that_is_a_vector(bits, tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 12, activation="relu", bits=bits)
    gate = net.add("globalavgpool", (x,), (12, 1, 1), bits=bits)
    gate = net.move("flatten", (gate,), (12,))
    gate = net.layer("linear", gate, 12, activation="sigmoid", bits=bits)
    assert_agrees(net.classifier(net.add("mul", (x, gate), (12, 12, 12), bits=bits)), tmp_path)


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_concat(bits, tmp_path):
    net = Builder()
    scale = None if bits == 32 else 2.0 / 2**bits
    parts = [net.layer("conv", "input", c, bits=bits, scale=scale) for c in (4, 6, 3)]
    assert_agrees(net.classifier(net.move("concat", tuple(parts), (13, 12, 12))), tmp_path)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize(
    ("window", "size"),
    [
        ({"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}, 6),
        ({"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": False}, 6),
        ({"kernel": (3, 3), "stride": (2, 2), "padding": (0, 0), "ceil_mode": True}, 6),
        ({"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": True}, 7),
        ({"kernel": (5, 5), "stride": (3, 3), "padding": (2, 2), "ceil_mode": True}, 5),
    ],
)
def test_pooling(window, size, signed, bits, tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 8, bits=bits, activation=None if signed else "relu")
    shape = (8, size, size)
    top = net.move("maxpool", (x,), shape, **window)
    for include in (True, False):
        mean = net.add("avgpool", (x,), shape, {**window, "count_include_pad": include}, bits=bits)
        top = net.add("add", (top, mean), shape, bits=bits)
    assert_agrees(net.classifier(top), tmp_path)


@pytest.mark.parametrize("bits", [8, 32])
def test_pad_affine_and_vectors(bits, tmp_path):
    net = Builder()
    x = net.layer("conv", "input", 8, bits=bits)
    x = net.move("pad", (x,), (8, 15, 13), padding=(0, 1, 2, 1))
    x = net.layer("affine", x, 8, bits=bits, activation="relu")
    x = net.add("globalavgpool", (x,), (8, 1, 1), bits=bits)
    x = net.move("flatten", (x,), (8,))
    x = net.layer("linear", x, 20, bits=bits)
    x = net.layer("affine", x, 20, bits=bits, activation="relu")
    assert_agrees(net.network(net.layer("linear", x, 10, bits=32)), tmp_path)


def one_layer(weights: Weights) -> Network:
    """A 1x1 convolution without activation whose real output is the result."""
    count = len(weights.bits)
    edges = {
        "input": Edge("input", (3, 12, 12), 8, True, 0.03),
        "out": Edge("out", (count, 12, 12)),
    }
    attributes = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    op = Operator("layer", "conv", ("input",), "out", attributes, weights)
    return Network("one", "input", "out", edges, (op,))


def test_biases_between_the_steps_of_int32(tmp_path):
    network = convolution_net()
    for op in network.layers:
        op.weights.bias[:] += 0.3 * np.abs(op.weights.scales) * network.edges[op.inputs[0]].scale
    assert_agrees(network, tmp_path, tolerance=0.02)


def test_zero_scales_and_large_biases(tmp_path):
    weights = Weights(
        np.full((5, 3, 1, 1), 7, np.int8),
        np.asarray([0, 1e-12, -1e-9, 0.01, -0.01], np.float32),
        np.asarray([8, 8, 4, 8, 8], np.uint8),
        np.asarray([1.5, -2.5, 30.0, 0.25, 1.0], np.float32),
    )
    network = one_layer(weights)
    expected = simulate(network, torch.from_numpy(IMAGES)).numpy()
    assert np.allclose(exported(network, tmp_path), expected, atol=1e-3)


def test_sums_of_two_products_do_not_saturate(tmp_path):
    """uint8 x int8 kernels of processors without VNNI would cut 2 * 255 * 127 to 32767."""
    net = Builder(shape=(3, 12, 12))
    x = net.layer("conv", "input", 16, activation="relu", scale=0.001)  # nearly all codes are 255
    weights = Weights(
        np.full((8, 16, 3, 3), 127, np.int8),
        np.linspace(0.001, 0.002, 8, dtype=np.float32),
        np.full(8, 8, np.uint8),
        np.zeros(8, np.float32),
    )
    attributes = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    x = net.add("conv", (x,), (8, 10, 10), attributes, weights, activation="relu")
    assert_agrees(net.classifier(x), tmp_path)


def test_the_file_is_small_and_names_its_ends(tmp_path):
    network = convolution_net(widths=(4,))
    model = onnx.load(EXPORTERS["onnx"](network, POLICY, tmp_path))
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    stored = {constant.data_type for constant in model.graph.initializer if len(constant.dims) > 1}
    assert stored == {onnx.TensorProto.UINT8}
