"""What is remembered changes nothing but the time."""

import numpy as np
import pytest
import torch
from torch import nn

from ajpq.apply import apply_policy
from ajpq.graph.trace import trace
from ajpq.policy import uniform_policy
from ajpq.quantizers.uniform import UniformQuantizer
from ajpq.simulation.kernels import fastest
from ajpq.simulation.prefixes import Prefix, Prefixes, prefix_keys
from ajpq.simulation.ranking import prepare_ranking
from ajpq.simulation.recalibration import recalibrate
from tests.modules import NETWORKS, images, random_policy, ranges, traced

torch.set_num_threads(1)
QUANTIZE = UniformQuantizer().quantize


def neighbours(graph, seed=0):
    """Policies with other weights in one layer each, from the last to the first, and the one that
    they were made from."""
    rng = np.random.default_rng(seed)
    policy, other = (random_policy(graph, rng, (3, 4, 6, 8)) for _ in range(2))
    changed = []
    for name, own in reversed(policy.layers.items()):
        widths = {"weight_bits": other.layers[name].weight_bits}
        layers = {**policy.layers, name: own.model_copy(update=widths)}
        changed.append(policy.model_copy(update={"layers": layers}))
    return [policy, *changed, policy]


@pytest.mark.parametrize("name", NETWORKS)
def test_candidates_that_begin_alike_answer_as_if_they_were_alone(name):
    graph, tensors = traced(name)
    found, x = ranges(graph, tensors, images(16)), images(70, 3)
    memory = Prefixes(1 << 30)
    for policy in neighbours(graph):
        batches = [images(16, seed) for seed in range(2)]
        settings = {"batchnorm_batches": 2, "range_batches": 1}
        alone, together = (
            recalibrate(graph, tensors, policy, found, QUANTIZE, batches, prefixes=p, **settings)
            for p in (None, memory)
        )
        assert alone[1] == together[1]
        assert all(torch.equal(value, together[0][key]) for key, value in alone[0].items())
        network = apply_policy(graph, {**tensors, **alone[0]}, policy, alone[1], QUANTIZE)
        expected = prepare_ranking(network)(x)
        assert torch.equal(prepare_ranking(network, fastest(), memory)(x), expected)
    assert memory.nbytes > 0


def test_a_candidate_goes_on_where_it_begins_to_differ():
    graph, tensors = traced("option_a")
    found, x = ranges(graph, tensors, images(16)), images(8)
    first, late, *_, early, _ = neighbours(graph)
    networks = [apply_policy(graph, tensors, p, found, QUANTIZE) for p in (first, late, early)]
    memory = Prefixes(1 << 30)
    prepare_ranking(networks[0], prefixes=memory)(x)
    assert memory.nbytes == 0  # nothing else has begun like that
    prepare_ranking(networks[0], prefixes=memory)(x)
    skipped = [memory.longest(prefix_keys(network, {}), x) for network in networks]
    operators = len(networks[0].operators)
    assert skipped[0][0] == operators
    assert operators - 3 <= skipped[1][0] < operators
    assert skipped[2][0] == 0  # the codes of the images
    assert memory.longest(prefix_keys(networks[0], {}), images(8, 1)) is None


def test_channels_with_equal_codes_are_told_apart_by_their_batchnorm():
    """Two dead filters with different offsets: which one is pruned matters."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 12 * 12, 5),
    )
    with torch.no_grad():
        net[0].weight[:2] = 0
        net[1].bias[:2] = torch.tensor([3.0, 0.5])
    graph, tensors = trace(net, (3, 12, 12)), net.state_dict()
    found, batches, memory = ranges(graph, tensors, images(16)), [images(16)], Prefixes(1 << 30)
    settings = {"batchnorm_batches": 1, "range_batches": 1}
    for pruned in (0, 1):
        widths = uniform_policy({"0": 4, "3": 4, "7": 5}, 8, 8)
        bits = tuple(0 if channel == pruned else 8 for channel in range(4))
        layers = {**widths.layers, "0": widths.layers["0"].model_copy(update={"weight_bits": bits})}
        policy = widths.model_copy(update={"layers": layers})
        alone, together = (
            recalibrate(graph, tensors, policy, found, QUANTIZE, batches, prefixes=p, **settings)
            for p in (None, memory)
        )
        assert alone[1] == together[1]
        assert all(torch.equal(value, together[0][key]) for key, value in alone[0].items())


def test_what_has_come_before_is_told_from_what_is_new():
    memory = Prefixes(1000)
    assert memory.repeated([b"a", b"b", b"c"]) == frozenset()
    assert memory.repeated([b"a", b"b", b"d"]) == {b"a", b"b"}
    assert memory.repeated([b"d"]) == {b"d"}
    memory.repeated([str(number).encode() for number in range(1 << 16)])
    assert memory.repeated([b"a"]) == frozenset()


def test_memory_is_bounded_and_what_was_used_last_stays():
    memory = Prefixes(1000)
    shown = [images(1, seed) for seed in range(8)]
    values = torch.zeros(300, dtype=torch.uint8)
    for number, x in enumerate(shown):
        memory.keep(bytes([number]), Prefix("edge", values, {}, x))
        assert memory.longest([bytes([0])], shown[0]) is not None
    assert memory.nbytes == 900
    assert [memory.longest([bytes([n])], shown[n]) is not None for n in range(8)] == [
        n in (0, 6, 7) for n in range(8)
    ]
