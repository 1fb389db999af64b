"""Slopes against differences of the divergence itself."""

import numpy as np
import pytest
import torch

from ajpq.base import build_problem
from ajpq.graph.execute import batch_statistics, execute, mask_pruned
from ajpq.graph.structure import layers
from ajpq.policy import LayerPolicy
from ajpq.problem import augmented_images
from envs.digits_task import digits_config, digits_task
from envs.slopes import measured_slopes, neighbours, slope_images

OFFERED = (2, 3, 4, 5, 6, 7, 8)


@pytest.fixture(scope="module")
def problem():
    return build_problem(digits_config())


@pytest.fixture(scope="module")
def policy(problem):
    """Real activations, so that the divergence is smooth; one channel gone, mixed widths."""
    found = problem.uniform(32)
    changed = {}
    for number, (name, channels) in enumerate(problem.channels.items()):
        bits = [2 + (number + channel) % 7 for channel in range(channels)]
        changed[name] = LayerPolicy(weight_bits=tuple(bits), activation_bits=32)
    inner = next(name for name in changed if name.endswith("conv1"))
    bits = (0, *changed[inner].weight_bits[1:])
    changed[inner] = LayerPolicy(weight_bits=bits, activation_bits=32)
    return found.model_copy(update={"layers": changed})


def rows(problem, name, bits):
    layer = next(own for own in layers(problem.graph) if own.name == name)
    weight = problem.state[layer.node.parameters["weight"]]
    codes, scales = problem.codes(weight, torch.tensor(bits).clamp_min(2))
    live = (torch.tensor(bits) > 0).float()
    return (codes * (scales * live).view(-1, *[1] * (weight.dim() - 1))).double()


def divergence(problem, policy, weights, batches):
    """Mean over batches, in double precision."""
    state = {name: value.double() for name, value in problem.state.items()}
    live = {
        name: torch.tensor([float(bit > 0) for bit in layer.weight_bits], dtype=torch.float64)
        for name, layer in policy.layers.items()
    }
    found = []
    for images in batches:
        own = {name: value.clone() for name, value in state.items()}
        own |= {
            layer.node.parameters["weight"]: weights[layer.name] for layer in layers(problem.graph)
        }
        view = mask_pruned(problem.graph, own, live)
        with torch.no_grad():
            wanted = execute(problem.graph, state, images.double()).log_softmax(1)
            logits = execute(problem.graph, view, images.double(), batchnorm=batch_statistics)
        gap = wanted - logits.log_softmax(1)
        found.append(float((wanted.exp() * gap).sum(1).mean()))
    return np.array(found)


def test_they_are_the_derivative_of_the_divergence_and_know_how_sure_they_are(problem, policy):
    found = measured_slopes(problem, OFFERED, policy)
    batches = list(
        augmented_images(
            problem.dataset,
            problem.split.train,
            int(policy.hash[:8], 16),
            count=1024 // 64,
            batch_size=64,
        )
    )
    # A step's forward and backward pass, and the uncompressed network's answers.
    assert slope_images(problem) == (3 + 1) * 64 * len(batches)
    weights = {name: rows(problem, name, own.weight_bits) for name, own in policy.layers.items()}
    for number, name in enumerate(policy.layers):
        bits = np.array(policy.layers[name].weight_bits)
        channel = next(c for c in np.flatnonzero(bits) if 2 < bits[c] < 8)
        for column, step in enumerate((-1, 1)):
            moved = bits.copy()
            moved[channel] += step
            change, ends = rows(problem, name, moved.tolist()) - weights[name], []
            for way in (1e-4, -1e-4):
                moved_rows = {**weights, name: weights[name] + way * change}
                ends.append(divergence(problem, policy, moved_rows, batches))
            slopes = (ends[0] - ends[1]) / 2e-4
            own, error = found.nats[number][channel, column], found.errors[number][channel, column]
            assert own == pytest.approx(slopes.mean(), rel=2e-2, abs=2e-5)
            wanted = slopes.std(ddof=1) / np.sqrt(len(slopes))
            assert error == pytest.approx(wanted, rel=2e-2, abs=2e-5)


def test_pruned_channels_and_the_ends_of_the_range_have_none(problem, policy):
    found = measured_slopes(problem, OFFERED, policy)
    for layer, nats in zip(policy.layers.values(), found.nats, strict=True):
        assert (nats[layer.bits == 0] == 0).all()
        assert (nats[layer.bits == 2, 0] == 0).all()
        assert (nats[layer.bits == 8, 1] == 0).all()
        assert (nats[(layer.bits > 2) & (layer.bits < 8)] != 0).any()


def test_they_are_a_pure_function_and_leave_the_network_alone(problem, policy):
    before = {name: value.clone() for name, value in problem.state.items()}
    one, other = (measured_slopes(problem, OFFERED, policy) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one.nats, other.nats, strict=True))
    assert all(torch.equal(before[name], value) for name, value in problem.state.items())


def test_neighbours_are_the_next_widths_that_the_target_offers():
    narrower, wider = neighbours(np.array([0, 2, 4, 8]), np.array([2, 4, 8]))
    assert narrower.tolist() == [0, 2, 2, 4]
    assert wider.tolist() == [0, 4, 8, 8]


def test_a_task_has_them_where_candidates_are_not_trained():
    config = digits_config()
    assert digits_task(config).slopes is None
    direct = config.candidate.model_copy(update={"stages": ()})
    task = digits_task(config.model_copy(update={"candidate": direct}))
    found = task.slopes(task.policy(task.projected(task.prior)))
    assert [own.shape for own in found.nats] == [(len(own), 2) for own in task.scores.values()]
    assert task.slope_images > 0
