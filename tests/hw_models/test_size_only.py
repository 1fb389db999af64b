"""Bytes counted by hand, liveness against brute force, and answers that are no costs."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.checks import checked_cost
from hw_models.errors import AjpqError
from hw_models.liveness import edge_bytes, peak_activation_bytes
from hw_models.network import Edge
from hw_models.samples import conv_network, resnet20_network
from hw_models.size_only import SizeOnly, stored_bytes
from tests.hw_models.zoo import ZOO


def with_bits(network, bits):
    """The network with these widths in its first layer."""
    first = network.operators[0]
    weights = replace(first.weights, bits=np.asarray(bits, np.uint8))
    return replace(network, operators=(replace(first, weights=weights), *network.operators[1:]))


def test_stored_bytes_by_hand():
    """8 rows of 27 values: 27 * (0 + 2 + 3 + 5 + 8 * 3 + 32) = 1782 bits = 222.75 bytes."""
    operator = with_bits(conv_network(), [0, 2, 3, 5, 8, 8, 8, 32]).operators[0]
    assert stored_bytes(operator) == 223 + 8 * 1 + 7 * 8


def test_operators_without_weights_store_nothing():
    cost = SizeOnly().cost(resnet20_network())
    for layer in cost.per_layer:
        assert (layer.flash_bytes == 0) == (not layer.name.startswith(("conv", "layer", "logits")))
    assert cost.flash_bytes == sum(layer.flash_bytes for layer in cost.per_layer)


def test_what_it_does_not_know_is_none():
    cost = SizeOnly().cost(conv_network())
    assert cost.latency_s is None
    assert cost.energy_j is None


def test_bytes_follow_bits():
    eight, four = (SizeOnly().cost(resnet20_network(1.0, bits)).flash_bytes for bits in (8, 4))
    assert 0.5 < four / eight < 0.56


@pytest.mark.parametrize(
    ("shape", "bits", "expected"), [((3, 4, 4), 8, 48), ((3, 5, 5), 3, 29), ((7,), 32, 28)]
)
def test_edges_are_packed(shape, bits, expected):
    assert edge_bytes(Edge("x", shape, bits)) == expected


def peak_by_hand(network) -> int:
    """For every operator: what was made before or by it, and is read by it or later."""
    same = {op.output: op.inputs[0] for op in network.operators if op.kind == "flatten"}
    peak = 0
    for step, operator in enumerate(network.operators):
        made = {network.input, *(op.output for op in network.operators[: step + 1])}
        later = {name for op in network.operators[step:] for name in op.inputs}
        alive = {name for name in made if name in later | {network.output, operator.output}}
        buffers = {same.get(name, name) for name in alive}
        peak = max(peak, sum(edge_bytes(network.edges[name]) for name in buffers))
    return peak


@pytest.mark.parametrize("name", ZOO)
def test_liveness_agrees_with_the_definition(name):
    network = ZOO[name]()
    assert peak_activation_bytes(network) == peak_by_hand(network)


def test_resnet20_peaks_in_its_first_stage():
    """A block's input and both sides of its second convolution: three maps of 16 x 32 x 32."""
    assert peak_activation_bytes(resnet20_network()) == 3 * 16 * 32 * 32


def test_flattening_takes_no_memory():
    network = ZOO["flatten_to_linear"]()
    image, conv = 3 * 6 * 6, 6 * 3 * 3
    logits = edge_bytes(network.edges[network.output])
    assert peak_activation_bytes(network) == max(image + conv, conv + logits)


class Fixed(Target):
    name = "fixed"

    def __init__(self, answer):
        self.answer = answer

    def cost(self, network):
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        NetworkCost(),
        NetworkCost(0.0, 1e-9, 0, 12, (LayerCost("conv0", 0.1, None, 3),)),
        NetworkCost(np.float64(0.5), flash_bytes=np.int64(3)),
    ],
)
def test_good_answers_pass(answer):
    assert checked_cost(Fixed(answer), conv_network()) is answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "cost() returned None, expected a NetworkCost"),
        (NetworkCost(latency_s=math.nan), "for latency_s, got nan"),
        (NetworkCost(latency_s=math.inf), "for latency_s, got inf"),
        (NetworkCost(energy_j=-1.0), "for energy_j, got -1.0"),
        (NetworkCost(latency_s="3"), "for latency_s, got '3'"),
        (NetworkCost(latency_s=True), "for latency_s, got True"),
        (NetworkCost(flash_bytes=1.5), "a whole number >= 0 for flash_bytes, got 1.5"),
        (NetworkCost(peak_activation_bytes=-4), "for peak_activation_bytes, got -4"),
        (NetworkCost(per_layer=(LayerCost("a", -2.0),)), "layer 'a': expected a finite number"),
        (NetworkCost(per_layer=("a",)), "per_layer holds 'a', expected a LayerCost"),
        (NetworkCost(per_layer=None), "per_layer is None, expected a tuple"),
    ],
)
def test_bad_answers_are_named(answer, words):
    with pytest.raises(AjpqError) as caught:
        checked_cost(Fixed(answer), conv_network())
    assert words in str(caught.value)
    assert str(caught.value).startswith("target 'fixed'")
