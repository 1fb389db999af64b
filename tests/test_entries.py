"""Layers that read fewer bits than the edge in front of them holds."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ajpq.apply import apply_policy, apply_unshrunk
from ajpq.compressed import quantize_edges
from ajpq.graph.execute import execute
from ajpq.graph.legality import illegal_layers
from ajpq.graph.structure import Graph, layers
from ajpq.modules import as_module
from ajpq.packed import pack, unpack
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.reference import simulate
from ajpq.simulation.grids import edge_grids
from ajpq.simulation.kernels import FloatKernels
from ajpq.simulation.operators import operator_module
from ajpq.simulation.ranking import prepare_ranking
from hw_models.liveness import peak_activation_bytes
from hw_models.network import Edge, Operator, bops, row_macs
from tests import oracle
from tests.modules import NETWORKS, images, minmax, random_policy, ranges, traced

torch.set_num_threads(1)
RANGES = {name: ranges(*traced(name), images(16)) for name in NETWORKS}


def given_widths(name, widths, weight_bits=8):
    """``widths(layer name)`` are those of the activations."""
    graph, _ = traced(name)
    return CompressionPolicy(
        layers={
            layer.name: LayerPolicy(
                weight_bits=(weight_bits,) * layer.channels, activation_bits=widths(layer.name)
            )
            for layer in layers(graph)
        }
    )


def applied(name, policy, graph=None, apply=apply_policy):
    traced_graph, tensors = traced(name)
    return apply(graph or traced_graph, tensors, policy, RANGES[name], minmax)


def entries(network):
    return [op for op in network.operators if op.kind == "requantize"]


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    seed=st.integers(0, 2**32),
    zeros=st.integers(0, 4),
)
def test_all_forms_of_a_network_agree_bit_for_bit(name, seed, zeros):
    graph, _ = traced(name)
    policy = random_policy(graph, np.random.default_rng(seed), (0,) * zeros + (2, 4, 8))
    assume(not illegal_layers(graph, {key: own.bits == 0 for key, own in policy.layers.items()}))
    network, x = applied(name, policy), images(3)
    assume(entries(network))
    expected = oracle.simulate(network, x.numpy())
    unshrunk = applied(name, policy, apply=apply_unshrunk)
    assert np.array_equal(simulate(network, x).numpy(), expected)
    assert np.array_equal(simulate(unshrunk, x).numpy(), expected)
    assert np.array_equal(simulate(unpack(pack(network)), x).numpy(), expected)
    assert np.array_equal(as_module(network)(x).numpy(), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_reads_what_its_policy_says(name):
    """But for the image, and for what shares a grid with it or with the logits."""
    graph, _ = traced(name)
    rng = np.random.default_rng(0)
    widths = {layer.name: int(rng.integers(2, 9)) for layer in layers(graph)}
    network = applied(name, given_widths(name, widths.get))
    ends = {graph.grid_sets[graph.input], graph.grid_sets[graph.output]}
    sets = {layer.name: graph.grid_sets[layer.node.inputs[0]] for layer in layers(graph)}
    inner = [op for op in network.layers if sets[op.name] not in ends]
    assert inner
    for op in inner:
        assert network.edges[op.inputs[0]].bits == widths[op.name]
    for op in network.operators:
        if op.kind in ("add", "mul", "affine", "avgpool", "globalavgpool", "activation"):
            assert {network.edges[edge].bits for edge in op.inputs} == {8}


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_equal_widths_give_the_network_that_there_was_before_entries(name, bits):
    graph, _ = traced(name)
    before = dataclasses.replace(graph)
    vars(before)["entries"] = {}  # what the cached property would find
    policy = given_widths(name, lambda layer: bits)
    assert pack(applied(name, policy)) == pack(applied(name, policy, before))


def test_a_real_stream_is_put_on_codes_for_the_layer_that_wants_them():
    policy = given_widths("option_a", lambda name: 4 if name == "layer1.conv1" else 32)
    network = applied("option_a", policy)
    (entry,) = entries(network)
    assert (network.edges[entry.inputs[0]].bits, network.edges[entry.output].bits) == (32, 4)
    x = images(4)
    logits = simulate(network, x)
    torch.testing.assert_close(
        logits, torch.from_numpy(oracle.simulate(network, x.numpy())), rtol=1e-4, atol=1e-4
    )


@settings(deadline=None, max_examples=200)
@given(
    bits=st.tuples(st.integers(2, 8), st.integers(2, 8)),
    signs=st.tuples(st.booleans(), st.booleans()),
    scales=st.tuples(*[st.floats(2.0**-20, 2.0**8, width=32)] * 2),
)
def test_codes_go_to_the_nearest_of_the_other_grid(bits, signs, scales):
    """Every code against exact fractions; a neighbour only where float32 cannot tell."""
    source, out = (
        Edge(name, (1,), width, signed, scale)
        for name, width, signed, scale in zip("ab", bits, signs, scales, strict=True)
    )
    module = operator_module(Operator("op", "requantize", ("a",), "b"), [source], out)
    low, high = source.code_range
    codes = torch.arange(low, high + 1, dtype=torch.float32)[:, None]
    before = codes.clone()
    found = module(codes)
    assert torch.equal(codes, before)
    for code, new in zip(codes.flatten().tolist(), found.flatten().tolist(), strict=True):
        exact = Fraction(code) * Fraction(source.scale) / Fraction(out.scale)
        clamped = min(max(exact, Fraction(out.code_range[0])), Fraction(out.code_range[1]))
        assert new == int(new)
        assert abs(Fraction(new) - clamped) <= Fraction(1, 2) + abs(exact) * Fraction(2, 2**24)


def test_a_layer_is_priced_by_what_it_reads():
    policy = given_widths("option_a", lambda name: 2 if name == "layer2.1.conv1" else 8)
    network = applied("option_a", policy)
    plain = applied("option_a", given_widths("option_a", lambda name: 8))
    layer = next(op for op in network.layers if op.name == "layer2.1.conv1")
    saved = row_macs(network, layer) * len(layer.weights.bits) * 8 * (8 - 2)
    assert bops(plain)["all"] - bops(network)["all"] == saved
    (entry,) = entries(network)
    source = network.edges[entry.inputs[0]]
    own = int(np.prod(source.shape)) * 2 // 8
    more = peak_activation_bytes(network) - peak_activation_bytes(plain)
    assert 0 <= more <= own


@pytest.mark.parametrize("name", ["option_a", "depthwise", "functional"])
def test_training_and_ranking_see_the_entries(name):
    graph, tensors = traced(name)
    policy = given_widths(name, lambda layer: 4, weight_bits=32)
    network, x = applied(name, policy), images(200)
    exact = simulate(network, x)
    ranked = prepare_ranking(network, FloatKernels())(x)
    grids = edge_grids(graph, policy, RANGES[name])
    unseen = {edge: own for edge, own in grids.items() if edge not in graph.entries.values()}
    assert len(unseen) < len(grids)
    faked = execute(graph, tensors, x, edge=quantize_edges(grids))
    without = execute(graph, tensors, x, edge=quantize_edges(unseen))
    error = (without - exact).abs().mean()
    assert (ranked - exact).abs().mean() < 0.1 * error
    assert (faked - exact).abs().mean() < 0.1 * error


def test_the_graph_keeps_entries_for_layers_alone():
    graph: Graph = traced("squeeze_excite")[0]
    assert graph.entries.keys() <= {layer.name for layer in layers(graph)}
    assert graph.entries["blocks.0.expand.0"] == "blocks.0.expand.0.entry"  # beside an addition
    assert "blocks.0.project.0" not in graph.entries
