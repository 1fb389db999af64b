"""PSG against the theory it comes from: gradient descent in a warped space (arXiv 2005.11035)."""

import math

import pytest
import torch

from ajpq.finetune.psg import PSGD, channel_distance, grid_distance, zero_distance
from ajpq.quantizers.uniform import UniformQuantizer


def psg_path(start, gradient, target, *, eps, lambda_s, rate, steps):
    x = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    optimizer = PSGD(
        torch.optim.SGD([x], lr=rate),
        {x: lambda w: (w - target).abs()},
        lambda_s=lambda_s,
        eps=eps,
    )
    for _ in range(steps):
        x.grad = gradient(x.detach())
        optimizer.step()
    return float(x.detach())


@pytest.mark.parametrize("start", [1.0, -0.7])
def test_equals_gradient_descent_in_the_warped_space(start):
    """y = f(x) = 2 sign(x) (sqrt(|x| + eps) - sqrt(eps)), so 1 / f'(x)^2 = |x| + eps = s(x)."""
    eps, rate, steps, goal = 0.01, 1e-4, 20_000, 0.3 * math.copysign(1, start)

    def warp(x):
        return math.copysign(2 * (math.sqrt(abs(x) + eps) - math.sqrt(eps)), x)

    def unwarp(y):
        return math.copysign((abs(y) / 2 + math.sqrt(eps)) ** 2 - eps, y)

    y = warp(start)
    for _ in range(steps):
        x = unwarp(y)
        slope = math.sqrt(abs(x) + eps)  # dx/dy
        y -= rate * (x - goal) * slope
    found = psg_path(start, lambda x: x - goal, 0.0, eps=eps, lambda_s=1.0, rate=rate, steps=steps)
    assert found == pytest.approx(unwarp(y), abs=2e-5)
    assert abs(found - start) > 0.1  # both have really moved


def test_follows_the_logistic_curve():
    """With loss (x - a)^2 / 2 and target 0 the flow is dx/dt = (x + eps)(a - x), solved exactly."""
    eps, a, start, rate, steps = 0.05, 1.0, 0.1, 1e-4, 20_000
    growth = (start + eps) / (a - start) * math.exp((a + eps) * rate * steps)
    exact = (growth * a - eps) / (1 + growth)
    found = psg_path(start, lambda x: x - a, 0.0, eps=eps, lambda_s=1.0, rate=rate, steps=steps)
    assert found == pytest.approx(exact, abs=1e-4)


def test_weights_on_their_target_hardly_move_and_others_do():
    scale = 0.1
    weight = torch.tensor([[0.3, 0.349, 0.0]], requires_grad=True)
    bits, scales = torch.tensor([4]), torch.tensor([scale])
    distance = grid_distance(bits, scales, UniformQuantizer())
    optimizer = PSGD(torch.optim.SGD([weight], lr=1.0), {weight: distance}, lambda_s=10, eps=1e-4)
    weight.grad = torch.full_like(weight, -0.01)
    before = weight.detach().clone()
    optimizer.step()
    moved = (weight.detach() - before)[0]
    assert moved[0] == pytest.approx(1e-5, rel=0.01)
    assert moved[1] == pytest.approx(0.01 * 10 * (0.049 + 1e-4), rel=0.01)


def test_pruned_rows_aim_at_zero_and_untouched_rows_at_themselves():
    weight = torch.tensor([[0.24], [0.24]])
    distance = grid_distance(torch.tensor([0, 32]), torch.ones(2), UniformQuantizer())(weight)
    assert distance.tolist() == [[pytest.approx(0.24)], [0.0]]


def test_a_channel_is_as_far_from_zero_as_the_root_mean_square_of_its_weights():
    weight = torch.tensor([[[[3.0, -4.0]]], [[[0.0, 0.0]]]])
    distance = channel_distance(weight)
    assert distance.shape == weight.shape
    assert distance.flatten(1).tolist() == [[pytest.approx(12.5**0.5)] * 2, [0.0, 0.0]]


def test_normalised_scaling_divides_by_the_largest_distance():
    weight = torch.tensor([0.5, 2.0], requires_grad=True)
    optimizer = PSGD(
        torch.optim.SGD([weight], lr=1.0),
        {weight: zero_distance},
        lambda_s=1.0,
        eps=0.0,
        scaling="normalised",
    )
    weight.grad = torch.ones(2)
    optimizer.step()
    assert weight.tolist() == pytest.approx([0.25, 1.0])


@pytest.mark.parametrize("inner", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_wraps_any_optimizer_and_its_scheduler(inner):
    free, bound = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = PSGD(inner([free, bound], lr=0.1), {bound: zero_distance}, lambda_s=2.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for parameter in (free, bound):
        parameter.grad = torch.ones(2)
    optimizer.step()
    scheduler.step()
    assert optimizer.inner.param_groups[0]["lr"] == pytest.approx(0.05)
    assert (free < 1).all()
    assert (bound < 1).all()
    copy = PSGD(inner([free, bound], lr=0.1), {bound: zero_distance})
    copy.load_state_dict(optimizer.state_dict())
    assert copy.param_groups[0]["lr"] == pytest.approx(0.05)


def test_refuses_settings_that_make_no_sense():
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="lambda_s=0"):
        PSGD(torch.optim.SGD([weight], lr=1.0), {}, lambda_s=0)
