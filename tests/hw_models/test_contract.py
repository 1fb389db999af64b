"""Every shipped target keeps the contract; targets that break it are told how."""

import math
import time
from dataclasses import replace

import pytest

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.contract import findings
from hw_models.errors import AjpqError
from hw_models.network import macs
from hw_models.registry import load_target, target_names
from hw_models.testing import TargetContract
from tests.e2e.commands import command


@pytest.mark.parametrize("name", target_names())
def test_shipped_targets_keep_it(name):
    failed = [finding for finding in findings(load_target(name)) if not finding.passed]
    assert failed == []


class Sound(Target):
    name = "sound"
    monotone = ("channels",)
    time_limit_s = 0.5

    def cost(self, network):
        return NetworkCost(latency_s=macs(network) / 1e9)


class TestSound(TargetContract):
    def make_target(self):
        return Sound()


def test_the_test_case_fails_where_a_promise_is_broken():
    class TestSilent(TargetContract):
        def make_target(self):
            return Silent()

    with pytest.raises(AjpqError, match="every figure is None"):
        TestSilent().test_it_keeps_its_promise("figures")


class NotANumber(Sound):
    def cost(self, network):
        layers = tuple(LayerCost(op.name, latency_s=0.1) for op in network.layers)
        layers = (*layers[:-1], replace(layers[-1], latency_s=math.nan))
        return NetworkCost(latency_s=sum(layer.latency_s for layer in layers), per_layer=layers)


class Negative(Sound):
    def cost(self, network):
        return NetworkCost(energy_j=-0.5)


class Forgetful(Sound):
    count = 0

    def cost(self, network):
        type(self).count += 1
        return NetworkCost(latency_s=float(self.count))


class Vandal(Sound):
    def cost(self, network):
        network.layers[0].weights.codes[:] = 0
        return super().cost(network)


class Strict(Sound):
    def cost(self, network):
        if any((op.weights.bits == 0).all() for op in network.layers):
            raise ZeroDivisionError("no rows")
        return super().cost(network)


class Slow(Sound):
    time_limit_s = 0.01

    def cost(self, network):
        time.sleep(0.2)
        return super().cost(network)


class Silent(Sound):
    def cost(self, network):
        return NetworkCost()


class Wrong(Sound):
    def cost(self, network):
        return 3.0


class Elsewhere(Sound):
    def cost(self, network):
        return NetworkCost(latency_s=1.0, per_layer=(LayerCost("xconv0", latency_s=1.0),))


class Greedy(Sound):
    def cost(self, network):
        parts = tuple(LayerCost(op.name, latency_s=1.0) for op in network.layers)
        return NetworkCost(latency_s=1.0, per_layer=parts)


class Backwards(Sound):
    def cost(self, network):
        return NetworkCost(latency_s=1 / macs(network))


class Misspelt(Sound):
    monotone = ("channel",)


@pytest.mark.parametrize(
    ("target", "check", "words"),
    [
        (NotANumber, "figures", ("layer 'logits'", "latency_s", "nan")),
        (Negative, "figures", ("energy_j", "-0.5")),
        (Silent, "figures", ("every figure is None",)),
        (Wrong, "figures", ("3.0", "NetworkCost")),
        (Slow, "figures", ("no answer after 0.01 s", "conv0")),
        (Forgetful, "deterministic", ("latency_s was", "the second time")),
        (Vandal, "read-only", ("changes the network",)),
        (Strict, "pruned rows", ("ZeroDivisionError: no rows", "test_contract.py:")),
        (Greedy, "layers", ("add up to",)),
        (Elsewhere, "layers", ("no operator 'xconv0'",)),
        (Backwards, "monotone", ("with fewer channels, latency_s",)),
        (Misspelt, "monotone", ("'channel'",)),
    ],
)
def test_broken_promises_are_named(target, check, words):
    (found,) = [finding for finding in findings(target()) if finding.check == check]
    assert not found.passed
    for word in words:
        assert word in found.detail
    assert "\n" not in found.detail


def test_without_sound_figures_nothing_else_is_tried():
    assert [finding.check for finding in findings(NotANumber())] == ["figures"]


def test_the_command_lists_shows_and_checks(tmp_path):
    listed = command("targets")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in target_names())
    shown = command("targets", "show", "mpic")
    assert "0.00538" in shown.stdout
    assert "2407.01054" in shown.stdout
    assert command("targets", "check", "roofline").returncode == 0
    (tmp_path / "mine.py").write_text(
        "from hw_models.base import NetworkCost, Target\n"
        "class Mine(Target):\n"
        "    name = 'mine'\n"
        "    def cost(self, network):\n"
        "        return NetworkCost(latency_s=float('nan'))\n"
    )
    failed = command("targets", "check", f"{tmp_path / 'mine.py'}:Mine")
    assert failed.returncode == 1
    assert failed.stdout.count("nan") == 1
    nameless = command("targets", "check", tmp_path / "mine.py")
    assert f"Name it as {tmp_path / 'mine.py'}:MyDevice" in " ".join(nameless.stderr.split())
    other = command("targets", "check", f"{tmp_path / 'mine.py'}:Yours")
    assert "it has Mine" in other.stderr
    unknown = command("targets", "check", "mpik")
    assert unknown.returncode == 2
    assert "did you mean 'mpic'" in unknown.stderr
