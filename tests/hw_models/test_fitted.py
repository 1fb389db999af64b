"""The stand-in for a slow target, against targets whose formula is known."""

import numpy as np
import pytest

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.checks import checked_cost
from hw_models.errors import AjpqError
from hw_models.fitted import entropy_bytes, fit, fit_error
from hw_models.network import row_macs
from hw_models.registry import load_target
from hw_models.samples import NetworkBuilder, conv_network
from hw_models.size_only import SizeOnly


def form(seed):
    """Three convolutions with random numbers of channels and random widths."""
    rng = np.random.default_rng(seed)
    b = NetworkBuilder((3, 16, 16), rng)
    x = "input"
    for place in range(3):
        bits = int(rng.integers(2, 9))
        x = b.conv(x, int(rng.integers(1, 9)) * 4, bits=bits, name=f"conv{place}")
    return b.build(b.head(x, 10))


FORMS = [form(seed) for seed in range(120)]


class Macs(Target):
    """A nanosecond per MAC, channels in blocks of 8; tells its layers if asked to."""

    name = "macs"

    def __init__(self, by_layer):
        self.by_layer = by_layer

    def cost(self, network):
        times = {}
        for op in network.layers:
            rows = -(-len(op.weights.bits) // 8) * 8
            times[op.name] = 1e-9 * row_macs(network, op) * rows
        layers = tuple(LayerCost(name, time) for name, time in times.items())
        return NetworkCost(latency_s=sum(times.values()), per_layer=layers * self.by_layer)


@pytest.mark.parametrize("by_layer", [True, False])
def test_a_formula_is_learned_from_a_hundred_answers(by_layer):
    target = Macs(by_layer)
    fitted = fit(target, FORMS[:100])
    error = fit_error(fitted, FORMS[100:], target.costs(FORMS[100:]))
    assert error.spearman > 0.98
    assert error.median < 0.04 if by_layer else error.median < 1e-6


def test_it_offers_what_the_target_offers_and_answers_alike_every_time():
    target = load_target("edge-npu")
    costs = target.costs(FORMS[:30])
    fitted, again = fit(target, FORMS[:30]), fit(target, FORMS[:30])
    assert fitted.weight_bits == target.weight_bits
    assert fitted.channel_granularity == target.channel_granularity
    assert fitted.width_granularity == target.width_granularity
    for network, true in zip(FORMS[:5], costs[:5], strict=True):
        found = checked_cost(fitted, network)
        assert found == checked_cost(again, network)
        assert found.latency_s == pytest.approx(true.latency_s, rel=0.2)
        assert found.flash_bytes == pytest.approx(true.flash_bytes, rel=0.2)
        assert found.peak_activation_bytes is None  # the compiler places it in its own way
        assert sum(layer.latency_s for layer in found.per_layer) == pytest.approx(found.latency_s)


def test_activations_by_liveness_are_known():
    target = load_target("roofline")
    fitted = fit(target, FORMS[:20])
    for network in FORMS[20:23]:
        assert fitted.cost(network).peak_activation_bytes == (
            target.cost(network).peak_activation_bytes
        )


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(AjpqError, match="at least 10 networks to fit to, got 2"):
        fit(Macs(True), FORMS[:2])
    with pytest.raises(AjpqError, match="'size-only' knows no latency"):
        fit(SizeOnly(), FORMS[:20])


def test_entropy_of_codes_is_known_for_uniform_ones():
    codes = np.tile(np.arange(-8, 8, dtype=np.int8), 100)
    assert entropy_bytes(codes) == pytest.approx(len(codes) * 4 / 8)
    assert entropy_bytes(np.zeros(50, np.int8)) == 0
    assert entropy_bytes(conv_network(bits=32).layers[0].weights.codes) == 8 * 3 * 9 * 4
