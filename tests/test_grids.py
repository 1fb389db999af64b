import numpy as np
import pytest
import torch

from ajpq.graph.structure import layers, quantized_edges
from ajpq.grids import ActivationRange, edge_grids, fake_quantize, quantize_edge
from ajpq.policy import CompressionPolicy, LayerPolicy
from hw_models.network import Edge
from tests.modules import traced


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


def test_an_edge_takes_the_widest_wish_of_its_readers():
    graph, found = grids("option_a", {"layer1.conv1": 3, "layer2.0.conv1": 5}, default=4)
    stem = layers(graph)[0].activation.output
    # the stem is read by layer1.conv1 (3 bits) and by the addition, whose output is read at 5 bits
    assert found[stem].bits == 5
    assert found[layers(graph)[1].activation.output].bits == 4
    assert found["input"].bits == 8
    assert found[graph.output].bits == 32


def test_a_function_that_hardware_looks_up_reads_codes_of_8_bits():
    graph, found = grids("depthwise", {}, default=4)
    function = next(n for n in graph.nodes if n.attributes.get("function") == "hardswish")
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
