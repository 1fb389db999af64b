"""Uniform symmetric quantization with one scale per output channel, or one per tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

# Clipping ratios from which the search for the MSE-optimal scale starts, and the number of
# alternating refinements after it: codes for a fixed scale, then the least-squares scale for
# fixed codes. Neither step can raise the error.
# Wide codes want almost the full range but are sensitive to where the last code falls.
_RATIOS = torch.cat([torch.linspace(0.30, 0.75, 10), torch.linspace(0.80, 1.02, 34)])
_REFINEMENTS = 3


@dataclass(frozen=True)
class UniformQuantizer:
    """Codes in ``[-(2**(b-1) - 1), 2**(b-1) - 1]``; at 2 bits they are ternary.

    All channels of a layer go through one tensor operation whatever their widths.

    Attributes:
        scale: ``"minmax"`` puts the largest weight of a channel on the last code,
            ``"mse"`` takes the scale with the least squared error.
        granularity: ``"channel"`` gives every channel a scale of its own; with ``"tensor"`` all
            channels of equal width share the scale that suits the whole tensor.
    """

    scale: Literal["minmax", "mse"] = "mse"
    granularity: Literal["channel", "tensor"] = "channel"
    name: ClassVar[str] = "uniform"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.scale not in ("minmax", "mse"):
            raise ValueError(f"expected scale 'minmax' or 'mse', got {self.scale!r}")
        if self.granularity not in ("channel", "tensor"):
            raise ValueError(f"expected granularity channel or tensor, got {self.granularity!r}")

    def fit(self, weight: Tensor, bits: Tensor) -> Tensor:
        """Scales ``[C]`` float32 for ``weight [C, ...]`` at ``bits [C]``; 1 where no codes are."""
        if not _coded(bits).any():
            return torch.ones(len(bits))
        flat = weight.detach().flatten(1).float()
        if self.granularity == "tensor":
            widths, row = torch.unique(bits, return_inverse=True)
            scales = self._fit_rows(flat.flatten().expand(len(widths), -1), _top(widths))[row]
        else:
            scales = self._fit_rows(flat, _top(bits))
        return torch.where(_coded(bits), scales, torch.ones(()))

    def _fit_rows(self, flat: Tensor, top: Tensor) -> Tensor:
        """``[R]`` scales of ``flat [R, K]``, each row with its own largest code ``top [R, 1]``."""
        largest = flat.abs().amax(1, keepdim=True)
        scales = torch.where(largest > 0, largest / top, torch.ones(()))
        if self.scale == "mse":
            scales = _least_squares_scales(flat, scales, top)
        return scales.squeeze(1)

    def encode(self, weight: Tensor, bits: Tensor, scales: Tensor) -> Tensor:
        """Codes ``[C, ...]`` int8 on the grid of ``scales [C]``."""
        flat = weight.detach().flatten(1).float()
        codes = _codes(flat, scales.unsqueeze(1), _top(bits)) * _coded(bits).unsqueeze(1)
        return codes.view(weight.shape).to(torch.int8)

    def quantize(self, weight: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Fit and encode every row at its own width.

        Args:
            weight: ``[C, ...]`` real weights.
            bits: ``[C]`` integers in {0, 2..8, 32}; rows of 0 and of 32 bits get zero codes,
                because a pruned row has none and an untouched one keeps its real values.

        Returns:
            codes ``[C, ...]`` int8 and scales ``[C]`` float32 (1 where there are no codes).
        """
        scales = self.fit(weight, bits)
        return self.encode(weight, bits, scales), scales


def _coded(bits: Tensor) -> Tensor:
    return (bits > 0) & (bits <= 8)


def last_code(bits: Tensor) -> Tensor:
    """``[C]`` largest code of every row; 1 where there are no codes."""
    return torch.where(_coded(bits), 2.0 ** (bits.clamp(2, 8) - 1) - 1, 1.0)


def _top(bits: Tensor) -> Tensor:
    return last_code(bits).unsqueeze(1)


def _codes(flat: Tensor, scales: Tensor, top: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(torch.round(flat / scales), top), -top)


def _least_squares_scales(flat: Tensor, minmax: Tensor, top: Tensor) -> Tensor:
    """The scale ``[C, 1]`` with the least squared error that the alternation finds."""
    best, least = minmax, _error(flat, minmax, top)
    for ratio in _RATIOS:
        scales = minmax * ratio
        error = _error(flat, scales, top)
        best = torch.where(error < least, scales, best)
        least = torch.minimum(error, least)
    for _ in range(_REFINEMENTS):
        codes = _codes(flat, best, top)
        energy = codes.square().sum(1, keepdim=True)
        fitted = (flat * codes).sum(1, keepdim=True) / energy.clamp_min(1)
        scales = torch.where((energy > 0) & (fitted > 0), fitted, best)
        error = _error(flat, scales, top)
        best = torch.where(error < least, scales, best)
        least = torch.minimum(error, least)
    return best


def _error(flat: Tensor, scales: Tensor, top: Tensor) -> Tensor:
    return (_codes(flat, scales, top) * scales - flat).square().sum(1, keepdim=True)
