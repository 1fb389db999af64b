"""Rates that papers state, against what the cost models say of a layer that fills the hardware.

The models are made of these very rates, so this checks formulas and transcription, no more.
Sources: Umuroglu et al., "BISMO", FPL 2018 (arXiv 1806.08862), for the peak of bit-serial products
on a PYNQ-Z1; Ottavi et al., ISVLSI 2020, as tabulated in arXiv 2407.01054, for MPIC.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hw_models.network import Network
from hw_models.registry import load_target
from hw_models.samples import NetworkBuilder
from hw_models.trials import with_activations

# Operations on single bits, two for every multiply-accumulate.
BISMO_BINARY_OPERATIONS_PER_S = 6.5e12
# (activation bits, weight bits) -> multiply-accumulates per cycle.
MPIC_MACS_PER_CYCLE = {
    (8, 2): 2.5,
    (8, 4): 2.3,
    (8, 8): 2.1,
    (4, 2): 3.9,
    (4, 4): 3.5,
    (4, 8): 2.1,
    (2, 2): 6.5,
    (2, 4): 4.0,
    (2, 8): 2.2,
}
MPIC_CLOCK_HZ = 250e6
# 1 x 1 convolution of 16 x 16 positions: every tile of BISMO is full.
CHANNELS, POSITIONS = 256, 256


def against_papers() -> list[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """Comparisons as :mod:`benchmarks.hw_fidelity` makes them, of every width that is published."""
    macs = CHANNELS * CHANNELS * POSITIONS
    bismo = {
        (a, w): 2 * a * w * macs / BISMO_BINARY_OPERATIONS_PER_S for a, w in MPIC_MACS_PER_CYCLE
    }
    mpic = {widths: macs / (rate * MPIC_CLOCK_HZ) for widths, rate in MPIC_MACS_PER_CYCLE.items()}
    return [compared("bismo", "published peak", bismo), compared("mpic", "published rates", mpic)]


def compared(
    target: str, reference: str, seconds: Mapping[tuple[int, int], float]
) -> tuple[str, str, str, np.ndarray, np.ndarray]:
    """``seconds`` are the published ones by (activation bits, weight bits)."""
    device = load_target(target)
    found = [device.cost(full_layer(*widths)).latency_s or 0.0 for widths in seconds]
    return ("one full layer", target, reference, np.array(found), np.array([*seconds.values()]))


def full_layer(activation_bits: int, weight_bits: int) -> Network:
    """A network of one convolution."""
    b = NetworkBuilder((CHANNELS, 16, 16), np.random.default_rng(0))
    network = b.build(b.conv("input", CHANNELS, kernel=1, bits=weight_bits))
    return with_activations(network, activation_bits)
