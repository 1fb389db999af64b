"""BISMO: bit-serial matrix multiplication on an FPGA."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ConfigDict, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hw_models.analytic.base import AnalyticTarget, Prices
from hw_models.analytic.work import BITS, Work


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Bismo(AnalyticTarget):
    """Cycles are the product of both widths and the tiles of the matrix product.

    Source: Umuroglu et al., "BISMO: A Scalable Bit-Serial Matrix Multiplication Overlay for
    Reconfigurable Computing" (2018). Convolutions are lowered to a product of ``[O, I*K*K]`` and
    ``[I*K*K, positions]``, every group and every width of rows its own product; transfers are
    taken to be hidden behind the computation.

    Attributes:
        rows_per_tile, columns_per_tile, depth_per_tile: the dot product array, ``Dm x Dn x Dk``.
    """

    name: str
    clock_hz: PositiveFloat
    rows_per_tile: PositiveInt
    columns_per_tile: PositiveInt
    depth_per_tile: PositiveInt
    source: Mapping[str, str]

    weight_bits = (0, 2, 3, 4, 5, 6, 7, 8)
    activation_bits = (2, 3, 4, 5, 6, 7, 8)

    @property
    def width_granularity(self) -> int:  # type: ignore[override]  # follows from the array
        """Rows that one pass computes."""
        return self.rows_per_tile

    def price(self, work: Work) -> Prices:
        """``w * a * ceil(M / Dm) * ceil(N / Dn) * ceil(K / Dk)`` per group and width."""
        geometry = work.geometry
        columns = -(-geometry.positions // self.columns_per_tile)
        depth = -(-(work.inputs * geometry.kernel) // self.depth_per_tile)
        by_width = (work.tiles(self.rows_per_tile) * BITS).sum(-1)
        return Prices(work.input_bits * by_width * columns * depth / self.clock_hz)
