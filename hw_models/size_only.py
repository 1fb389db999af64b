"""Bytes and nothing else: a target for when there is no device."""

from __future__ import annotations

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.liveness import peak_activation_bytes
from hw_models.network import Network, Operator

WIDTH_BYTES = 1
SCALE_AND_BIAS_BYTES = 8


def stored_bytes(operator: Operator) -> int:
    """Bytes of one operator with its rows packed bit by bit.

    ``ceil(sum over rows(width * values in a row) / 8)`` for the codes, 1 byte per row for its
    width, 8 bytes per row that is not zero for its float32 scale and bias.
    """
    if operator.weights is None:
        return 0
    rows = operator.weights.bits.astype(np.int64)
    values = int(np.prod(operator.weights.codes.shape[1:], dtype=np.int64))
    codes = -(-int(rows.sum()) * values // 8)
    return codes + WIDTH_BYTES * len(rows) + SCALE_AND_BIAS_BYTES * int((rows > 0).sum())


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SizeOnly(Target):
    """All widths; knows what is stored and what is alive, not how long it takes."""

    name: str = "size-only"

    def cost(self, network: Network) -> NetworkCost:
        """``flash_bytes`` is the sum of :func:`stored_bytes`; latency and energy are unknown."""
        layers = tuple(
            LayerCost(operator.name, flash_bytes=stored_bytes(operator))
            for operator in network.operators
        )
        return NetworkCost(
            flash_bytes=sum(layer.flash_bytes or 0 for layer in layers),
            peak_activation_bytes=peak_activation_bytes(network),
            per_layer=layers,
        )
