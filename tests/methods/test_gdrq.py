"""Scale-Clip against closed forms, and how it follows the weights and activations of a network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from ajpq.finetune.goal import Moment
from ajpq.finetune.quantized import Quantized
from ajpq.methods.gdrq import GDRQ, clipped, group_means, mean_size
from hw_models.network import Edge
from tests import modules
from tests.finetune.test_training import QUANTIZER, goal_of

seeds = st.integers(0, 2**31)


def test_levels_by_hand():
    weight = torch.tensor([[0.4, -1.6, 1.0, 3.0, -0.1, -3.9]])  # mean size 10 / 6
    bits = torch.tensor([3])
    own = GDRQ(k=1.8).start(weight, bits, QUANTIZER)
    assert float(own["clip"]) == pytest.approx(3.0)
    made = GDRQ().quantized(weight, bits, own, QUANTIZER)
    torch.testing.assert_close(made, torch.tensor([[0.0, -2.0, 1.0, 3.0, 0.0, -3.0]]))


def test_the_uniform_distribution_is_left_alone_and_others_come_to_a_rest():
    uniform = torch.linspace(-1, 1, 20_001).unsqueeze(0)
    bits = torch.tensor([4])
    clip = 2 * group_means(uniform, bits, 1)
    assert float(clip) == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(clipped(uniform, clip, bits), uniform, rtol=0, atol=1e-3)
    quantiles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    weight = torch.distributions.Normal(0.0, 1.0).icdf(quantiles).unsqueeze(0)
    for _ in range(30):
        clip = 2 * group_means(weight, bits, 1)
        weight = clipped(weight, clip, bits)

    def gap(t):
        """Of ``E min(|x|, t) = t / 2`` for a normal ``x``."""
        return 2 * (norm.pdf(0) - norm.pdf(t) + t * norm.sf(t)) - t / 2

    assert float(clip) == pytest.approx(brentq(gap, 1, 2), rel=1e-3)


def test_a_group_shares_its_clip_and_rows_without_codes_do_not_count():
    weight = torch.tensor([[1.0, -3.0], [2.0, 2.0], [100.0, 9.0], [4.0, 0.0], [7.0, -9.0]])
    bits = torch.tensor([2, 4, 0, 3, 32])
    means = group_means(weight, bits, 2)
    assert means.tolist() == [2.0, 2.0, 2.0, 2.0, 1.0]
    assert group_means(weight, bits, 1).tolist() == [2.0, 2.0, 1.0, 2.0, 1.0]
    assert group_means(weight, torch.full((5,), 4), 9)[0] == pytest.approx(13.7)
    assert torch.equal(clipped(weight, means, bits)[[2, 4]], weight[[2, 4]])


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([2, 3, 4]), st.booleans())
def test_invariants_of_activations(seed, bits, signed):
    edge, method = Edge("e", (6, 3, 3), bits, signed), GDRQ()
    values = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(seed))
    own = method.start_edge(values, edge)
    made = method.quantized_edge(values, edge, own)
    torch.testing.assert_close(method.quantized_edge(made, edge, own), made)
    low, high = edge.code_range
    assert len(made.unique()) <= high - low + 1
    assert (made.flatten()[values.flatten().argsort()].diff() >= 0).all()
    twice = method.start_edge(2 * values, edge)
    torch.testing.assert_close(method.quantized_edge(2 * values, edge, twice), 2 * made)
    assert float(made.max()) <= float(own["clip"]) * (1 + 1e-6)


def test_zeros_of_relu_do_not_count():
    values = torch.tensor([[0.0, 0.0, 0.0, 2.0, 4.0]])
    assert float(mean_size(values)) == 3
    assert float(mean_size(torch.zeros(2, 2))) == 1


@pytest.mark.parametrize("signed", [False, True])
def test_gradients_pass_rounding_and_stop_at_the_clip(signed):
    """Those of clip(x, -T, T), by finite differences."""
    edge, method, own = Edge("e", (1, 200), 3, signed), GDRQ(), {"clip": torch.tensor(1.2)}
    low, high = edge.code_range
    values = torch.linspace(-3, 3, 200).view(1, 1, 200).requires_grad_()
    method.quantized_edge(values, edge, own).sum().backward()
    step = 1.2 / high

    def clip(x):
        return np.clip(x, low * step, high * step)

    x = values.detach().double().numpy()
    expected = (clip(x + 1e-6) - clip(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(values.grad.numpy(), expected, atol=1e-6)


def test_weights_beyond_the_clip_get_no_gradient():
    weight = torch.tensor([[0.1, 0.9, -5.0, 1.05]]).requires_grad_()
    own = {"clip": torch.tensor([1.0])}
    made = GDRQ().quantized(weight, torch.tensor([3]), own, QUANTIZER)
    made.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert weight.grad.tolist() == [[1.0, 2.0, 0.0, 0.0]]


def test_an_epoch_begins_with_clipped_weights_and_the_running_mean():
    graph, tensors = modules.traced("option_a")
    state = {name: value for name, value in tensors.items() if value.is_floating_point()}
    goal, method = goal_of(graph, state, bits=3), GDRQ(momentum=0.25)
    edge = Edge("e", (4,), 2, False)
    network = Quantized(graph, goal, method, learned={"e": ("e", edge), "f": ("e", edge)})
    state |= {"edge.e.clip": torch.tensor(1.0)}
    seen = {}

    def loss(weights, hook):
        seen.update(weights)
        hook("other", torch.ones(3))
        hook("f", hook("e", torch.tensor([0.0, 2.0, 4.0])))
        return torch.tensor(0.0)

    moment = Moment(2, 0.0, graph, goal, state, network.learned, network.hook(state), loss)
    found = method.refreshed(moment)
    # the edge e holds 2 and 4, f what e rounds them to: 1 and 1
    assert float(found["edge.e.clip"]) == pytest.approx(0.75 * 1 + 0.25 * 2 * (3 + 1) / 2)
    assert float(state["edge.e.clip"]) == 1
    for layer in graph.layers:
        name = layer.node.parameters["weight"]
        bound = 2 * state[name].abs().flatten(1).mean(1)
        torch.testing.assert_close(found[f"{layer.name}.clip"], bound)
        shape = (-1, *[1] * (state[name].dim() - 1))
        expected = state[name].clamp(-bound.view(shape), bound.view(shape))
        torch.testing.assert_close(found[name], expected)
        assert len(seen[layer.name][0].unique()) <= 7
    assert method.edge_step(edge, {"clip": torch.tensor(0.9)}) == pytest.approx(0.3)
