"""The fast simulation against the exact one."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ajpq.apply import apply_policy
from ajpq.evaluate import kl_divergence
from ajpq.reference import simulate
from ajpq.simulation.kernels import FloatKernels, Int8Kernels, int8, int8_in_hardware
from ajpq.simulation.kernels.int8 import MOST_CHANNELS
from ajpq.simulation.operators import operator_module
from ajpq.simulation.ranking import prepare_ranking, spare_input
from hw_models.network import FLOAT_BITS, Edge, Network, Operator, Weights
from tests.modules import NETWORKS, images, minmax, random_policy, ranges, traced

torch.set_num_threads(1)

WAYS = [FloatKernels(), *([Int8Kernels()] if int8_in_hardware() else [])]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)


def compressed(name, seed=0, widths=(0, 2, 3, 4, 6, 8, 8, 8)):
    graph, tensors = traced(name)
    policy = random_policy(graph, np.random.default_rng(seed), widths)
    return apply_policy(graph, tensors, policy, ranges(graph, tensors, images(16)), minmax)


def power_of_two(value):
    return np.exp2(np.rint(np.log2(value)))


def with_exact_scales(network):
    """All scales powers of two, biases whole steps of the accumulator: nothing is ever rounded but
    to codes, so the order of operations no longer matters."""
    edges = {
        name: edge if edge.bits == FLOAT_BITS else replace(edge, scale=power_of_two(edge.scale))
        for name, edge in network.edges.items()
    }
    operators = []
    for op in network.operators:
        if op.weights is not None:
            scales = power_of_two(op.weights.scales).astype(np.float32)
            source, out = edges[op.inputs[0]], edges[op.output]
            step = scales * source.scale
            finest = np.maximum(step, 1e-9 if out.bits == FLOAT_BITS else out.scale / 64)
            bias = (np.rint(op.weights.bias / finest) * finest).astype(np.float32)
            op = replace(op, weights=replace(op.weights, scales=scales, bias=bias))  # noqa: PLW2901
        operators.append(op)
    return replace(network, edges=edges, operators=tuple(operators))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
@every_way
def test_where_nothing_is_rounded_twice_it_gives_the_bits_of_the_reference(name, seed, way):
    network = with_exact_scales(compressed(name, seed))
    x = images(40, seed)
    assert torch.equal(prepare_ranking(network, way)(x), simulate(network, x))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("widths", [(3, 4, 6, 8), (32,)])
@every_way
def test_it_is_close_to_the_reference(name, widths, way):
    network = compressed(name, 3, widths)
    x = images(200, 1)
    expected, found = simulate(network, x), prepare_ranking(network, way)(x)
    assert float((expected.argmax(1) == found.argmax(1)).double().mean()) >= 0.99
    assert float((expected - found).abs().mean()) <= 0.01 * float(expected.abs().mean())


@every_way
def test_it_ranks_candidates_as_the_reference_does(way):
    graph, tensors = traced("option_a")
    x = images(200)
    found = ranges(graph, tensors, x)
    rng = np.random.default_rng(0)
    reference, ranking = [], []
    wanted = None
    for widths in [(8,)] + [tuple(rng.integers(2, 9, 4).tolist()) for _ in range(59)]:
        policy = random_policy(graph, rng, widths)
        network = apply_policy(graph, tensors, policy, found, minmax)
        exact = simulate(network, x)
        wanted = exact if wanted is None else wanted
        reference.append(kl_divergence(wanted, exact))
        ranking.append(kl_divergence(wanted, prepare_ranking(network, way)(x)))
    assert spearmanr(reference, ranking).statistic >= 0.99


@pytest.mark.skipif(not int8_in_hardware(), reason="no convolution of bytes here")
@pytest.mark.parametrize("channels", [16, 48, 64])
def test_weights_laid_out_for_their_input_give_the_same_bits(channels, monkeypatch):
    source, out = Edge("in", (64, 8, 8), 8, False, 0.02), Edge("out", (channels, 8, 8), 8, False, 3)
    rng = np.random.default_rng(channels)
    weights = Weights(
        rng.integers(-127, 128, (channels, 64, 3, 3)).astype(np.int8),
        rng.uniform(0.1, 1, channels).astype(np.float32),
        np.full(channels, 8, np.uint8),
        rng.normal(size=channels).astype(np.float32),
    )
    one = (1, 1)
    attributes = {"stride": one, "padding": one, "dilation": one, "groups": 1}
    op = Operator("conv", "conv", ("in",), "out", attributes, weights, "relu")
    x = torch.from_numpy(rng.integers(0, 256, (64, 64, 8, 8)).astype(np.uint8))
    x = x.contiguous(memory_format=torch.channels_last)
    found = Int8Kernels().layer(op, source, out)(x)
    assert found.unique().numel() > 100
    prepack, asked = torch.ops.onednn.qconv_prepack, []

    def shapeless(*arguments):
        asked.append(arguments)
        return prepack(*arguments[:-1], None)

    monkeypatch.setattr(torch.ops.onednn, "qconv_prepack", shapeless)
    monkeypatch.setattr(int8, "_kept", int8._prepacked)  # kept weights would be the same ones
    assert torch.equal(found, Int8Kernels().layer(op, source, out)(x))
    assert len(asked) == 1


@pytest.mark.skipif(not int8_in_hardware(), reason="no convolution of bytes here")
@pytest.mark.parametrize(("inputs", "times"), [(32, 1), (512, 2)])
def test_weights_are_packed_once_unless_they_are_large(inputs, times, monkeypatch):
    monkeypatch.setattr(int8, "_kept", functools.lru_cache(int8._prepacked))
    packed, prepack = [], torch.ops.onednn.qconv_prepack

    def noting(*arguments):
        packed.append(arguments)
        return prepack(*arguments)

    monkeypatch.setattr(torch.ops.onednn, "qconv_prepack", noting)
    source = Edge("in", (inputs, 4, 4), 8, False, 0.02)
    out = Edge("out", (64, 4, 4), 8, False, 4 * inputs**0.5)
    rng, one = np.random.default_rng(0), (1, 1)
    attributes = {"stride": one, "padding": one, "dilation": one, "groups": 1}
    x = torch.from_numpy(rng.integers(0, 256, (2, inputs, 4, 4)).astype(np.uint8))
    x = x.contiguous(memory_format=torch.channels_last)
    codes = rng.integers(-127, 128, (64, inputs, 3, 3)).astype(np.int8)
    scales, bias = rng.uniform(0.1, 1, (2, 64)).astype(np.float32)
    weights = Weights(codes, scales, np.full(64, 8, np.uint8), bias)
    for factor in (1.0, 2.0):  # scales are no part of what is packed
        own = replace(weights, scales=scales * np.float32(factor))
        op = Operator("conv", "conv", ("in",), "out", attributes, own, "relu")
        answers = Int8Kernels().layer(op, source, out)(x)
        exact = FloatKernels().layer(op, source, out)(x.float())
        assert (answers - exact).abs().max() <= 1
        assert exact.unique().numel() > 100
    assert len(packed) == times


@pytest.mark.parametrize("name", NETWORKS)
def test_only_what_nobody_else_reads_is_written_over(name):
    """Of a block's two ends the layer's own, never the shortcut."""
    network = compressed(name)
    makers, found = {op.output: op for op in network.operators}, 0
    for op in network.operators:
        if op.kind == "add" and (spare := spare_input(network, op)) is not None:
            edge, found = op.inputs[spare], found + 1
            assert makers[edge].kind == "conv"
            assert [o.name for o in network.operators if edge in o.inputs] == [op.name]
            other = op.inputs[1 - spare]
            places = [o.output for o in network.operators]
            assert other == network.input or places.index(other) < places.index(edge)
    assert found > 0 or name != "option_a"


def test_both_ends_of_a_residual_block_are_told_apart():
    edges = {n: Edge(n, (4, 6, 6), 8, False, 0.5) for n in ("image", "x", "y", "z", "out")}

    def network(*added, kind="conv", more=()):
        operators = (
            Operator("first", "conv", ("image",), "x"),
            Operator("second", kind, ("x",), "y"),
            Operator("sum", "add", added, "z"),
            *more,
        )
        return Network("block", "image", operators[-1].output, edges, operators)

    for order, own in ((("x", "y"), 1), (("y", "x"), 0)):
        block = network(*order)
        assert spare_input(block, block.operators[2]) == own
    reads_again = Operator("late", "add", ("y", "z"), "out")
    for net in (
        network("y", "y"),
        network("x", "y", kind="select"),
        network("x", "y", more=(reads_again,)),
    ):
        assert spare_input(net, net.operators[2]) is None


@pytest.mark.skipif(not int8_in_hardware(), reason="no convolution of bytes here")
@pytest.mark.parametrize("signs", itertools.product((False, True), repeat=3))
@pytest.mark.parametrize(
    ("shape", "function"), [((5, 6, 6), None), ((16, 6, 6), "relu6"), ((300, 2, 2), "relu")]
)
def test_bytes_are_added_and_put_on_other_grids_as_the_reference_does(signs, shape, function):
    """Steps are powers of two, so that no sum is rounded before it is put on codes."""
    edges = [
        Edge(name, shape, bits, signed, step)
        for name, bits, signed, step in zip(
            ("x", "y", "out"), (8, 6, 8), signs, (0.03125, 0.25, 0.0625), strict=True
        )
    ]
    left, right, out = edges
    rng, way = np.random.default_rng(0), Int8Kernels()
    codes = []
    for edge in edges[:2]:
        low, high = edge.code_range
        made = rng.integers(low, high + 1, (7, *shape)).astype(np.float32)
        codes.append(torch.from_numpy(made).contiguous(memory_format=torch.channels_last))
    stored = [way.store(x, edge) for x, edge in zip(codes, edges, strict=False)]
    before = [x.clone() for x in stored]

    add = Operator("sum", "add", ("x", "y"), "out", {}, None, function)
    expected = operator_module(add, edges[:2], out)(*codes)
    assert torch.equal(way.load(way.add(add, left, right, out)(*stored), out), expected)
    for spare in (0, 1):
        own = [x.clone() for x in stored]
        assert torch.equal(way.load(way.add(add, left, right, out, spare)(*own), out), expected)
        assert torch.equal(own[1 - spare], stored[1 - spare])
        assert torch.equal(own[spare], stored[spare]) == (shape[0] > MOST_CHANNELS)
    twice = Operator("sum", "add", ("x", "x"), "out", {}, None, function)
    expected = operator_module(twice, [left, left], out)(codes[0], codes[0])
    assert torch.equal(way.load(way.add(twice, left, left, out)(*stored[:1] * 2), out), expected)
    kind, given = ("activation", {"function": function}) if function else ("requantize", {})
    for entry in (out, replace(out, bits=4)):
        rescale = Operator("to", kind, ("x",), "out", given)
        expected = operator_module(rescale, [left], entry)(codes[0])
        assert torch.equal(way.load(way.rescale(rescale, left, entry)(stored[0]), entry), expected)
    assert all(torch.equal(x, y) for x, y in zip(stored, before, strict=True))


@pytest.mark.skipif(not int8_in_hardware(), reason="no convolution of bytes here")
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("select", {"index": (-1, 2, 0, -1)}),
        ("pad", {"padding": (1, 0, 2, 1)}),
        ("maxpool", {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": False}),
        ("subsample", {"stride": (2, 2)}),
        ("concat", {}),
        ("flatten", {}),
    ],
)
@pytest.mark.parametrize("side", [6, 20])  # more pixels than a byte counts
def test_bytes_are_moved_as_numbers_are(kind, attributes, signed, side):
    edge, way = Edge("x", (4, side, side), 8, signed, 0.1), Int8Kernels()
    low, high = edge.code_range
    x = torch.from_numpy(np.random.default_rng(0).integers(low, high + 1, (3, 4, side, side)))
    x = x.float().contiguous(memory_format=torch.channels_last)
    sources = [edge, edge] if kind == "concat" else [edge]
    op, out = Operator("move", kind, tuple(e.name for e in sources), "out", attributes), edge
    expected = operator_module(op, sources, out)(*[x for _ in sources])
    moved = way.move(op, sources, out)(*[way.store(x, edge) for _ in sources])
    assert torch.equal(way.load(moved, out), expected)
