"""A quantizer for weights that do not change: codes at every width are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ajpq.quantizers import Quantizer

_WIDTHS = tuple(range(2, 9))


def tabulated(
    quantizer: Quantizer, weights: Iterable[Tensor]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """``quantizer.quantize`` for exactly these tensors (recognised by their memory).

    Equal to asking the quantizer, but for the order of sums over a whole tensor, because a row's
    scale depends on nothing but the tensor and the row's own width. The returned function takes
    widths from 2 to 8 only.
    """
    tables = {}
    for weight in weights:
        made = [quantizer.quantize(weight, torch.full((len(weight),), width)) for width in _WIDTHS]
        codes = np.stack([codes.numpy() for codes, _ in made])
        scales = np.stack([scales.numpy() for _, scales in made])
        tables[weight.data_ptr()] = weight, codes, scales

    def quantize(weight: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        _, codes, scales = tables[weight.data_ptr()]
        row, width = np.arange(len(bits)), bits.numpy() - _WIDTHS[0]
        return torch.from_numpy(codes[width, row]), torch.from_numpy(scales[width, row])

    return quantize
