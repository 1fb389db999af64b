"""PTQ against exhaustive search, its gradients against the written rule and finite differences."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.base import build_problem
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.goal import Moment
from ajpq.finetune.recipe import Recipe, Stage
from ajpq.finetune.tuning import fine_tune
from ajpq.methods.lsq import LSQ
from ajpq.methods.ptq import (
    PTQ,
    best_thresholds,
    directions,
    normalised,
    projected,
    shared_threshold,
)
from ajpq.policy import uniform_policy
from ajpq.problem import network_of
from ajpq.runs.folder import load_weights, save_weights
from tests import modules
from tests.finetune.test_training import QUANTIZER, goal_of

seeds = st.integers(0, 2**31)


BASE = Recipe(name="tiny", stages=(Stage(mode="float", epochs=1, batch_size=64),))


def row(seed, size=7):
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 7))
def test_no_ternary_vector_is_closer_than_the_projection(seed, size):
    """Of all 3^n - 1 directions, each with its own best scale."""
    w = row(seed, size)
    every = np.array([t for t in product((-1, 0, 1), repeat=size) if any(t)], np.float64)
    exact = w[0].double().numpy()
    scales = every @ exact / (every**2).sum(1)
    errors = ((scales[:, None] * every - exact) ** 2).sum(1)
    made = projected(w, best_thresholds(w))[0].double().numpy()
    assert ((made - exact) ** 2).sum() == pytest.approx(errors.min(), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_best_threshold_has_the_largest_cosine_of_all_k(seed):
    w = row(seed, 40)
    exact = w[0].double().numpy()
    largest = np.argsort(-np.abs(exact))
    cosines = []
    for k in range(1, 41):
        t = np.zeros(40)
        t[largest[:k]] = np.sign(exact[largest[:k]])
        cosines.append(t @ exact / (np.linalg.norm(t) * np.linalg.norm(exact)))
    t = directions(w, best_thresholds(w))[0].double().numpy()
    assert t @ exact / (np.linalg.norm(t) * np.linalg.norm(exact)) == pytest.approx(max(cosines))


def test_by_hand():
    w = torch.tensor([[4.0, -4.0, 1.0, 0.0], [1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    made = projected(w, best_thresholds(w))
    expected = [[4.0, -4.0, 0.0, 0.0], [1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(made, torch.tensor(expected))
    half = projected(torch.tensor([[3.0, -5.0, 1.0]]), torch.tensor([0.4]))
    torch.testing.assert_close(half, torch.tensor([[4.0, -4.0, 0.0]]))


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0.0, 0.95))
def test_one_threshold_gives_the_share_and_projecting_twice_changes_nothing(seed, share):
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(6, size, generator=generator) for size in (9, 40)]
    threshold = shared_threshold(layers, share)
    zeros = 0
    for w in layers:
        thresholds = torch.full((6,), threshold)
        t = directions(w, thresholds)
        zeros += int((t == 0).sum())
        torch.testing.assert_close(directions(projected(w, thresholds), thresholds), t)
        assert torch.equal(directions(8 * w, thresholds), t)
    assert zeros == int(share * 6 * 49)


def own_of(weight, bits, threshold):
    own = PTQ().start(weight, bits, QUANTIZER)
    return {**own, "threshold": torch.full((len(weight),), threshold)}


@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_gradients_are_those_of_the_written_rule(decay):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 5, 3, 3, generator=generator).requires_grad_()
    upstream = torch.randn(weight.shape, generator=generator)
    bits = torch.full((4,), 2)
    own = own_of(weight.detach(), bits, 0.2)
    PTQ(decay=decay).quantized(weight, bits, own, QUANTIZER).backward(upstream)
    tensors = (weight, upstream, weight.grad)
    flat = (tensor.detach().double().flatten(1).numpy() for tensor in tensors)
    for w, g, found in zip(*flat, strict=True):
        t = np.sign(w) * (np.abs(w) / np.linalg.norm(w) >= 0.2)
        k = np.count_nonzero(t)
        a = w @ t / k
        expected = g + w * (g @ (a * t - w)) / (w @ w) + decay * (w - a * t)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_that_are_not_ternary_are_those_of_lsq():
    generator = torch.Generator().manual_seed(4)
    start, upstream = (torch.randn(5, 4, 3, 3, generator=generator) for _ in range(2))
    bits, found = torch.tensor([8, 2, 0, 32, 3]), []
    for method in (LSQ(), PTQ(decay=0.5)):
        weight = start.clone().requires_grad_()
        own = method.start(start, bits, QUANTIZER)
        own["step"].requires_grad_()
        made = method.quantized(weight, bits, own, QUANTIZER)
        made.backward(upstream)
        found.append([x[bits != 2] for x in (made.detach(), weight.grad, own["step"].grad)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_along_a_row_itself_the_gradient_is_exact(seed):
    """There the choice of what is pruned is constant, so finite differences tell the truth; under
    BatchNorm, which undoes the length of a row, no gradient is left along it."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 30, generator=generator, dtype=torch.float64)
    images = torch.randn(8, 30, generator=generator, dtype=torch.float64)
    threshold = best_thresholds(weight)

    def plain(w):
        return torch.tanh(images @ projected(w, threshold)[0]).sum()

    def normed(w):
        y = images @ projected(w, threshold)[0]
        return torch.tanh((y - y.mean()) / y.std()).square().sum()

    for loss in (plain, normed):
        w = weight.clone().requires_grad_()
        loss(w).backward()
        slope = (loss(weight * (1 + 1e-6)) - loss(weight * (1 - 1e-6))) / 2e-6
        assert float((w.grad * weight).sum()) == pytest.approx(float(slope), abs=1e-6)
    assert float((w.grad * weight).sum()) == pytest.approx(0, abs=1e-9)


def test_decay_alone_ends_in_the_projection():
    weight = row(5, 50).requires_grad_()
    bits, own = torch.tensor([2]), own_of(weight.detach(), torch.tensor([2]), 0.15)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    start = projected(weight.detach(), own["threshold"])
    for _ in range(40):
        optimizer.zero_grad()
        (0 * PTQ(decay=0.5).quantized(weight, bits, own, QUANTIZER)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), start, rtol=1e-4, atol=1e-4)


def moments(bits=2):
    graph, tensors = modules.traced("option_a")
    state = {name: value for name, value in tensors.items() if value.is_floating_point()}
    goal = goal_of(graph, state, bits=bits)
    weights = {la.name: state[la.node.parameters["weight"]] for la in graph.layers}
    return weights, lambda epoch: Moment(epoch, 0.0, graph, goal, state, {}, None, None)


def test_the_sparsity_grows_along_a_cubic_to_what_is_asked_for():
    weights, moment = moments()
    closest = PTQ().refreshed(moment(0))
    zeros = [(directions(w, closest[f"{n}.threshold"]) == 0).flatten() for n, w in weights.items()]
    first = float(torch.cat(zeros).float().mean())
    method = PTQ(sparsity=0.8, ramp_epochs=4)
    for epoch, left in enumerate((1, 27 / 64, 1 / 8, 1 / 64, 0, 0)):
        found = method.refreshed(moment(epoch))
        assert len({float(own[0]) for own in found.values()}) == 1
        made = [(directions(w, found[f"{n}.threshold"]) == 0).flatten() for n, w in weights.items()]
        every = torch.cat(made)
        expected = 0.8 + (first - 0.8) * left
        assert float(every.float().mean()) == pytest.approx(expected, abs=1 / len(every))
    assert float(PTQ(sparsity=0.8, ramp_epochs=0).refreshed(moment(0)).popitem()[1][0]) == float(
        found.popitem()[1][0]
    )


def test_a_network_without_ternary_rows_has_nothing_to_prune():
    weights, moment = moments(bits=4)
    found = PTQ(sparsity=0.8).refreshed(moment(9))
    assert found.keys() == {f"{name}.threshold" for name in weights}


def test_long_rows_lose_more_weights_than_short_ones():
    generator = torch.Generator().manual_seed(1)
    short, long = (torch.randn(64, size, generator=generator) for size in (144, 576))
    threshold = shared_threshold([short, long], 0.86)
    kept = [float((normalised(w).abs() >= threshold).float().mean()) for w in (short, long)]
    assert kept[0] > 2 * kept[1]


def test_the_shipped_network_is_ternary_and_as_sparse_as_asked(tmp_path):
    problem = build_problem(ProblemConfig(target="size-only", criterion="l1", seed=3, base=BASE))
    spec = {"name": "ptq", "params": {"sparsity": 0.75, "ramp_epochs": 0}}
    stage = Stage(mode="straight_through", method=spec, steps=3, batch_size=64)
    policy = uniform_policy(problem.channels, 2, 8, 8)
    save_weights(
        tmp_path / "w.safetensors", fine_tune(problem, policy, Recipe(name="r", stages=(stage,)))
    )
    weights = load_weights(tmp_path / "w.safetensors")
    network = network_of(problem, policy, weights)
    codes = {op.name: op.weights.codes for op in network.layers[1:-1]}
    every = np.concatenate([own.ravel() for own in codes.values()])
    assert set(np.unique(every)) == {-1, 0, 1}
    assert np.mean(every == 0) == pytest.approx(0.75, abs=0.02)
    for name, own in codes.items():
        real = own * weights.scales[name].numpy().reshape(-1, *[1] * (own.ndim - 1))
        np.testing.assert_allclose(real, weights.latent[f"{name}.weight"].numpy(), rtol=1e-5)
