"""A roofline: as fast as its multipliers or its memory, whichever is slower."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import ConfigDict, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hw_models.analytic.base import AnalyticTarget, Prices
from hw_models.analytic.work import WIDTHS, Work


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Roofline(AnalyticTarget):
    """Peak rates of a device from its data sheet; every layer reaches the lower roof.

    Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model"
    (2009), per layer. Weights come from DRAM once; activations do too where a layer's input and
    output do not fit the SRAM together.

    Attributes:
        macs_per_s: operand width -> peak rate; a product runs at the rate of the narrowest width
            that holds both of its operands.
    """

    name: str
    macs_per_s: Mapping[int, PositiveFloat]
    dram_bytes_per_s: PositiveFloat
    sram_bytes: PositiveInt
    source: Mapping[str, str]

    weight_bits = (0, 2, 3, 4, 5, 6, 7, 8)
    activation_bits = (2, 3, 4, 5, 6, 7, 8)

    def __post_init__(self) -> None:
        """Is there a rate for the widest operands?"""
        super().__post_init__()
        if max(self.macs_per_s, default=0) < max(self.weight_bits):
            raise ValueError(f"macs_per_s: no rate for 8 bits, only for {sorted(self.macs_per_s)}")

    def price(self, work: Work) -> Prices:
        """The longer of computing and transferring."""
        compute_s = (work.rows * self._seconds_per_mac()[work.input_bits]).sum(-1) * work.row_macs
        activations = work.input_bytes + work.output_bytes
        spilled = np.where(activations > self.sram_bytes, activations, 0)
        memory_s = (work.weight_bits / 8 + spilled) / self.dram_bytes_per_s
        return Prices(np.maximum(compute_s, memory_s))

    def _seconds_per_mac(self) -> np.ndarray:
        """``[9, W]`` by activation bits and weight width; zero rows cost nothing."""
        table = np.zeros((max(self.activation_bits) + 1, len(WIDTHS)))
        for activation in self.activation_bits:
            for index, weight in enumerate(WIDTHS):
                if 0 < weight <= max(self.weight_bits):
                    wide = max(activation, weight)
                    fitting = min(width for width in self.macs_per_s if width >= wide)
                    table[activation, index] = 1 / self.macs_per_s[fitting]
        return table
