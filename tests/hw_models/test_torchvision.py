"""Networks that people start from, through Arm's compiler."""

import functools

import pytest

from ajpq.base import untrained_networks
from hw_models.checks import checked_cost
from hw_models.registry import load_target

NAMES = ("mobilenet_v2", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5", "mnasnet0_5")
BUNDLED = ("resnet8", "resnet20", "mobilenet_v2_x0_5")


@pytest.mark.parametrize("name", [*(f"torchvision:{name}" for name in NAMES), *BUNDLED])
@pytest.mark.parametrize("target", ["edge-npu", "ethos-u55-128", "ethos-u85-256"])
def test_no_operator_stays_on_the_cpu(name, target):
    """A target raises if one does."""
    size = 64 if ":" in name else 32
    cost = checked_cost(load_target(target), network(name, size))
    assert sum(layer.latency_s for layer in cost.per_layer) == pytest.approx(cost.latency_s)


@functools.cache
def network(name, size):
    """The int8 form of a network with random weights."""
    return untrained_networks(name, size, 10)[0]
