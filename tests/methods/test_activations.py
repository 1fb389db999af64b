"""Learned activation grids against torch's own learnable fake quantization, and in a network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.base import build_problem
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.recipe import Recipe, Stage
from ajpq.finetune.tuning import Watch, fine_tune
from ajpq.graph.structure import GRID_PRESERVING
from ajpq.methods.activations import learned_edge, mse_step
from ajpq.methods.ewgs import EWGS
from ajpq.methods.lsq import LSQ
from ajpq.policy import uniform_policy
from ajpq.problem import network_of
from ajpq.quantizers.uniform import UniformQuantizer
from ajpq.runs.folder import load_weights, save_weights
from hw_models.network import Edge

BASE = Recipe(name="tiny", stages=(Stage(mode="float", epochs=1, batch_size=64),))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_gradients_are_those_of_torchs_own(bits, signed):
    edge = Edge("e", (2, 4, 4), bits, signed)
    low, high = edge.code_range
    values = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(bits))
    # Half a step beyond the ends torch has a gradient, but LSQ's equation 3 has none.
    rounded, at = (values / 0.4).round(), values / 0.4
    disputed = (low <= rounded) & (rounded <= high) & ((at < low) | (at > high))
    values[disputed] += 0.8
    upstream = torch.randn(values.shape, generator=torch.Generator().manual_seed(9))
    share = (values[0].numel() * high) ** -0.5
    found = []
    for quantize in (
        lambda x, s: learned_edge(x, edge, s),
        lambda x, s: torch._fake_quantize_learnable_per_tensor_affine(
            x, s, torch.zeros(1), low, high, share
        ),
    ):
        x, s = values.clone().requires_grad_(), torch.tensor([0.4], requires_grad=True)
        made = quantize(x, s)
        made.backward(upstream)
        found.append((made.detach(), x.grad, s.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def by_lsq(values, step, low, high, upstream):
    """Gradients of the values and of the step, by equations 5 and 3 of LSQ."""
    at = values / step
    inside = (low < at) & (at < high)
    of_step = torch.where(inside, at.round() - at, at.clamp(low, high))
    return upstream * inside, (upstream * of_step).sum()


@pytest.mark.parametrize("method", [LSQ(), EWGS(delta=0.0)])
@pytest.mark.parametrize(("bits", "signed"), [(2, False), (2, True), (3, False), (4, True)])
def test_beyond_the_ends_there_is_no_gradient_as_in_the_papers(method, bits, signed):
    """Also where a value still rounds to the last code; every tenth of a step is looked at."""
    edge, step = Edge("e", (500,), bits, signed), 0.3
    low, high = edge.code_range
    values = (torch.arange(low - 2, high + 2, 0.1) + 0.03) * step
    upstream = torch.randn(values.shape, generator=torch.Generator().manual_seed(bits))
    expected, of_step = by_lsq(values, step, low, high, upstream)
    x, s = values.clone()[None].requires_grad_(), torch.tensor(step, requires_grad=True)
    own = {"step": s, "delta": torch.tensor(0.0)}
    method.quantized_edge(x, edge, own).backward(upstream[None])
    torch.testing.assert_close(x.grad[0], expected)
    torch.testing.assert_close(s.grad, of_step * (len(values) * high) ** -0.5)
    if not signed:
        return
    x, s = values.clone()[None].requires_grad_(), torch.tensor([step], requires_grad=True)
    width = torch.tensor([bits])
    method.quantized(x, width, {**own, "step": s}, UniformQuantizer()).backward(upstream[None])
    torch.testing.assert_close(x.grad[0], expected)
    torch.testing.assert_close(s.grad[0], of_step * (len(values) * high) ** -0.5)


def test_the_gradient_of_the_step_is_a_finite_difference_of_its_surrogate():
    """With codes minus positions held, as the straight-through estimator does."""
    edge = Edge("e", (5,), 3, False)
    values = torch.rand(1, 5, dtype=torch.float64) * 4
    upstream = torch.randn(1, 5, dtype=torch.float64)
    at = 0.31
    position = values / at
    codes = position.round().clamp(0, 7)
    inside = (position > 0) & (position < 7)

    def surrogate(step):
        moved = torch.where(inside, values / step + (codes - position), codes)
        return float((moved * step * upstream).sum())

    step = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    (learned_edge(values, edge, step) * upstream).sum().backward()
    slope = (surrogate(at + 1e-6) - surrogate(at - 1e-6)) / 2e-6
    assert float(step.grad) == pytest.approx(slope * (5 * 7) ** -0.5, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([2, 3, 4]), st.booleans())
def test_invariants(seed, bits, signed):
    edge = Edge("e", (6, 3, 3), bits, signed)
    values = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(seed))
    step = mse_step(values, edge)
    made = learned_edge(values, edge, step)
    torch.testing.assert_close(learned_edge(made, edge, step), made)
    low, high = edge.code_range
    assert len(made.unique()) <= high - low + 1
    assert (made.flatten()[values.flatten().argsort()].diff() >= 0).all()
    torch.testing.assert_close(mse_step(2 * values, edge), 2 * step)
    torch.testing.assert_close(learned_edge(2 * values, edge, 2 * step), 2 * made)
    assert torch.equal(learned_edge(values, edge, -step), made)


def test_the_start_is_close_to_the_best_of_an_exhaustive_search():
    edge = Edge("e", (4096,), 2, False)
    values = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0)).relu()

    def error(step):
        return float(((values / step).round().clamp(0, 3) * step - values).square().sum())

    best = min(error(step) for step in torch.linspace(0.02, 3, 3000))
    assert error(mse_step(values, edge)) <= 1.02 * best
    assert float(mse_step(torch.zeros(1, 4), edge)) > 0


@pytest.mark.parametrize(("channels", "width"), [(16, 32), (32, 16), (64, 8)])
def test_the_start_is_that_of_the_whole_image(channels, width):
    """Zero padding has made the left column, and only it, much weaker."""
    edge, generator = Edge("e", (channels, width, width), 2, False), torch.Generator()
    values = torch.randn(128, channels, width, width, generator=generator.manual_seed(1)).relu()
    values[..., 0] *= 0.1

    def error(step):
        return float(((values / step).round().clamp(0, 3) * step - values).square().sum())

    best = min(error(step) for step in torch.linspace(0.1, 2, 40))
    assert error(mse_step(values, edge)) <= 1.05 * best


@pytest.fixture(scope="module")
def problem():
    return build_problem(ProblemConfig(target="size-only", criterion="l1", seed=3, base=BASE))


@pytest.mark.parametrize("method", ["lsq", "ewgs", "gdrq", "ptq"])
def test_the_shipped_network_has_the_steps_that_were_learned(problem, method, tmp_path):
    stage = Stage(
        mode="straight_through", method=method, activations="learned", steps=3, batch_size=64
    )
    policy = uniform_policy(problem.channels, 3, 2, 8)
    seen = {}

    def keep(step, state):
        seen.update(state())

    weights = fine_tune(problem, policy, Recipe(name="r", stages=(stage,)), Watch(on_state=keep))
    save_weights(tmp_path / "w.safetensors", weights)
    network = network_of(problem, policy, load_weights(tmp_path / "w.safetensors"))
    narrow = {name: edge for name, edge in network.edges.items() if edge.bits < 8}
    assert narrow
    moved = {n.output for n in problem.graph.nodes if n.kind in GRID_PRESERVING}
    for name, edge in narrow.items():
        if name not in moved:
            assert edge.scale == pytest.approx(float(seen[f"edge.{name}.step"]), rel=1e-6)
    for operator in network.layers:
        own = seen[f"{operator.name}.step"]
        torch.testing.assert_close(weights.scales[operator.name], own)
