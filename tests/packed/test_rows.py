"""Networks that a policy makes: 16-bit scales, whole biases, and equal answers when read back."""

import numpy as np
import pytest
import torch

from ajpq.apply import apply_policy, apply_unshrunk
from ajpq.packed import estimated_bytes, pack, unpack
from ajpq.packed.numbers import ESCAPE
from ajpq.packed.rows import numbers_of
from ajpq.reference import simulate
from hw_models.ordering import by_width
from tests.modules import NETWORKS, images, minmax, random_policy, ranges, traced
from tests.packed.test_container import assert_equal


def made(name, seed, widths, apply=apply_policy):
    graph, tensors = traced(name)
    policy = random_policy(graph, np.random.default_rng(seed), widths)
    return apply(graph, tensors, policy, ranges(graph, tensors, images(8)), minmax)


@pytest.mark.parametrize("apply", [apply_policy, apply_unshrunk])
@pytest.mark.parametrize("name", NETWORKS)
def test_reference_and_packed_network_are_equal_bit_for_bit(name, apply):
    network = made(name, 1, (2, 3, 4, 5, 8, 8, 0), apply)
    data = pack(network)
    found = unpack(data)
    assert_equal(found, network)
    assert torch.equal(simulate(found, images(5)), simulate(network, images(5)))
    assert abs(estimated_bytes(network) - len(data)) <= 8


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_in_an_integer_network_takes_32_bits(name):
    network = made(name, 2, (2, 4, 6, 8))
    scales, biases = numbers_of(network)
    assert (scales.classes != ESCAPE).all()
    assert (biases.classes != ESCAPE).all()
    for op in network.operators:
        if op.weights is not None and op.weights.codes.dtype == np.int8:
            assert not (op.weights.scales.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_of_real_values_keep_their_scales(name):
    network = made(name, 3, (32, 4, 8))
    data = pack(network)
    assert_equal(unpack(data), network)
    assert abs(estimated_bytes(network) - len(data)) <= 8


@pytest.mark.parametrize("name", NETWORKS)
def test_permuted_channels_come_back_permuted(name):
    network = by_width(made(name, 4, (2, 4, 8)))
    found = unpack(pack(network))
    assert_equal(found, network)
    assert torch.equal(simulate(found, images(5)), simulate(network, images(5)))
