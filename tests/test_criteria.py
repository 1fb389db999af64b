"""Criteria against hand-computed scores and against what removing a channel really does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ajpq.criteria import CRITERIA, ChannelStatistics, channel_scores, gradients
from ajpq.graph.execute import execute
from ajpq.graph.structure import layers
from ajpq.graph.trace import trace
from hw_models.errors import UnknownNameError


class Residual(nn.Module):
    """Two convolutions add into one stream; a third reads it alone."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 4, 1)
        self.two = nn.Conv2d(3, 4, 1)
        self.three = nn.Conv2d(4, 5, 1)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = F.relu(self.one(x) + self.two(x))
        x = F.relu(self.norm(self.three(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = Residual().eval()
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor([0.5, -2.0, 1.0, 0.1, 3.0]))
    return trace(model, (3, 4, 4)), dict(model.state_dict())


def zero_gradients(graph, state):
    return {
        layer.node.parameters["weight"]: torch.zeros_like(state[layer.node.parameters["weight"]])
        for layer in layers(graph)
    }


def test_norms_and_batchnorm_factors_by_hand():
    weight = torch.tensor([[3.0, -4.0], [1.0, 0.0]])
    statistics = ChannelStatistics(weight, torch.ones(2, 2), torch.tensor([-0.5, 2.0]))
    assert CRITERIA["l1"](statistics).tolist() == [7.0, 1.0]
    assert CRITERIA["l2"](statistics).tolist() == [5.0, 1.0]
    assert CRITERIA["batchnorm"](statistics).tolist() == [0.5, 2.0]
    assert CRITERIA["taylor"](statistics).tolist() == [1.0, 1.0]


def test_uncoupled_channels_rank_by_their_own_score(net):
    graph, state = net
    scores = channel_scores("batchnorm", graph, state, zero_gradients(graph, state))
    assert np.argsort(scores["three"]).tolist() == [3, 0, 2, 1, 4]
    assert scores["three"].mean() == pytest.approx(1.0)


def test_coupled_channels_share_the_sum(net):
    graph, state = net
    scores = channel_scores("l1", graph, state, zero_gradients(graph, state))
    assert np.array_equal(scores["one"], scores["two"])
    own = [state[f"{name}.weight"].flatten(1).abs().sum(1) for name in ("one", "two")]
    expected = sum(values / values.mean() for values in own)
    assert scores["one"] == pytest.approx(expected.numpy(), rel=1e-5)


def test_gradients_equal_autograd_on_the_module(net):
    graph, state = net
    model = Residual().eval()
    model.load_state_dict(state)
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(6, 3, 4, 4, generator=generator), torch.tensor([0, 1, 1, 0, 1, 0]))
        for _ in range(2)
    ]
    found = gradients(graph, state, F.cross_entropy, batches)
    loss = sum(F.cross_entropy(model(images), labels) for images, labels in batches) / 2
    loss.backward()
    for name, parameter in model.named_parameters():
        if name in found:
            assert found[name] == pytest.approx(parameter.grad, abs=1e-6)


def test_taylor_predicts_the_change_of_the_loss_to_first_order(net):
    """Scaling a channel by 1 - t changes the loss by -t * sum(w * g) as t goes to 0."""
    graph, state = net
    state = {name: value.double() for name, value in state.items()}
    images = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(2)).double()
    labels = torch.tensor([0, 1] * 4)
    found = gradients(graph, state, F.cross_entropy, [(images, labels)])
    name, t = "three.weight", 1e-5
    scores = CRITERIA["taylor"](ChannelStatistics(state[name], found[name], torch.ones(5)))
    base = F.cross_entropy(execute(graph, state, images), labels)
    for channel in range(5):
        weight = state[name].clone()
        weight[channel] *= 1 - t
        loss = F.cross_entropy(execute(graph, {**state, name: weight}, images), labels)
        assert float((loss - base) / t) ** 2 == pytest.approx(float(scores[channel]), rel=1e-2)


def test_an_unknown_criterion_is_answered_with_the_nearest(net):
    graph, state = net
    with pytest.raises(UnknownNameError, match="did you mean 'taylor'"):
        channel_scores("tylor", graph, state, {})
