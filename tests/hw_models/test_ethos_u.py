"""The shipped accelerator target, through the real compiler."""

import numpy as np
import pytest

from hw_models import vela
from hw_models.checks import checked_cost
from hw_models.errors import AjpqError
from hw_models.ethos_u import EthosU
from hw_models.network import Edge
from hw_models.registry import load_target
from hw_models.samples import NetworkBuilder, conv_network, resnet20_network
from tests.hw_models.zoo import ZOO


@pytest.fixture(scope="module")
def target():
    return load_target("edge-npu")


@pytest.mark.parametrize("name", ZOO)
def test_nothing_of_any_kind_stays_on_the_cpu(target, name):
    network = ZOO[name]()
    cost = checked_cost(target, network)
    assert [layer.name for layer in cost.per_layer] == [op.name for op in network.operators]
    assert sum(layer.latency_s for layer in cost.per_layer) == pytest.approx(cost.latency_s)


@pytest.fixture(scope="module")
def resnets(target):
    """Costs of ResNet-20 by (share of the channels kept, width)."""
    settings = [(1.0, 8), (1.0, 4), (1.0, 2), (0.5, 8), (0.5, 4)]
    return {each: target.cost(resnet20_network(*each)) for each in settings}


def test_resnet20_costs_what_was_measured_by_hand(resnets):
    """429 thousand cycles and 244 kB with trained weights; these are random, so a little more."""
    cost = resnets[1.0, 8]
    assert cost.latency_s * 500e6 == pytest.approx(429e3, rel=0.04)
    assert cost.flash_bytes == pytest.approx(244e3, rel=0.15)
    assert cost.peak_activation_bytes == pytest.approx(52e3, rel=0.05)
    assert cost.energy_j is None


def test_fewer_bits_mean_fewer_bytes_and_no_more_cycles(resnets):
    costs = [resnets[1.0, bits] for bits in (8, 4, 2)]
    stored = [cost.flash_bytes for cost in costs]
    assert stored[1] < 0.55 * stored[0]
    assert stored[2] < 0.35 * stored[1]
    assert costs[0].latency_s > costs[1].latency_s > costs[2].latency_s


def test_fewer_channels_mean_fewer_cycles_and_bytes(resnets):
    for bits in (8, 4):
        whole, half = resnets[1.0, bits], resnets[0.5, bits]
        assert half.latency_s < 0.75 * whole.latency_s
        assert half.flash_bytes < 0.6 * whole.flash_bytes


def test_layers_get_their_own_figures(resnets):
    by_name = {layer.name: layer for layer in resnets[1.0, 8].per_layer}
    wide, narrow = by_name["layer3.2.conv2"], by_name["layer1.0.conv1"]
    assert wide.flash_bytes > 10 * narrow.flash_bytes > 0
    assert by_name["layer1.0.conv1"].latency_s > by_name["logits"].latency_s > 0


def test_the_same_network_costs_the_same(target):
    first = target.cost(conv_network())
    vela.forget()
    assert target.cost(conv_network()) == first


def test_declares_what_the_device_holds(target):
    assert target.weight_bits == (0, 2, 3, 4, 5, 6, 7, 8)
    assert target.activation_bits == (8,)


def test_operators_on_the_cpu_are_named(target):
    """An average whose windows are taller than the accelerator's largest."""
    b = NetworkBuilder((3, 300, 8), np.random.default_rng(0))
    sizes = {"kernel": (300, 8), "stride": (1, 1), "padding": (0, 0), "ceil_mode": False}
    edge = Edge("tall", (3, 1, 1), 8, True, b.edges["input"].scale)
    x = b.add("avgpool", ("input",), edge, count_include_pad=True, **sizes)
    x = b.add("flatten", (x,), b.like(x, "flat", (3,)))
    network = b.build(b.linear(x, 2))
    with pytest.raises(AjpqError, match=r"target 'edge-npu' cannot run .*AVERAGE_POOL_2D tall"):
        target.cost(network)


def test_a_wrong_memory_mode_is_one_line():
    target = EthosU("mine", "ethos-u65-256", "Ethos_U65_Embedded", "Private_Sram")
    with pytest.raises(AjpqError, match="Private_Sram"):
        target.cost(conv_network())
