"""Channels in the order of their widths: the same function, fewer bytes."""

import numpy as np
import pytest
import torch

from ajpq.reference import simulate
from hw_models.ordering import by_width
from hw_models.registry import load_target
from hw_models.samples import grouped_network, residual_network, resnet20_network, with_widths
from tests.hw_models.zoo import ZOO

torch.set_num_threads(1)
NETWORKS = {**ZOO, "groups": grouped_network, "residual": residual_network}


def mixed(build, widths=(2, 4, 8)):
    return with_widths(build(), np.random.default_rng(0), widths, "mixed")


@pytest.mark.parametrize("name", NETWORKS)
def test_not_one_bit_of_the_logits_changes(name):
    network = mixed(NETWORKS[name], (0, 2, 4, 8))
    shape = network.edges[network.input].shape
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    ordered = by_width(network)
    assert torch.equal(simulate(ordered, images), simulate(network, images))
    assert ordered.edges == network.edges


def rows(network, name):
    return next(op.weights.bits for op in network.operators if op.name == name)


def test_rows_of_equal_width_stand_together_where_nothing_fixes_the_order():
    """Inside the blocks of a ResNet-20; its residual streams are padded with zero channels."""
    network = mixed(resnet20_network)
    ordered = by_width(network)
    for operator in network.layers:
        before, after = rows(network, operator.name), rows(ordered, operator.name)
        if operator.name.endswith(".conv1"):
            assert (np.diff(after.astype(int)) <= 0).all()
            assert sorted(before) == sorted(after)
        else:
            assert np.array_equal(before, after)


def test_a_residual_stream_has_one_order_for_all_its_layers():
    network = mixed(residual_network)
    ordered = by_width(network)
    stream = [op.name for op in network.layers if op.output in network.operators[3].inputs]
    assert len(stream) == 2
    together = sum(rows(ordered, name).astype(int) for name in stream)
    assert (np.diff(together) <= 0).all()


def test_a_network_of_one_width_stays_as_it_is():
    network = residual_network()
    for before, after in zip(network.operators, by_width(network).operators, strict=True):
        if before.weights is not None:
            assert np.array_equal(before.weights.codes, after.weights.codes)


def test_the_compiler_stores_ordered_channels_in_fewer_bytes():
    from hw_models.samples import NetworkBuilder
    from hw_models.tflite import lower, serialize
    from hw_models.vela import Device, ask_vela

    b = NetworkBuilder((16, 8, 8), np.random.default_rng(0))
    wide = b.conv(b.conv("input", 64), 64)
    network = mixed(lambda: b.build(b.head(wide, 10)), (2, 8))
    target = load_target("edge-npu")
    device = Device(target.accelerator, target.system_config, target.memory_mode)

    def stored(network):
        model = serialize(lower(network), network.input, network.output)
        return ask_vela(model, device).encoded_weight_bytes

    assert stored(by_width(network)) < 0.95 * stored(network)
    assert target.cost(by_width(network)) == target.cost(network)
