"""Measurements on this machine; how long anything takes is no test's business."""

import subprocess
import sys

import pytest

from hw_models import host_cpu
from hw_models.checks import checked_cost
from hw_models.errors import AjpqError
from hw_models.host_cpu import HostCpu
from hw_models.samples import conv_network, grouped_network, residual_network


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AJPQ_CACHE", str(tmp_path))
    monkeypatch.setattr(host_cpu, "_remembered", {})


TARGET = HostCpu("host-cpu")


def test_every_layer_gets_its_share_of_what_was_measured():
    networks = [conv_network(), residual_network(), grouped_network()]
    for network, cost in zip(networks, TARGET.costs(networks), strict=True):
        times = {layer.name: layer.latency_s for layer in cost.per_layer}
        assert list(times) == [op.name for op in network.operators]
        assert all(times[op.name] > 0 for op in network.layers)
        assert sum(times.values()) == pytest.approx(cost.latency_s)
        assert cost.flash_bytes > sum(op.weights.codes.size for op in network.layers)


def test_what_was_measured_once_is_not_measured_again(monkeypatch):
    first = checked_cost(TARGET, conv_network())

    def fail(*arguments, **settings):
        raise AssertionError("measured again")

    monkeypatch.setattr(subprocess, "run", fail)
    assert TARGET.cost(conv_network()) == first
    assert TARGET.cost(conv_network(bits=4)).latency_s == first.latency_s  # the same shapes
    monkeypatch.setattr(host_cpu, "_remembered", {})
    assert TARGET.cost(conv_network()) == first  # from the disk


def test_a_damaged_answer_on_disk_is_measured_again(tmp_path, monkeypatch):
    TARGET.cost(conv_network())
    (kept,) = tmp_path.rglob("*.json")
    for rubbish in ("{", "[]", "{}"):
        kept.write_text(rubbish)
        monkeypatch.setattr(host_cpu, "_remembered", {})
        assert TARGET.cost(conv_network()).latency_s > 0


def test_a_failing_runtime_is_quoted():
    with pytest.raises(AjpqError, match=r"ONNX Runtime failed: .*[Pp]rotobuf"):
        host_cpu._time([b"no model"], 1)


def test_without_the_packages_there_is_a_hint(monkeypatch):
    monkeypatch.delitem(sys.modules, "hw_models.onnx.lower", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(AjpqError, match="pip install 'ajpq\\[export\\]'"):
        TARGET.cost(conv_network())
