"""Bit Fusion: a systolic array of multipliers that fuse from 2-bit bricks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import ConfigDict, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hw_models.analytic.base import AnalyticTarget, Prices
from hw_models.analytic.work import BITS, Work

_FUSED_BITS = 8  # one unit multiplies 8 x 8 bits, or more pairs of fewer


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BitFusion(AnalyticTarget):
    """Compute and memory cycles overlap; the longer counts.

    Source: Sharma et al., "Bit Fusion: Bit-Level Dynamically Composable Architecture for
    Accelerating Deep Neural Networks", ISCA 2018. How often data is fetched again when it does not
    fit a buffer is a reconstruction: either the inputs stay and the weights stream past them, or
    the other way round, whichever moves fewer bits. The output buffer is taken to be large enough.

    Attributes:
        array_rows, array_columns: fusion units along input and output channels.
        bus_bits_per_cycle: off-chip transfers.
    """

    name: str
    clock_hz: PositiveFloat
    array_rows: PositiveInt
    array_columns: PositiveInt
    weight_buffer_bytes: PositiveInt
    input_buffer_bytes: PositiveInt
    bus_bits_per_cycle: PositiveInt
    source: Mapping[str, str]

    weight_bits = (0, 2, 3, 4, 5, 6, 7, 8)
    activation_bits = (2, 3, 4, 5, 6, 7, 8)

    @property
    def width_granularity(self) -> int:  # type: ignore[override]  # follows from the array
        """Rows that one pass computes."""
        return self.array_columns

    def price(self, work: Work) -> Prices:
        """``positions * K^2 * ceil(OC / columns) * ceil(IC / (rows * P))`` against the bus."""
        cycles = np.maximum(self._compute_cycles(work), self._memory_cycles(work))
        return Prices(cycles / self.clock_hz)

    def _compute_cycles(self, work: Work) -> np.ndarray:
        """``P`` pairs of operands fit one unit; every group and width of rows goes alone."""
        pairs = np.maximum(_fits(work.input_bits)[..., None] * _fits(BITS), 1)
        depth = -(-work.inputs[..., None] // (self.array_rows * pairs))
        tiles = (work.tiles(self.array_columns) * depth).sum(-1)
        return work.geometry.positions * work.geometry.kernel * tiles

    def _memory_cycles(self, work: Work) -> np.ndarray:
        weights, inputs = work.weight_bits, 8 * work.input_bytes
        weight_loads = -(-inputs // (8 * self.input_buffer_bytes))
        input_loads = -(-weights // (8 * self.weight_buffer_bytes))
        moved = np.minimum(
            weights * np.maximum(weight_loads, 1) + inputs,
            weights + inputs * np.maximum(input_loads, 1),
        )
        return -(-(moved + 8 * work.output_bytes) // self.bus_bits_per_cycle)


def _fits(bits: np.ndarray) -> np.ndarray:
    """How many operands of this width one side of a unit takes: ``floor(8 / max(bits, 2))``."""
    return _FUSED_BITS // np.maximum(bits, 2)
