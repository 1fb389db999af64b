"""Layers as blocks: how they are cut, what is important, and what a budget leaves of them."""

import pytest
import torch

from ajpq.methods.blocks import (
    Blocks,
    at_rate_within,
    block_length,
    cut,
    deviations,
    importance_of,
)
from ajpq.packed import smallest_bits
from ajpq.quantizers.codebook import refined, spread


def blocks_of(seed, shape=(32, 16, 3, 3), words=32, rate=0.0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    coded = torch.ones(len(weight), dtype=torch.bool)
    gain = deviations(weight)
    importance = torch.rand(cut(weight, coded, gain, 9).shape, generator=generator) + 0.5
    importance = importance / importance.mean()
    values = cut(weight, coded, gain, 9)
    book = refined(values, importance, spread(values, words), 0.0, 3)
    return Blocks(weight, coded, gain, importance, book, rate, torch.full((len(weight),), 5))


def bits_of(layer):
    return smallest_bits([(8, layer.codes()[0].to(torch.int8).numpy())])[0]


@pytest.mark.parametrize(
    ("shape", "channels", "length"),
    [
        ((8, 4, 3, 3), 4, 9),
        ((8, 1, 5, 5), 4, 25),
        ((8, 12, 1, 1), 4, 4),
        ((8, 6, 1, 1), 4, 2),
        ((8, 16), 8, 8),
        ((8, 3), 16, 1),
    ],
)
def test_lengths_of_blocks(shape, channels, length):
    assert block_length(torch.zeros(shape), channels) == length


def test_rows_are_cut_in_order_and_divided_by_their_gain():
    weight = torch.arange(24.0).view(3, 8)
    coded = torch.tensor([True, False, True])
    blocks = cut(weight, coded, torch.tensor([1.0, 5.0, 2.0]), 4)
    assert blocks.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 8.5, 9, 9.5], [10, 10.5, 11, 11.5]]


def test_equal_weights_have_no_deviation_to_divide_by():
    assert deviations(torch.tensor([[2.0, 2.0], [1.0, -1.0]])).tolist() == [
        1,
        pytest.approx(2**0.5),
    ]


def test_importance_is_a_power_of_the_gradient():
    gradient = torch.tensor([[1.0, 4.0], [9.0, 9.0]])
    coded = torch.tensor([True, False])
    assert importance_of(gradient, coded, 2, 0.5).tolist() == [
        [pytest.approx(2 / 3), pytest.approx(4 / 3)]
    ]
    assert importance_of(gradient, coded, 2, 0.0).tolist() == [[1, 1]]
    assert importance_of(0 * gradient, coded, 2, 1.0).tolist() == [[1, 1]]


@pytest.mark.parametrize("bits_per_weight", [0.5, 0.7])
def test_layers_keep_within_their_bits_and_use_them(bits_per_weight):
    layers = [blocks_of(0), blocks_of(1, (64, 16, 3, 3), 64)]
    size = sum(layer.weight.numel() for layer in layers)
    for _ in range(3):
        layers = [layer.moved() for layer in at_rate_within(layers, bits_per_weight)]
    found = at_rate_within(layers, bits_per_weight)
    assert found[0].rate == found[1].rate > 0
    assert 0.98 * bits_per_weight * size < sum(map(bits_of, found)) <= bits_per_weight * size


def test_where_bits_are_enough_they_cost_nothing():
    assert at_rate_within([blocks_of(0)], 8.0)[0].rate == 0


def test_another_round_never_raises_the_error():
    layer = blocks_of(1)

    def error(layer):
        codes, steps = layer.codes()
        wrong = (codes * steps.view(-1, 1, 1, 1) - layer.weight) / layer.gain.view(-1, 1, 1, 1)
        return float((wrong.reshape(-1, 9).square() * layer.importance).sum())

    before = error(layer)
    for _ in range(5):
        layer = layer.moved()
    assert error(layer) < before
