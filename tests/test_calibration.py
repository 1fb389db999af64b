"""Calibration against PyTorch's own modules."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ajpq.calibration import activation_ranges, recalibrate_batchnorm
from ajpq.graph.execute import execute
from ajpq.graph.structure import DOMAINS
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
