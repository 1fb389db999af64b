"""What single changes cost, and that sharing the way to them changes nothing."""

from types import SimpleNamespace

import pytest
import torch

from ajpq.base import build_problem
from ajpq.compressed import compressed_view, fit_scales, quantize_edges, weight_bits
from ajpq.evaluate import kl_divergence
from ajpq.graph.execute import execute
from ajpq.graph.structure import layers
from ajpq.policy import LayerPolicy, uniform_policy
from ajpq.quantizers import make_quantizer
from ajpq.simulation.grids import edge_grids
from envs import harm as harms
from envs.digits_task import digits_config
from hw_models.network import FLOAT_BITS
from tests.modules import NETWORKS, images, ranges, traced


@pytest.fixture(scope="module")
def problem():
    return build_problem(digits_config())


@pytest.fixture(scope="module")
def changes(problem):
    """Every layer with narrow weights, with pruned channels, and with narrow inputs."""
    found = []
    for name, channels in problem.channels.items():
        for bits, activation in (((2,), 32), ((0, 32), 32), ((32,), 4), ((3,), 8)):
            widths = (bits * channels)[:channels]
            found.append({name: LayerPolicy(weight_bits=widths, activation_bits=activation)})
    names = list(problem.channels)
    both = {name: LayerPolicy(weight_bits=(2,) * problem.channels[name]) for name in names[2:5:2]}
    return [*found, both, {}]


def alone(graph, state, policy, found, shown):
    """Logits by a run of its own from the images on."""
    quantizer, widths = make_quantizer(policy.quantizer), weight_bits(graph, policy)
    scales = fit_scales(graph, state, widths, quantizer)
    view = compressed_view(graph, state, widths, scales, quantizer)
    edge = quantize_edges(edge_grids(graph, policy, found))
    with torch.no_grad():
        return execute(graph, view, shown, edge=edge)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_run_that_begins_where_the_change_is_gives_the_same_bits(problem, changes, backwards):
    harm, sample = harms.Harm(problem), problem.search_sample
    few = harm.images_each
    for own in changes[::-1] if backwards else changes:
        policy = harms.changed(problem.uniform(FLOAT_BITS), own)
        logits = alone(problem.graph, problem.state, policy, problem.ranges, sample.images[:few])
        assert harm(own) == kl_divergence(sample.float_logits[:few], logits)


@pytest.mark.parametrize("most_bytes", [0, harms._MOST_BYTES])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_does_for_every_kind_of_network(name, most_bytes, monkeypatch):
    monkeypatch.setattr(harms, "_MOST_BYTES", most_bytes)
    graph, state = traced(name)
    shown = images(4)
    found, beginning = ranges(graph, state, shown), harms.Beginning(graph, state, shown)
    whole = uniform_policy({layer.name: layer.channels for layer in layers(graph)}, 32, 32)
    for layer in layers(graph):
        for bits, activation in (((2,), 32), ((0, 32), 32), ((32,), 4), ((32,), 8)):
            widths = (bits * layer.channels)[: layer.channels]
            own = LayerPolicy(weight_bits=widths, activation_bits=activation)
            policy = harms.changed(whole, {layer.name: own})
            wanted = alone(graph, state, policy, found, shown)
            assert torch.equal(harms.answered(policy, found, beginning), wanted)


def test_a_run_begins_at_the_layer_that_changes(problem):
    places = {}
    for name, channels in problem.channels.items():
        policy = harms.changed(
            problem.uniform(FLOAT_BITS),
            {name: LayerPolicy(weight_bits=(4,) * channels, activation_bits=32)},
        )
        grids = edge_grids(problem.graph, policy, problem.ranges)
        places[name] = harms.first_changed(problem.graph, weight_bits(problem.graph, policy), grids)
    assert {name: problem.graph.nodes[place].name for name, place in places.items()} == {
        name: name for name in problem.channels
    }


def test_only_what_is_still_read_is_kept(problem):
    images = problem.search_sample.images[:2]
    beginning = harms.Beginning(problem.graph, problem.state, images)
    with torch.no_grad():
        kept = [beginning.before(place) for place in range(len(problem.graph.nodes) + 1)]
    assert max(map(len, kept)) <= 3  # a residual block's input, the way through it, its shortcut
    assert kept[-1].keys() == {problem.graph.output}


def test_a_harm_is_computed_once_and_paid_for_by_whoever_asks(monkeypatch):
    computed = []
    monkeypatch.setattr(harms, "divergence", lambda problem, *own: computed.append(own) or 1)
    sample = SimpleNamespace(labels=range(50), images=torch.zeros(50))
    harm = harms.Harm(SimpleNamespace(search_sample=sample, graph=None, state={}))
    for widths in ((2, 2), (2, 3), (2, 2)):
        harm({"conv": LayerPolicy(weight_bits=widths)})
    harm({"other": LayerPolicy(weight_bits=(2, 2))})
    assert len(computed) == 3
    assert harm.images == 4 * 50
