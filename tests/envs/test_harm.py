"""What single changes cost, and that sharing the way to them changes nothing."""

from types import SimpleNamespace

import pytest
import torch

from ajpq.base import build_problem
from ajpq.compressed import compressed_view, fit_scales, quantize_edges, weight_bits
from ajpq.evaluate import kl_divergence
from ajpq.graph.execute import execute
from ajpq.policy import LayerPolicy
from ajpq.quantizers import make_quantizer
from ajpq.simulation.grids import edge_grids
from envs import harm as harms
from envs.digits_task import digits_config
from hw_models.network import FLOAT_BITS


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


def alone(problem, changes):
    """The divergence by a run of its own from the images on."""
    policy = harms.changed(problem.uniform(FLOAT_BITS), changes)
    quantizer, graph = make_quantizer(policy.quantizer), problem.graph
    widths = weight_bits(graph, policy)
    scales = fit_scales(graph, problem.state, widths, quantizer)
    view = compressed_view(graph, problem.state, widths, scales, quantizer)
    edge = quantize_edges(edge_grids(graph, policy, problem.ranges))
    sample, few = problem.search_sample, harms.Harm(problem).images_each
    with torch.no_grad():
        logits = execute(graph, view, sample.images[:few], edge=edge)
    return kl_divergence(sample.float_logits[:few], logits)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_run_that_begins_where_the_change_is_gives_the_same_bits(problem, changes, backwards):
    harm = harms.Harm(problem)
    for own in changes[::-1] if backwards else changes:
        assert harm(own) == alone(problem, own)


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
