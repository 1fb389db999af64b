"""What the graph computes, against PyTorch."""

import pytest
import torch
from torch import nn

from ajpq.graph.execute import execute
from ajpq.graph.trace import trace


@pytest.mark.parametrize("size", [7, 8])
def test_a_strided_depthwise_convolution_trains_in_bf16_as_in_float32(size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False), nn.Flatten())
    graph, state = trace(model, (6, size, size)), model.state_dict()
    images, direction = torch.randn(3, 6, size, size), torch.randn(3, 6 * 4 * 4)

    def gradients(run):
        weight, x = state["0.weight"].clone().requires_grad_(), images.clone().requires_grad_()
        logits = run(weight, x)
        return [logits, *torch.autograd.grad((logits.float() * direction).sum(), [weight, x])]

    def in_bf16(weight, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return execute(graph, {"0.weight": weight}, x)

    exact = gradients(lambda weight, x: torch.func.functional_call(model, {"0.weight": weight}, x))
    for found, wanted in zip(gradients(in_bf16), exact, strict=True):
        assert found.shape == wanted.shape
        assert float(((found - wanted).norm() / wanted.norm()).detach()) < 0.01
