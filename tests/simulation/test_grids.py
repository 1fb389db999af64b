import numpy as np
import pytest
import torch

from ajpq.graph.structure import layers, quantized_edges
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.simulation.grids import ActivationRange, edge_grids, fake_quantize, quantize_edge
from hw_models.network import Edge
from tests.modules import NETWORKS, traced


def policy(graph, widths, default=8):
    return CompressionPolicy(
        layers={
            layer.name: LayerPolicy(
                weight_bits=(8,) * layer.channels,
                activation_bits=widths.get(layer.name, default),
            )
            for layer in layers(graph)
        }
    )


def grids(name, widths, default=8, maxima=None):
    graph, _ = traced(name)
    ranges = {edge: ActivationRange(2.0, False) for edge in quantized_edges(graph)}
    return graph, edge_grids(graph, policy(graph, widths, default), ranges | (maxima or {}))


def test_a_layer_reads_fewer_bits_than_the_residual_stream_beside_it_holds():
    graph, found = grids("option_a", {"layer1.conv1": 3, "layer2.0.conv1": 5}, default=4)
    stem = layers(graph)[0].activation.output
    assert found[stem].bits == 8  # the addition reads it too
    assert found["layer1.conv1.entry"].bits == 3
    assert found["layer1.conv1.entry"].shape == found[stem].shape
    assert found["layer2.0.conv1.entry"].bits == 5
    sums = [node.output for node in graph.nodes if node.kind == "add"]
    assert {found[edge].bits for node in graph.nodes if node.output in sums for edge in node.inputs
            } == {8}  # fmt: skip
    assert found[layers(graph)[1].activation.output].bits == 4  # one layer reads it and no one else
    assert "layer1.conv2" not in graph.entries
    assert found["input"].bits == 8
    assert found[graph.output].bits == 32


def test_layers_alone_on_an_edge_share_the_widest_of_their_widths():
    graph, found = grids("grouped", {"reduce.0": 3, "shortcut.0": 5})
    source = next(layer.node.inputs[0] for layer in layers(graph) if layer.name == "shortcut.0")
    assert found[source].bits == 5
    assert found["reduce.0.entry"].bits == 3
    assert "shortcut.0.entry" not in found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bits", [8, 32])
def test_no_entry_where_all_layers_want_what_all_edges_hold(name, bits):
    graph, found = grids(name, {}, default=bits)
    assert graph.entries.keys() <= {layer.name for layer in layers(graph)}
    assert not set(graph.entries.values()) & found.keys()


def test_what_moves_codes_between_layers_holds_no_more_than_its_reader_wants():
    graph, found = grids("functional", {}, default=3)
    pad = next(node for node in graph.nodes if node.kind == "pad")
    assert found[pad.output].bits == 8  # on one grid with the stream that is added
    assert found[graph.entries["second"]].bits == 3
    graph, found = grids("concat_grouped", {}, default=3)
    concat = next(node for node in graph.nodes if node.kind == "concat")
    assert {found[edge].bits for edge in (*concat.inputs, concat.output)} == {3}


def test_an_entry_without_a_range_has_that_of_the_edge_it_is_made_from():
    graph, _ = traced("option_a")
    stem = layers(graph)[0].activation.output
    ranges = {edge: ActivationRange(2.0, False) for edge in quantized_edges(graph)}
    del ranges["layer1.conv1.entry"]
    ranges[stem] = ActivationRange(6.0, False)
    found = edge_grids(graph, policy(graph, {}, 2), ranges)
    assert found["layer1.conv1.entry"].scale == 2.0
    assert found["layer2.0.conv1.entry"].scale == float(np.float32(2 / 3))


def test_a_function_that_hardware_looks_up_reads_codes_of_8_bits():
    graph, found = grids("depthwise", {}, default=4)
    functions = [n for n in graph.nodes if n.attributes.get("function") == "hardswish"]
    function = functions[1]  # the stem's is added to
    assert found[function.inputs[0]].bits == 8
    assert found[function.output].bits == 4
    clipped = next(n for n in graph.nodes if n.attributes.get("function") == "relu6")
    assert clipped.inputs[0] not in found  # limits on codes: nothing in between


def test_a_real_edge_has_scale_one():
    graph, found = grids("option_a", {"linear": 32})
    flat = layers(graph)[-1].node.inputs[0]
    assert (found[flat].bits, found[flat].scale) == (32, 1.0)


def test_scale_is_the_range_over_the_largest_code():
    graph, found = grids("option_a", {}, maxima={"input": ActivationRange(0.0, True)})
    edge = layers(graph)[0].activation.output
    assert found[edge].scale == float(np.float32(2.0 / 255))
    assert found["input"].scale == float(np.float32(1.0 / 127))  # nothing seen counts as one


def test_a_concatenation_and_its_inputs_share_one_grid():
    graph, _ = traced("concat")
    node = next(n for n in graph.nodes if n.kind == "concat")
    wide = {node.inputs[0]: ActivationRange(5.0, True)}
    _, found = grids("concat", {}, maxima=wide)
    shared = {(found[e].bits, found[e].signed, found[e].scale) for e in (*node.inputs, node.output)}
    assert shared == {(8, True, float(np.float32(5.0 / 127)))}


def test_fake_quantization_gives_the_codes_of_the_reference():
    generator = torch.Generator().manual_seed(0)
    for bits, signed, scale in (
        (2, True, 0.37),
        (4, False, 0.0131),
        (8, True, 1 / 3),
        (8, False, 7e-3),
    ):
        edge = Edge("edge", (), bits, signed, float(np.float32(scale)))
        steps = torch.randint(-600, 600, (20000,), generator=generator) / 2  # ties included
        x = steps * edge.scale
        codes = quantize_edge(x.clone(), edge)
        faked = fake_quantize(x, bits, signed, edge.scale)
        assert torch.equal(faked, codes * edge.scale)
        assert torch.equal(quantize_edge(faked.clone(), edge), codes)


@pytest.mark.parametrize(("bits", "signed"), [(2, False), (3, True), (8, True)])
def test_fake_quantization_and_its_gradient_are_those_of_torch(bits, signed):
    """With a power of two as scale, because torch multiplies by the reciprocal."""
    low, high = Edge("edge", (), bits, signed).code_range
    values = torch.linspace(1.5 * low - 1, 1.5 * high + 1, 999) * 0.25
    x, other = (values.clone().requires_grad_() for _ in range(2))
    wanted = torch.fake_quantize_per_tensor_affine(other, 0.25, 0, low, high)
    assert torch.equal(fake_quantize(x, bits, signed, 0.25), wanted)
    for result in (fake_quantize(x, bits, signed, 0.25), wanted):
        (result * torch.arange(999.0)).sum().backward()
    assert torch.equal(x.grad, other.grad)


def test_untouched_values_are_the_same_object():
    y = torch.randn(5)
    assert fake_quantize(y, 32, True, 1.0) is y
