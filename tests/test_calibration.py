"""Calibration against PyTorch's own modules."""

import copy

import pytest
import torch
from torch import nn

from ajpq.calibration import activation_ranges, recalibrate_batchnorm
from ajpq.graph.execute import execute
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


# Where these functions are flat: no codes are spent on what they do not tell apart.
DOMAINS = {"hardswish": (-3, None), "hardsigmoid": (-3, 3)}


@pytest.mark.parametrize("name", NETWORKS)
def test_ranges_are_the_largest_magnitudes(name):
    graph, tensors = traced(name)
    batches = [images(8, seed) for seed in range(2)]
    found = activation_ranges(graph, tensors, batches)
    seen: dict[str, list[float]] = {}

    def record(edge, values):
        functions = [node.attributes.get("function") for node in graph.consumers[edge]]
        used = values.clamp(*DOMAINS[functions[0]]) if functions[0] in DOMAINS else values
        seen.setdefault(edge, []).append(float(used.abs().max()))
        return values

    for batch in batches:
        execute(graph, tensors, batch, edge=record)
    assert {edge: own.maximum for edge, own in found.items()} == pytest.approx(
        {edge: max(values) for edge, values in seen.items()}, rel=1e-5
    )
