"""EWGS against the rule as the paper writes it, and its curvature against exact Hessians."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.finetune.goal import Goal, Moment
from ajpq.finetune.quantized import Quantized, started
from ajpq.finetune.recipe import Stage
from ajpq.finetune.training import run_stage
from ajpq.methods import MethodSpec, make_method
from ajpq.methods.curvature import curvatures
from ajpq.methods.ewgs import EWGS, delta_of
from ajpq.methods.lsq import LSQ
from ajpq.methods.mid_rise import mid_rise_codes, mid_rise_steps
from ajpq.quantizers import snap
from hw_models.network import Edge
from tests import modules
from tests.finetune.test_training import QUANTIZER, goal_of, inputs_of
from tests.methods import case

RISING = MethodSpec(name="ewgs", params={"levels": "mid_rise"})
MID_RISE = make_method(RISING)


def own_starts(method, graph, state, goal):
    return {
        f"{layer.name}.{role}": value
        for layer in graph.layers
        for role, value in method.start(
            state[layer.node.parameters["weight"]], goal.bits[layer.name], QUANTIZER
        ).items()
    }


def by_the_paper(x, gradient, delta, levels):
    """The scaled gradient of values in [0, 1], in float64."""
    x_q = np.round(x * (levels - 1)) / (levels - 1)
    return gradient * (1 + delta * np.sign(gradient) * (x - x_q))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_get_the_gradient_of_the_paper(bits):
    generator = torch.Generator().manual_seed(bits)
    last, step, delta = 2 ** (bits - 1) - 1, 0.3, 0.7
    x = torch.rand(2, 3, 3, 3, generator=generator)  # positions in the interval
    weight = ((2 * x - 1) * last * step).requires_grad_()
    upstream = torch.randn(weight.shape, generator=generator)
    own = {"step": torch.full((2,), step), "delta": torch.tensor(delta)}
    EWGS().quantized(weight, torch.full((2,), bits), own, QUANTIZER).backward(upstream)
    # w = (2 x - 1) * last * step, of x_q as of x: the two factors cancel
    expected = by_the_paper(x.double().numpy(), upstream.double().numpy(), delta, 2 * last + 1)
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4, 7])
def test_the_levels_of_the_paper_have_no_zero(bits):
    """2**b levels at equal distances, and the nearest of them, against an exhaustive search."""
    generator = torch.Generator().manual_seed(bits)
    weight, step = torch.randn(3, 5, 3, 3, generator=generator), 2.5 / 2**bits
    own = {"step": torch.full((3,), step), "delta": torch.tensor(0.1)}
    made = MID_RISE.quantized(weight, torch.full((3,), bits), own, QUANTIZER)
    levels = (torch.arange(2**bits) - (2**bits - 1) / 2) * step
    nearest = levels[(weight.unsqueeze(-1) - levels).abs().argmin(-1)]
    torch.testing.assert_close(made, nearest)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_between_those_levels_get_the_gradient_of_the_paper(bits):
    generator = torch.Generator().manual_seed(bits)
    levels, step, delta = 2**bits, 0.3, 0.7
    x = torch.rand(2, 3, 3, 3, generator=generator)
    weight = ((2 * x - 1) * (levels - 1) / 2 * step).requires_grad_()
    upstream = torch.randn(weight.shape, generator=generator)
    own = {"step": torch.full((2,), step), "delta": torch.tensor(delta)}
    MID_RISE.quantized(weight, torch.full((2,), bits), own, QUANTIZER).backward(upstream)
    expected = by_the_paper(x.double().numpy(), upstream.double().numpy(), delta, levels)
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=2e-4, atol=1e-5)


def test_such_rows_are_stored_one_bit_wider_and_lose_nothing():
    bits = torch.tensor([2, 3, 4, 7, 8, 0, 32])
    weight = torch.randn(7, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    own = MID_RISE.start(weight, bits, QUANTIZER)
    made = MID_RISE.quantized(weight, bits, own, QUANTIZER)
    done = MID_RISE.settled(weight, bits, own, QUANTIZER)
    assert done.bits.tolist() == [3, 4, 5, 8, 8, 0, 32]
    codes = QUANTIZER.encode(done.weight, done.bits, done.steps)
    assert (codes[:4] % 2 == 1).all()
    torch.testing.assert_close(snap(done.weight, done.bits, codes, done.steps), made)
    plain = EWGS().quantized(weight, bits, own, QUANTIZER)
    assert torch.equal(made[4:], plain[4:])


def test_their_steps_start_at_the_optimum_of_a_normal_distribution():
    """Max, "Quantizing for minimum distortion", 1960: uniform steps for 4, 8 and 16 levels."""
    weight = torch.randn(3, 100_000, generator=torch.Generator().manual_seed(0))
    steps = mid_rise_steps(weight, torch.tensor([2, 3, 4]))
    torch.testing.assert_close(steps, torch.tensor([0.9957, 0.5860, 0.3352]), rtol=0.01, atol=0)


@pytest.mark.parametrize("bits", range(2, 8))
def test_no_other_step_starts_with_much_less_error(bits):
    weight = torch.randn(1, 2000, generator=torch.Generator().manual_seed(bits))
    width, half = torch.tensor([bits]), torch.tensor(2.0 ** (bits - 1))

    def error(step):
        return float((mid_rise_codes(weight / step, half) * step - weight).square().sum())

    least = min(error(step) for step in torch.linspace(0.02, 2.5, 500) * 4 / 2**bits)
    assert error(mid_rise_steps(weight, width)) <= 1.03 * least


def test_rows_of_zeros_stay_almost_that():
    weight, bits = torch.zeros(1, 9), torch.tensor([2])
    made = MID_RISE.quantized(weight, bits, MID_RISE.start(weight, bits, QUANTIZER), QUANTIZER)
    assert made.abs().max() < 1e-6


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), bits=st.sampled_from([2, 3, 4, 7, 8]))
def test_rows_between_steps_are_as_those_of_every_method(seed, bits):
    case.check_untouched_and_pruned(MID_RISE, seed)
    for check in (
        case.check_idempotent,
        case.check_monotone,
        case.check_scale_equivariant,
        case.check_gradients,
        case.check_settled,
    ):
        check(MID_RISE, seed, bits)


def test_their_step_gets_the_gradient_of_lsq():
    """By hand: the rounding error inside, the last level outside, over sqrt(weights * last)."""
    weight = torch.tensor([[0.2, 0.9, -0.6, 4.0, -5.0, 0.1]])
    step = torch.tensor([1.0]).requires_grad_()
    own = {"step": step, "delta": torch.tensor(0.0)}
    MID_RISE.quantized(weight, torch.tensor([2]), own, QUANTIZER).sum().backward()
    parts = [0.5 - 0.2, 0.5 - 0.9, -0.5 + 0.6, 1.5, -1.5, 0.5 - 0.1]
    assert float(step.grad) == pytest.approx(sum(parts) / (6 * 1.5) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("following", ["float", "psg"])
def test_a_plain_stage_behind_takes_the_wider_rows_back(following):
    net = modules.traced("option_a")
    graph, tensors = net
    state = {name: value for name, value in tensors.items() if value.is_floating_point()}
    goal = goal_of(graph, state, bits=2)
    after = MID_RISE.finished(graph, goal, {**tensors, **own_starts(MID_RISE, graph, state, goal)})
    assert any(name.endswith(".width") for name in after)
    stage = Stage(mode=following, steps=1, batch_size=4)
    done = run_stage(stage, inputs_of(net, goal), after, total_steps=1)
    for layer in graph.layers:
        assert torch.equal(done[f"{layer.name}.width"].long(), goal.bits[layer.name])


@pytest.mark.parametrize("following", [MethodSpec(name="lsq"), RISING])
def test_a_stage_behind_starts_with_grids_of_its_own(following):
    """The stage before leaves half steps and wider rows; what follows has the policy's width."""
    graph, tensors = modules.traced("option_a")
    state = {name: value for name, value in tensors.items() if value.is_floating_point()}
    goal = goal_of(graph, state, bits=2)
    own = own_starts(MID_RISE, graph, state, goal)
    after = MID_RISE.finished(graph, goal, {**state, **own})
    method = make_method(following)
    network = Quantized(graph, goal, method)
    begun = started(network, after, lambda: pytest.fail("no edge is learned"))
    for layer in graph.layers:
        weight, bits = after[layer.node.parameters["weight"]], goal.bits[layer.name]
        fresh = method.start(weight, bits, QUANTIZER)["step"]
        assert torch.equal(begun[f"{layer.name}.step"], fresh)
    done = method.finished(graph, goal, begun)
    kept = [done.get(f"{layer.name}.width", goal.bits[layer.name]) for layer in graph.layers]
    wider = 1 if following == RISING else 0
    for layer, widths in zip(graph.layers, kept, strict=True):
        expected = torch.where(goal.bits[layer.name] == 2, 2 + wider, goal.bits[layer.name])
        assert torch.equal(widths.long(), expected)


@pytest.mark.parametrize("signed", [False, True])
def test_activations_get_the_gradient_of_the_paper(signed):
    edge = Edge("e", (2, 4, 4), 2, signed)
    low, high = edge.code_range
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(3, 2, 4, 4, generator=generator)
    values = (low + x * (high - low)).mul(0.2).requires_grad_()
    upstream = torch.randn(x.shape, generator=generator)
    own = {"step": torch.tensor(0.2), "delta": torch.tensor(1.5)}
    EWGS().quantized_edge(values, edge, own).backward(upstream)
    levels = high - low + 1
    expected = by_the_paper(x.double().numpy(), upstream.double().numpy(), 1.5, levels)
    np.testing.assert_allclose(values.grad.numpy(), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_without_scaling_it_is_lsq(bits):
    generator = torch.Generator().manual_seed(bits)
    start, widths = torch.randn(5, 4, 3, 3, generator=generator), torch.full((5,), bits)
    upstream = torch.randn(start.shape, generator=generator)
    steps = QUANTIZER.fit(start, widths) * 0.8
    found = []
    for method in (LSQ(), EWGS()):
        weight, step = start.clone().requires_grad_(), steps.clone().requires_grad_()
        own = {"step": step, "delta": torch.tensor(0.0)}
        made = method.quantized(weight, widths, own, QUANTIZER)
        made.backward(upstream)
        found.append((made.detach(), weight.grad, step.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_estimate_is_exact_where_the_hessian_is_diagonal():
    """For a loss of a_i w_i^2 / 2 every sign vector gives the trace itself."""
    weight = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    bend = torch.rand(2, 5, generator=torch.Generator().manual_seed(1))
    unit = torch.tensor([[2.0], [0.0]])  # the second row does not count
    moment = Moment(
        3, 0.0, None, None, {}, {}, None, lambda w, hook: (bend * w["a"] ** 2).sum() / 2
    )
    layers, edges = curvatures(moment, {"a": weight}, {"a": unit}, lambda edge, x: None, 1)
    assert edges == {}
    assert float(layers["a"].mean) == pytest.approx(float((4 * bend[0]).mean()), rel=1e-5)
    gradient = 2 * bend[0] * weight[0]
    assert float(layers["a"].spread) == pytest.approx(float(gradient.std()), rel=1e-5)
    expected = float((4 * bend[0]).mean() / (3 * gradient.std()))
    assert float(delta_of(layers["a"])) == pytest.approx(expected, rel=1e-5)


def test_one_product_serves_layers_and_edges_that_depend_on_each_other():
    """Averaged over many signs, traces are those of torch's exact Hessian, block by block."""
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn(3, 3, generator=generator) for _ in range(2))
    images = torch.randn(1, 3, generator=generator)

    def loss(weights, hook):
        inner = hook("inner", torch.tanh(images @ weights["first"].T))
        return torch.tanh(inner @ weights["second"].T).square().sum()

    moment = Moment(0, 0.0, None, None, {}, {}, lambda edge, x: x, loss)
    weights = {"first": first, "second": second}
    units = {name: torch.ones(3, 1) for name in weights}
    unit = torch.tensor(0.5)
    by_layer, by_edge = curvatures(moment, weights, units, lambda edge, x: unit, 4000)

    def exact(function, at):
        hessian = torch.autograd.functional.hessian(function, at)
        return float(hessian.reshape(at.numel(), at.numel()).diagonal().mean())

    def plain(edge, x):
        return x

    expected = exact(lambda w: loss({"first": w, "second": second}, plain), first)
    assert float(by_layer["first"].mean) == pytest.approx(expected, abs=0.02)
    expected = exact(lambda w: loss({"first": first, "second": w}, plain), second)
    assert float(by_layer["second"].mean) == pytest.approx(expected, abs=0.02)
    at = torch.tanh(images @ first.T)
    expected = exact(lambda x: loss(weights, lambda edge, _: x), at)
    assert float(by_edge["inner"].mean) == pytest.approx(0.25 * expected, abs=0.02)


@pytest.mark.parametrize("bits", [2, 4])
def test_the_estimate_does_not_feed_on_the_present_factor(bits):
    """The Hessian is that of the loss; how its gradients are scaled on the way is no part of it."""
    edge, method = Edge("e", (64,), bits, True), EWGS()
    values = torch.randn(8, 64, generator=torch.Generator().manual_seed(bits))
    step = torch.tensor(0.5)

    def curvature(delta):
        own = {"step": step, "delta": torch.tensor(delta)}

        def loss(weights, hook):
            read = hook("e", values * weights["a"])
            return (read + 0.5 * read.square()).sum()

        moment = Moment(
            0, 0.0, None, None, {}, {}, lambda name, x: method.quantized_edge(x, edge, own), loss
        )
        units = {"a": torch.ones(64)}
        found, _ = curvatures(moment, {"a": torch.ones(64)}, units, lambda name, x: None, 50)
        return float(found["a"].mean)

    assert curvature(0.8) == pytest.approx(curvature(0.0), rel=0.1)


def test_the_factor_is_never_negative_and_measured_when_it_is_time():
    graph, tensors = modules.traced("option_a")
    state = {name: value for name, value in tensors.items() if value.is_floating_point()}
    goal, method = goal_of(graph, state, bits=2), EWGS(hessian_every=2)
    network = Quantized(graph, goal, method)
    own = own_starts(method, graph, state, goal)
    state |= own

    def loss(weights, hook):
        return sum((w**3).sum() for w in weights.values())

    moments = [
        Moment(epoch, 0.0, graph, goal, state, {}, network.hook(state), loss) for epoch in range(3)
    ]
    found = [method.refreshed(moment) for moment in moments]
    assert found[1] == {}
    assert found[0].keys() == {name for name in own if name.endswith(".delta")}
    assert all(float(value) >= 0 for value in found[0].values())
    assert EWGS().refreshed(moments[0]) == {}
    assert isinstance(moments[0].goal, Goal)
