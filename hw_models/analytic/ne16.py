"""NE16: the convolution engine of GAP9, which goes through weights bit by bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import ConfigDict, PositiveFloat
from pydantic.dataclasses import dataclass

from hw_models.analytic.base import AnalyticTarget, Prices
from hw_models.analytic.work import BITS, Work

_TILE_ROWS, _DEPTHWISE_ROWS, _TILE_INPUTS, _TILE_SIDE = 32, 16, 16, 3
# Cycles of the engine's phases.
_LOAD_3X3, _LOAD_1X1, _OFFSET, _COMPUTE, _UPDATE, _QUANTIZE, _STREAM_OUT = 31, 19, 6, 6, 2, 9, 13


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Ne16(AnalyticTarget):
    """3 x 3 and 1 x 1 convolutions in tiles of 3 x 3 positions, 16 inputs and 32 outputs.

    A group of rows of equal width that does not fill 32 costs a tile all the same, so that widths
    in multiples of 32 channels pay. Depthwise convolutions have a mode of 16 channels a tile.
    Larger kernels are made of as many 3 x 3 passes as fit and 1 x 1 passes for the rest.

    Source: the latency model that channel-wise mixed precision (arXiv 2407.01054) was trained
    with. Grouped convolutions run group by group (a reconstruction), linear layers as 1 x 1
    convolutions of one position.

    Attributes:
        clock_hz: of the cluster that the engine is part of.
    """

    name: str
    clock_hz: PositiveFloat
    source: Mapping[str, str]

    weight_bits = (0, 2, 3, 4, 5, 6, 7, 8)
    activation_bits = (8,)
    width_granularity = _TILE_ROWS

    def price(self, work: Work) -> Prices:
        """Tiles of positions times the passes of the kernel times the tiles of channels."""
        geometry = work.geometry
        positions = -(-geometry.height // _TILE_SIDE) * -(-geometry.width // _TILE_SIDE)
        squares, points = _passes(geometry.kernel_height, geometry.kernel_width)
        dense = squares * _channel_tiles(work, square=True) + points * _channel_tiles(
            work, square=False
        )
        depthwise = squares * _depthwise_tiles(work) + points * _channel_tiles(work, square=False)
        alone = (work.inputs == 1) & (work.groups > 1)
        return Prices(np.where(alone, depthwise, dense) * positions / self.clock_hz)


def _passes(height: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[L]`` passes of 3 x 3, and of 1 x 1 for what they leave over."""
    squares = (height // _TILE_SIDE) * (width // _TILE_SIDE)
    return squares, height * width - squares * _TILE_SIDE**2


def _channel_tiles(work: Work, *, square: bool) -> np.ndarray:
    """``[P, L]`` cycles of all tiles of output channels over all inputs, for one pass."""
    rows = -(-work.rows // np.maximum(work.active, 1))
    full, rest = rows // _TILE_ROWS, rows % _TILE_ROWS
    cycles = full * _tile(work, np.full_like(rows, _TILE_ROWS), square)
    cycles = cycles + (rest > 0) * _tile(work, rest, square)
    return (cycles * work.active * (BITS > 0)).sum(-1)


def _tile(work: Work, rows: np.ndarray, square: bool) -> np.ndarray:
    """``[P, L, W]`` cycles of one tile of ``rows`` output channels."""
    inputs = -(-work.inputs[..., None] // _TILE_INPUTS)
    load = _LOAD_3X3 if square else _LOAD_1X1
    matrix = rows * BITS if square else rows
    per_input = load + _OFFSET + (_COMPUTE + matrix) + _UPDATE
    return inputs * per_input + (_QUANTIZE + rows) + _STREAM_OUT


def _depthwise_tiles(work: Work) -> np.ndarray:
    """``[P, L]`` cycles of all tiles of channels that read one input each."""
    full, rest = work.rows // _DEPTHWISE_ROWS, work.rows % _DEPTHWISE_ROWS

    def tile(rows: np.ndarray) -> np.ndarray:
        matrix = (_OFFSET + rows) + (_COMPUTE + rows * BITS) + _UPDATE
        return _LOAD_3X3 + matrix + (_QUANTIZE + rows) + _STREAM_OUT

    cycles = full * tile(np.full_like(rest, _DEPTHWISE_ROWS)) + (rest > 0) * tile(rest)
    return (cycles * (BITS > 0)).sum(-1)
