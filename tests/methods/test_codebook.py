"""Weighted k-means against exhaustive search, scikit-learn and the written formulas."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from ajpq.quantizers.codebook import (
    Codebook,
    assigned,
    code_lengths,
    means,
    on_grid,
    rate_within,
    refined,
    spread,
)


def drawn(seed, count, length):
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randn(count, length, generator=generator, dtype=torch.float64)
    importance = torch.rand(count, length, generator=generator, dtype=torch.float64) + 0.01
    return blocks, importance


def error_of(blocks, importance, members):
    """Least weighted squared error of a partition, cluster by cluster."""
    total = 0.0
    for j in set(members):
        own = [i for i, member in enumerate(members) if member == j]
        w, g = blocks[own].numpy(), importance[own].numpy()
        centre = (g * w).sum(0) / g.sum(0)
        total += float((g * (w - centre) ** 2).sum())
    return total


def best_error(blocks, importance, words):
    partitions = itertools.product(range(words), repeat=len(blocks))
    return min(error_of(blocks, importance, members) for members in partitions)


def equal_codes(centroids):
    return Codebook(centroids, torch.zeros(len(centroids), dtype=centroids.dtype))


@pytest.mark.parametrize("seed", range(6))
def test_no_start_beats_the_exhaustive_optimum_and_one_of_all_pairs_reaches_it(seed):
    blocks, importance = drawn(seed, 7, 2)
    errors = []
    for pair in itertools.combinations(range(7), 2):
        start = equal_codes(blocks[list(pair)])
        book = refined(blocks, importance, start, 0.0, 10)
        members = assigned(blocks, importance, book).tolist()
        errors.append(error_of(blocks, importance, members))
    best = best_error(blocks, importance, 2)
    assert min(errors) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_weights_of_whole_blocks_are_those_of_scikit_learn(seed):
    blocks, importance = drawn(seed, 200, 4)
    weight = importance[:, :1].expand_as(importance)
    start = blocks[:8].clone()
    theirs = KMeans(8, init=start.numpy(), n_init=1, max_iter=300, tol=0).fit(
        blocks.numpy(), sample_weight=weight[:, 0].numpy()
    )
    book = refined(blocks, weight, equal_codes(start), 0.0, 100)
    np.testing.assert_allclose(book.centroids.numpy(), theirs.cluster_centers_, rtol=1e-9)
    assert assigned(blocks, weight, book).tolist() == theirs.labels_.tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 30), st.integers(1, 5), st.integers(1, 6))
def test_assignments_are_the_nearest_and_means_are_the_formula(seed, count, length, words):
    blocks, importance = drawn(seed, count, length)
    centroids = drawn(seed + 1, words, length)[0]
    bits = torch.arange(words, dtype=torch.float64)
    members = assigned(blocks, importance, Codebook(centroids, bits), rate=0.25)
    for w, g, member in zip(blocks, importance, members.tolist(), strict=True):
        costs = [
            float((g * (w - c) ** 2).sum() + 0.25 * b) for c, b in zip(centroids, bits, strict=True)
        ]
        assert costs[member] == pytest.approx(min(costs), abs=1e-9)
    moved = means(blocks, importance, members, centroids)
    for j in range(words):
        own = members == j
        expected = centroids[j]
        if own.any():
            expected = (importance[own] * blocks[own]).sum(0) / importance[own].sum(0)
        torch.testing.assert_close(moved[j], expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_no_round_raises_the_error(seed):
    blocks, importance = drawn(seed, 60, 3)
    book, before = equal_codes(blocks[:5]), float("inf")
    for _ in range(8):
        members = assigned(blocks, importance, book)
        error = error_of(blocks, importance, members.tolist())
        assert error <= before + 1e-9
        before, book = error, refined(blocks, importance, book, 0.0, 1)


def test_centroids_are_nudged_towards_weights_with_large_gradients():
    blocks = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    importance = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    moved = means(blocks, importance, torch.tensor([0, 0]), torch.zeros(1, 2))
    assert moved.tolist() == [[0.25, 0.75]]


def test_a_coordinate_without_importance_stays():
    blocks, importance = torch.ones(2, 2), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    moved = means(blocks, importance, torch.tensor([0, 0]), torch.full((2, 2), 7.0))
    assert moved.tolist() == [[7, 1], [7, 7]]


def test_code_lengths_are_those_of_an_ideal_code():
    """Counts 3.5, 1.5 and 0.5 of 5.5."""
    found = code_lengths(torch.tensor([0, 0, 1, 0]), 3)
    expected = [np.log2(5.5 / count) for count in (3.5, 1.5, 0.5)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_dear_bits_make_codes_shorter():
    blocks, importance = drawn(0, 500, 4)
    found = []
    for rate in (0.0, 0.1, 0.5):
        start = equal_codes(blocks[:16])
        members = assigned(blocks, importance, refined(blocks, importance, start, rate, 20), rate)
        share = np.unique(members.numpy(), return_counts=True)[1] / 500
        found.append(-float((share * np.log2(share)).sum()))
    assert found[0] > found[1] > found[2]


def test_a_start_is_spread_and_always_the_same():
    blocks = torch.cat([torch.zeros(500, 2), torch.full((1, 2), 9.0)])
    book = spread(blocks, 2)
    assert sorted(book.centroids[:, 0].tolist()) == [0, 9]
    blocks = drawn(1, 50, 3)[0]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert torch.equal(spread(blocks, 7).centroids, spread(blocks, 7).centroids)
    assert torch.equal(torch.get_rng_state(), state)
    assert spread(torch.ones(4, 2), 3).centroids.tolist() == [[1, 1]] * 3


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(5, 8))
def test_a_wide_grid_is_the_nearest_and_reaches_the_largest(seed, width):
    centroids = drawn(seed, 6, 4)[0]
    codes, step = on_grid(centroids, width)
    assert float(codes.abs().max()) == 2 ** (width - 1) - 1
    assert float((codes * step - centroids).abs().max()) <= float(step) / 2 + 1e-9
    assert torch.equal(codes, codes.round())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4))
def test_a_narrow_grid_loses_nearly_the_least(seed, width):
    """Compared with a thousand steps; never worse than the one that reaches the largest."""
    centroids, top = drawn(seed, 6, 4)[0], 2 ** (width - 1) - 1
    codes, step = on_grid(centroids, width)
    assert torch.equal(codes, codes.round())
    assert float(codes.abs().max()) <= top

    def lost(step):
        nearest = (centroids / step).round().clamp(-top, top)
        return float((nearest * step - centroids).square().sum())

    own, reach = float((codes * step - centroids).square().sum()), centroids.abs().max() / top
    assert own == pytest.approx(lost(step))
    assert own <= lost(reach) + 1e-12
    assert own <= 1.1 * min(lost(reach * share) for share in np.linspace(0.001, 1, 1000))


def test_the_grid_of_zeros():
    codes, step = on_grid(torch.zeros(2, 2), 5)
    assert codes.tolist() == [[0, 0], [0, 0]]
    assert step == 1


def test_the_rate_is_the_least_that_is_enough():
    assert rate_within(lambda rate: 1.0, 1.0) == 0
    assert rate_within(lambda rate: 8 - rate, 7.0) == pytest.approx(1, abs=0.01)
    assert 8 - rate_within(lambda rate: 8 - rate, 6.9) <= 6.9
    assert rate_within(lambda rate: 9.0, 1.0) == 4
