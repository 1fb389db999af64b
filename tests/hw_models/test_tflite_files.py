"""Written files, run by LiteRT, against what the IR means."""

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hw_models.errors import AjpqError
from hw_models.network import Edge, Network
from hw_models.samples import NetworkBuilder, conv_network, random_weights
from hw_models.tflite import write_tflite
from hw_models.tflite.grids import edge_grid
from tests.hw_models import oracle
from tests.hw_models.zoo import ZOO

EXACT = {"select", "subsample", "pad", "maxpool", "concat", "flatten"}
CURVED = {"hardswish", "sigmoid", "silu"}


def run(model: bytes, image: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """Every tensor of the file by name: integers with the zero point removed, and the scale."""
    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    found = {}
    for tensor in interpreter.get_tensor_details():
        scale, zero_point = tensor["quantization"]
        if tensor["dtype"] == np.int8 and scale:
            values = interpreter.get_tensor(tensor["index"]).astype(np.int64) - zero_point
            found[tensor["name"]] = (values, scale)
    return found


def channels_first(values: np.ndarray) -> np.ndarray:
    """Codes in the order of the IR."""
    return values[0].transpose(2, 0, 1) if values.ndim == 4 else values[0]


def random_image(network: Network, seed: int = 0) -> np.ndarray:
    depth, *size = network.edges[network.input].shape
    rng = np.random.default_rng(seed)
    return rng.integers(-127, 128, (1, *size, depth)).astype(np.int8)


def read_by_linear_layers_only(network: Network, edge: str) -> bool:
    return {op.kind for op in network.operators if edge in op.inputs} == {"linear"}


def tolerance(operator) -> int:
    functions = {operator.activation, operator.attributes.get("function")}
    return (
        0 if operator.kind in EXACT and not operator.activation else 3 if functions & CURVED else 1
    )


def judge(network: Network) -> None:
    """Each operator is judged on the tensors that LiteRT gave it, so nothing adds up."""
    tensors = run(write_tflite(network), random_image(network))
    codes = {edge: channels_first(tensors[edge][0]) for edge in network.edges}
    for operator in network.operators:
        edge = network.edges[operator.output]
        expected = oracle.evaluate(network, operator, [codes[name] for name in operator.inputs])
        found = np.maximum(codes[operator.output], -127)  # the IR has no -128
        if edge.bits == 32:
            scale = tensors[edge.name][1]
            assert np.abs(found * scale - expected).max() <= scale
        elif operator.kind == "flatten" and read_by_linear_layers_only(network, edge.name):
            assert sorted(found) == sorted(expected)
            codes[operator.output] = codes[operator.inputs[0]].reshape(-1)
        else:
            assert np.abs(found - expected).max() <= tolerance(operator), operator.name
            assert np.ptp(expected) > 0, "a test that cannot fail"


@pytest.mark.parametrize("name", ZOO)
def test_every_operator_computes_what_the_ir_says(name):
    judge(ZOO[name]())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size=st.integers(6, 11),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
)
def test_convolutions_of_any_geometry(*, size, kernel, stride, padding, dilation, groups):
    reach = dilation * (kernel - 1) + 1
    assume(size + 2 * padding >= reach)
    b = NetworkBuilder((4, size, size), np.random.default_rng(size))
    sizes = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    x = b.conv("input", 4, groups=groups, activation=None, **sizes)
    judge(b.build(b.head(x, 3)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["maxpool", "avgpool"]),
    size=st.integers(5, 10),
    kernel=st.integers(2, 4),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    ceil_mode=st.booleans(),
)
def test_pools_of_any_geometry(*, kind, size, kernel, stride, padding, ceil_mode):
    """Windows as PyTorch places them; with ceil_mode none starts in the padding on the right."""
    assume(padding <= kernel // 2)
    assume(not (kind == "avgpool" and ceil_mode))
    span = size + 2 * padding - kernel
    out = (-(-span // stride) if ceil_mode else span // stride) + 1
    out -= (out - 1) * stride >= size + padding
    b = NetworkBuilder((3, size, size), np.random.default_rng(size))
    x = b.conv("input", 4, activation=None)
    pairs = {"kernel": kernel, "stride": stride, "padding": padding}
    attributes = {name: (value, value) for name, value in pairs.items()}
    if kind == "avgpool":
        attributes["count_include_pad"] = True
    edge = b.like(x, "pool", (4, out, out))
    x = b.add(kind, (x,), edge, ceil_mode=ceil_mode, **attributes)
    judge(b.build(b.head(x, 3)))


def test_the_zoo_holds_every_kind_and_every_activation():
    from hw_models.network import ACTIVATIONS, KINDS

    operators = [operator for build in ZOO.values() for operator in build().operators]
    assert {operator.kind for operator in operators} == KINDS
    assert {op.activation for op in operators} - {None} == ACTIVATIONS
    alone = {op.attributes["function"] for op in operators if op.kind == "activation"}
    assert alone == ACTIVATIONS


def test_equal_networks_give_equal_bytes():
    assert write_tflite(conv_network()) == write_tflite(conv_network())


def test_output_range_sets_the_scale_of_the_logits():
    network = conv_network()
    image = random_image(network)
    wide, fine = (run(write_tflite(network, r), image)[network.output] for r in (40.0, 8.0))
    assert wide[1] == pytest.approx(40 / 127)
    assert fine[1] == pytest.approx(8 / 127)
    logits = np.clip(wide[0] * wide[1], -8, 8)
    assert np.abs(fine[0] * fine[1] - logits).max() <= wide[1]


def test_logits_do_not_saturate_without_a_range():
    for build in ZOO.values():
        network = build()
        codes, _ = run(write_tflite(network), random_image(network, 1))[network.output]
        assert np.abs(codes).max() < 127


def test_a_network_may_end_in_an_average():
    b = NetworkBuilder((3, 6, 6), np.random.default_rng(0))
    x = b.conv("input", 5)
    x = b.add("globalavgpool", (x,), Edge("pool", (5, 1, 1)))
    network = b.build(b.add("flatten", (x,), Edge("logits", (5,))))
    tensors = run(write_tflite(network), random_image(network))
    image = channels_first(tensors[network.operators[0].output][0]) * 0.015
    codes, scale = tensors["logits"]
    assert np.abs(codes[0] * scale - image.mean(axis=(1, 2))).max() <= scale


def test_names_what_has_no_int8_form():
    network = conv_network()
    first = network.operators[0]
    floats = replace(first.weights, codes=first.weights.codes.astype(np.float32))
    with pytest.raises(AjpqError, match="layer 'conv0' has 32-bit weights"):
        write_tflite(
            replace(network, operators=(replace(first, weights=floats), *network.operators[1:]))
        )
    edges = {**network.edges, "conv0": replace(network.edges["conv0"], bits=32, scale=1.0)}
    with pytest.raises(AjpqError, match="edge 'conv0' holds 32-bit activations"):
        write_tflite(replace(network, edges=edges))
    with pytest.raises(AjpqError, match="'conv0' has the unknown kind 'fft'"):
        write_tflite(
            replace(network, operators=(replace(first, kind="fft"), *network.operators[1:]))
        )


def test_refuses_averages_over_windows_that_it_cannot_count():
    b = NetworkBuilder((3, 8, 8), np.random.default_rng(0))
    sizes = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": False}
    edge = b.like("input", "pool", (3, 4, 4))
    x = b.add("avgpool", ("input",), edge, count_include_pad=False, **sizes)
    with pytest.raises(AjpqError, match=f"operator '{x}'.*count_include_pad=False"):
        write_tflite(b.build(b.head(x, 4)))


def test_wide_rows_keep_their_real_values():
    """Scales over nine orders of magnitude, both signs: real rows survive the conversion."""
    from hw_models.tflite.weights import integer_rows

    rng = np.random.default_rng(0)
    weights = random_weights((64, 5), rng)
    scales = weights.scales * rng.choice([-1, 1], 64) * 10.0 ** rng.uniform(-9, 0, 64)
    weights = replace(weights, scales=scales.astype(np.float32))
    rows = integer_rows("x", weights, 0.02, 0.03)
    assert rows.codes.dtype == np.int8
    assert rows.bias.dtype == np.int32
    assert (rows.scales > 0).all()
    before = weights.codes * weights.scales[:, None].astype(np.float64)
    after = rows.codes * rows.scales[:, None].astype(np.float64)
    assert np.abs(before - after).max() * 255 * 5 * 0.02 < 0.03 / 100  # of one output code
    assert np.abs(rows.bias * rows.scales * 0.02 - weights.bias).max() < 0.03 / 10


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed", [False, True])
def test_values_above_the_last_code_of_an_edge_are_cut_off(bits, signed):
    edge = Edge("e", (1,), bits, signed, 0.5)
    grid = edge_grid(edge)
    assert grid.largest == 0.5 * edge.code_range[1]
    assert grid.zero_point + edge.code_range[0] >= -128
