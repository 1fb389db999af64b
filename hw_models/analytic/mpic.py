"""MPIC: a RISC-V core whose dot products take 2, 4 or 8 bits on either side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import ConfigDict, PositiveFloat
from pydantic.dataclasses import dataclass

from hw_models.analytic.base import AnalyticTarget, Prices
from hw_models.analytic.work import WIDTHS, Work

CLASSES = (2, 4, 8)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Mpic(AnalyticTarget):
    """A table of multiply-accumulates per cycle, widths in between rounded up.

    Source: Ottavi et al., "A mixed-precision RISC-V processor for extreme-edge DNN inference"
    (2020); the table as used for channel-wise mixed precision in arXiv 2407.01054.

    Attributes:
        macs_per_cycle: activation bits -> weight bits -> rate, for 2, 4 and 8 bits each.
    """

    name: str
    clock_hz: PositiveFloat
    power_w: PositiveFloat
    macs_per_cycle: Mapping[int, Mapping[int, PositiveFloat]]
    source: Mapping[str, str]

    weight_bits = (0, 2, 3, 4, 5, 6, 7, 8)
    activation_bits = (2, 3, 4, 5, 6, 7, 8)

    def __post_init__(self) -> None:
        """Is the table complete?"""
        super().__post_init__()
        for activation in CLASSES:
            for weight in CLASSES:
                if weight not in self.macs_per_cycle.get(activation, {}):
                    raise ValueError(
                        f"macs_per_cycle: no rate for {activation}-bit activations "
                        f"and {weight}-bit weights"
                    )

    def price(self, work: Work) -> Prices:
        """MACs over the rate of their widths; energy is power times time."""
        cycles_per_mac = self._cycles_per_mac()[work.input_bits]
        cycles = np.einsum("plw,plw->pl", work.rows, cycles_per_mac) * work.row_macs
        latency_s = cycles / self.clock_hz
        return Prices(latency_s, latency_s * self.power_w)

    def _cycles_per_mac(self) -> np.ndarray:
        """``[9, W]`` by activation bits and weight width; zero rows cost nothing."""
        table = np.zeros((max(CLASSES) + 1, len(WIDTHS)))
        for activation in self.activation_bits:
            for index, weight in enumerate(WIDTHS):
                if 0 < weight <= max(CLASSES):
                    rates = self.macs_per_cycle[width_class(activation)]
                    table[activation, index] = 1 / rates[width_class(weight)]
        return table


def width_class(bits: int) -> int:
    """The narrowest of 2, 4 and 8 bits that holds ``bits``."""
    return next(width for width in CLASSES if bits <= width)
