"""CoDeQ against the published formula and its rules for gradients, and what it settles to."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.finetune.quantized import Quantized
from ajpq.finetune.recipe import Stage
from ajpq.finetune.training import StageInputs, run_stage
from ajpq.methods.codeq import CoDeQ, dead_zone, grids
from tests import modules
from tests.finetune.test_training import QUANTIZER, batches_of, goal_of
from tests.methods import case

LEARNED = CoDeQ(max_bits=8)
seeds, widths = st.integers(0, 2**31), st.sampled_from([2, 3, 4, 5, 7])
logits = st.floats(0.05, 4)


def by_the_paper(w, absmax, logit, bits, upstream):
    """The formula in float64, and its gradients by hand where rounding, clipping and ReLU have
    the derivative 1: of ``w``, of ``logit``, of ``bits``."""
    q_max, t = 2.0 ** (bits - 1) - 1, math.tanh(logit)
    d = 2 * absmax * (1 - abs(t))
    s = (absmax - d / 2) / (q_max - 0.5) + 1e-8
    shift = d / 2 - s / 2
    u = np.sign(w) * np.maximum(np.abs(w) - shift, 0)
    q = np.clip(np.round(u / s), -q_max, q_max)
    made = s * q + shift * np.sign(q)
    by_s, by_shift = upstream * (q - u / s), upstream * (np.sign(q) - np.sign(w))
    d_by_logit = -2 * absmax * np.sign(t) * (1 - t**2)
    s_by_d = -0.5 / (q_max - 0.5)
    by_logit = d_by_logit * (by_s * s_by_d + by_shift * (0.5 - s_by_d / 2)).sum()
    s_by_bits = -(absmax - d / 2) / (q_max - 0.5) ** 2 * math.log(2) * 2 ** (bits - 1)
    by_bits = s_by_bits * (by_s - by_shift / 2).sum()
    return made, upstream, by_logit, by_bits


@settings(max_examples=40, deadline=None)
@given(seed=seeds, bits=widths, logit=st.floats(-3, 3).filter(lambda x: abs(x) > 0.05))
def test_values_and_gradients_are_those_of_the_paper(seed, bits, logit):
    generator = torch.Generator().manual_seed(seed)
    weight, upstream = (torch.randn(4, 9, generator=generator, dtype=torch.float64) for _ in "ab")
    numbers = torch.tensor([logit, bits], dtype=torch.float64)
    leaves = [leaf.clone().requires_grad_() for leaf in (weight, *numbers)]
    absmax = torch.tensor(1.5, dtype=torch.float64)  # some weights are clipped
    made = dead_zone(leaves[0], absmax, leaves[1], leaves[2])
    made.backward(upstream)
    expected = by_the_paper(weight.numpy(), 1.5, logit, bits, upstream.numpy())
    for ours, theirs in zip(
        [made.detach(), *(leaf.grad for leaf in leaves)], expected, strict=True
    ):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-11)


def test_three_bits_on_a_small_tensor():
    """absmax 1, a dead zone of 0.5 on either side, Q = 3: step 0.2, levels 0.6, 0.8 and 1."""
    logit = torch.tensor(math.atanh(0.5))
    weight = torch.tensor([[0.49, -0.51, 0.69, 0.71, -0.95, 3.0, 0.0]])
    made = dead_zone(weight, torch.tensor(1.0), logit, torch.tensor(3.0))
    expected = torch.tensor([[0.0, -0.6, 0.6, 0.8, -1.0, 1.0, 0.0]])
    torch.testing.assert_close(made, expected)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, bits=widths, logit=logits)
def test_invariants(seed, bits, logit):
    weight, width = case.weights(seed), torch.tensor(float(bits))
    one, at = torch.tensor(1.0), torch.tensor(logit)
    made = dead_zone(weight, one, at, width)
    torch.testing.assert_close(dead_zone(made, one, at, width), made)
    assert len(made.abs().unique()) <= 2 ** (bits - 1)  # zero among them
    assert (made.flatten()[weight.flatten().argsort()].diff() >= 0).all()
    torch.testing.assert_close(dead_zone(-weight, one, at, width), -made)
    torch.testing.assert_close(dead_zone(8 * weight, 8 * one, at, width), 8 * made)
    assert float(made.abs().max()) <= 1 + 1e-5


@settings(max_examples=20, deadline=None)
@given(seed=seeds, bits=widths, pair=st.tuples(logits, logits))
def test_zeros_stay_zeros_when_the_dead_zone_grows(seed, bits, pair):
    weight, width = case.weights(seed), torch.tensor(float(bits))
    wide, narrow = (
        dead_zone(weight, torch.tensor(2.0), torch.tensor(logit), width) == 0
        for logit in sorted(pair)
    )
    assert (wide | ~narrow).all()


@settings(max_examples=10, deadline=None)
@given(seed=seeds, bits=st.sampled_from([2, 4, 7]), logit=logits)
def test_the_published_case_holds_with_learned_widths_and_any_dead_zone(seed, bits, logit):
    for method in (CoDeQ(start_logit=logit), CoDeQ(start_logit=logit, max_bits=bits)):
        case.check_untouched_and_pruned(method, seed)
        for check in (
            case.check_idempotent,
            case.check_levels,
            case.check_monotone,
            case.check_scale_equivariant,
            case.check_settled,
        ):
            check(method, seed, bits)
    case.check_gradients(LEARNED, seed, bits)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, bits=widths, logit=logits)
def test_training_computes_with_the_formula_rounded_to_eight_bits(seed, bits, logit):
    weight, width = case.weights(seed), torch.full((4,), bits)
    made, own = case.quantized(CoDeQ(start_logit=logit), weight, width)
    absmax = torch.quantile(weight.abs().flatten(), 0.99)
    exact = dead_zone(weight, absmax, torch.tensor(logit), torch.tensor(float(bits)))
    codes = made / absmax * 127
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)
    assert float((made - exact).abs().max()) <= float(absmax) / 127 * 0.5001
    torch.testing.assert_close(own["step"], (absmax / 127).expand(4))


@pytest.mark.parametrize(("logit", "bits"), [(0.0, 2), (0.1, 3), (-0.5, 5), (3.0, 8), (0.7, 6)])
def test_widths_are_learned_per_layer(logit, bits):
    """round(6 * |tanh(logit)| + 2), whatever width the policy starts from."""
    assert round(6 * abs(math.tanh(logit)) + 2) == bits
    weight = torch.linspace(-1, 1, 8 * 16 * 9).view(8, 16, 3, 3)
    width = torch.full((8,), 4)
    own = LEARNED.start(weight, width, QUANTIZER) | {"width_logit": torch.tensor(logit)}
    made, _ = case.quantized(LEARNED, weight, width, own)
    assert len(made.abs().unique()) == 2 ** (bits - 1)
    left = LEARNED.settled(weight, width, own, QUANTIZER)
    assert set(left.bits.tolist()) == {2 if bits == 2 else 8}


def test_rows_of_eight_bits_keep_their_grid_and_the_quantile_is_of_the_others():
    weight, width = case.weights(0), torch.tensor([8, 4, 8, 4])
    made, _ = case.quantized(CoDeQ(start_logit=0.3), weight, width)
    plain = QUANTIZER.fit(weight, width)
    codes = QUANTIZER.encode(weight, width, plain)
    torch.testing.assert_close(made[[0, 2]], (codes * plain.view(-1, 1, 1, 1))[[0, 2]])
    largest = torch.quantile(weight[[1, 3]].abs().flatten(), 0.99) / 127
    torch.testing.assert_close(grids(weight, width, QUANTIZER)[[1, 3]], largest.expand(2))
    assert (made[[1, 3]] == 0).sum() > (made[[0, 2]] == 0).sum()


def test_a_channel_in_the_dead_zone_is_pruned_in_training_and_in_the_end():
    graph, tensors = modules.traced("option_a")
    state = {name: value for name, value in tensors.items() if value.is_floating_point()}
    layer = graph.layers[1]
    weight = layer.node.parameters["weight"]
    state[weight] = state[weight].clone()
    state[weight][0] *= 1e-3
    goal, method = goal_of(graph, state, bits=4), CoDeQ(start_logit=1.0)
    for each in graph.layers:
        own = method.start(state[each.node.parameters["weight"]], goal.bits[each.name], QUANTIZER)
        state |= {f"{each.name}.{role}": value for role, value in own.items()}
    view = Quantized(graph, goal, method).view(state)
    owner = layer.batchnorm or layer.node
    for name in (weight, owner.parameters["bias"]):
        assert view[name][0].abs().sum() == 0
        assert view[name][1].abs().sum() > 0
    done = method.finished(graph, goal, state)
    assert done[f"{layer.name}.width"].tolist() == [0] + [8] * (layer.channels - 1)


def test_a_layer_without_weights_has_a_grid_all_the_same():
    weight, width = torch.zeros(2, 3, 1, 1), torch.full((2,), 4)
    made, own = case.quantized(CoDeQ(), weight, width)
    assert made.abs().sum() == 0
    assert (own["step"] > 0).all()


@pytest.mark.parametrize(
    ("optimizer", "decays"),
    [("adam", (0.0, 30.0, 90.0)), ("sgd", (0.0, 5.0, 15.0))],  # momentum adds up tenfold
)
def test_the_decay_sets_the_sparsity_and_the_widths(optimizer, decays):
    graph, tensors = modules.traced("option_a")
    state = {name: value for name, value in tensors.items() if value.is_floating_point()}
    inputs = StageInputs(graph, batches_of(graph), 3, goal_of(graph, state, bits=4))
    zeros, logits = [], []
    for decay in decays:
        group = {"learning_rate": 0.003, "weight_decay": decay}
        params = {"dead_zone": group, "width": group, "max_bits": 6}
        stage = Stage(
            mode="straight_through",
            steps=12,
            batch_size=8,
            optimizer=optimizer,
            method={"name": "codeq", "params": params},
        )
        done = run_stage(stage, inputs, state, total_steps=12)
        weights = [done[layer.node.parameters["weight"]] for layer in graph.layers]
        zeros.append(sum(int((weight == 0).sum()) for weight in weights))
        logits.append([float(done[f"{layer.name}.width_logit"]) for layer in graph.layers])
    assert zeros[0] < zeros[1] < zeros[2]
    assert max(logits[1]) < min(logits[0])
    assert max(logits[2]) < min(logits[1])
