"""A quantizer for weights whose grids are known already."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ajpq.quantizers import Quantizer


def on_grids(
    quantizer: Quantizer, grids: Iterable[tuple[Tensor, Tensor]]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """``quantizer.quantize``, but the scales of these tensors are given, not fitted.

    Args:
        grids: ``(weight [C, ...], scales [C])``; a weight is recognised by its memory.
    """
    given = {weight.data_ptr(): scales for weight, scales in grids}

    def quantize(weight: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        scales = given.get(weight.data_ptr())
        if scales is None:
            return quantizer.quantize(weight, bits)
        return quantizer.encode(weight, bits, scales), scales

    return quantize
