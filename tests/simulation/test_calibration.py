"""Calibration against PyTorch's own modules."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ajpq.compressed import quantize_edges
from ajpq.graph.execute import execute
from ajpq.graph.structure import DOMAINS, layers
from ajpq.policy import uniform_policy
from ajpq.simulation.calibration import activation_ranges, clips, recalibrate_batchnorm
from ajpq.simulation.grids import NARROW, ActivationRange, edge_grids
from tests.modules import NETWORKS, build, images, traced


@pytest.mark.parametrize("name", NETWORKS)
def test_batchnorm_statistics_are_the_mean_over_batches(name):
    """With ``momentum=None`` PyTorch averages them itself."""
    graph, tensors = traced(name)
    batches = [images(16, seed) for seed in range(3)]
    found = recalibrate_batchnorm(graph, tensors, batches, lambda edge, values: values)
    model = copy.deepcopy(build(name))
    model.load_state_dict(tensors)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    expected = {key: value for key, value in model.state_dict().items() if "running" in key}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-6)


def flat_beyond(function, edge):
    """Is the answer there what it is further out, as far as 8 bits of a range of 1 tell?"""
    near, far = (TORCH[function](torch.tensor(float(x))) for x in (edge, 4 * edge))
    return abs(float(near - far)) < 1 / 256


TORCH = {
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


@pytest.mark.parametrize(("function", "bounds"), DOMAINS.items())
def test_codes_reach_as_far_as_a_function_changes(function, bounds):
    for bound in filter(math.isfinite, bounds):
        assert flat_beyond(function, bound)
        nearer = TORCH[function](torch.tensor([0.9 * bound, 4 * bound]))
        assert abs(float(nearer.diff())) > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_ranges_are_the_largest_magnitudes(name):
    graph, tensors = traced(name)
    batches = [images(8, seed) for seed in range(2)]
    found = activation_ranges(graph, tensors, batches)
    seen: dict[str, list[float]] = {}

    def record(edge, values):
        readers = graph.consumers.get(edge, ())  # none of an entry: its layer alone
        functions = [*(node.attributes.get("function") for node in readers), None]
        used = values.clamp(*DOMAINS[functions[0]]) if functions[0] in DOMAINS else values
        seen.setdefault(edge, []).append(float(used.abs().max()))
        return values

    for batch in batches:
        execute(graph, tensors, batch, edge=record)
    assert {edge: own.maximum for edge, own in found.items()} == pytest.approx(
        {edge: max(values) for edge, values in seen.items()}, rel=1e-5
    )


def squared_error(values, bits, signed, limit):
    top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    step = limit / top
    codes = np.clip(np.rint(values / step), -top if signed else 0, top)
    return float(((codes * step - values) ** 2).mean())


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", NARROW)
def test_narrow_codes_reach_as_far_as_loses_least(bits, signed):
    """Within a tenth of the least error of many limits; the largest magnitude has more."""
    x = np.random.default_rng(bits).standard_t(3, 4000)
    values = x if signed else np.maximum(x, 0)
    (found,) = clips(torch.from_numpy(values).float(), [bits], signed)
    tried = np.abs(values).max() * np.linspace(0.01, 1, 500)
    best = min(squared_error(values, bits, signed, limit) for limit in tried)
    assert squared_error(values, bits, signed, found) <= 1.1 * best
    if bits < 4:
        assert squared_error(values, bits, signed, tried[-1]) > 2 * best


def test_where_nothing_is_rare_nothing_is_cut_off():
    values = torch.tensor([0.0, 1.0, 2.0, 3.0] * 50)
    assert clips(values, [2, 3], False)[0] == 3.0
    assert clips(torch.zeros(5), [2], True) == [0.0]


def test_narrow_ranges_follow_the_values():
    values = images(8).relu()
    one, two = clips(values, NARROW, False), clips(4 * values, NARROW, False)
    assert two == pytest.approx([4 * own for own in one])
    assert one == sorted(one)


@pytest.mark.parametrize("name", ["option_a", "concat"])
def test_edges_of_few_bits_lose_less_than_with_the_largest_magnitude(name):
    graph, tensors = traced(name)
    found = activation_ranges(graph, tensors, [images(16)])
    plain = {edge: ActivationRange(own.maximum, own.signed) for edge, own in found.items()}
    policy = uniform_policy({layer.name: layer.channels for layer in layers(graph)}, 8, 2)
    both = [edge_grids(graph, policy, own) for own in (found, plain)]
    lost = [0.0, 0.0]

    def compare(edge, values):
        for place, grids in enumerate(both):
            if edge in grids and grids[edge].bits == 2:
                rounded = quantize_edges(grids)(edge, values)
                lost[place] += float((rounded - values).square().mean())
        return values

    execute(graph, tensors, images(16, 1), edge=compare)
    assert 0 < lost[0] < 0.7 * lost[1]
    wide = uniform_policy({layer.name: layer.channels for layer in layers(graph)}, 8, 8)
    assert edge_grids(graph, wide, found) == edge_grids(graph, wide, plain)
