"""Rows of a layer as TensorFlow Lite wants them: int8 codes, positive scales, int32 biases."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS, Weights

BIAS_LIMIT = 2.0**30  # leaves the accumulator one bit of room
FINEST_STEP = 2.0**-24  # of one output code
LARGEST_CODE = 127


@dataclass(frozen=True, eq=False)
class Rows:
    """``codes`` [O, ...] int8, ``scales`` [O] float32 above zero, ``bias`` [O] int32."""

    codes: np.ndarray
    scales: np.ndarray
    bias: np.ndarray


def integer_rows(name: str, weights: Weights, scale_in: float, scale_out: float) -> Rows:
    """Rows with the same real values, as far as int8 codes and int32 biases go.

    A negative scale moves its sign to the codes. A scale so small that the bias would overflow,
    or that the multiplier would vanish, is raised and the codes shrink with it; their rounding
    then is far below one output code. A zero scale is the extreme case of it.

    Raises:
        AjpqError: a row is 32 bits wide.
    """
    if weights.codes.dtype != np.int8 or (weights.bits == FLOAT_BITS).any():
        raise AjpqError(f"layer {name!r} has 32-bit weights; an int8 file cannot hold them")
    bias = weights.bias.astype(np.float64)
    wanted = weights.scales.astype(np.float64)
    least = np.maximum(np.abs(bias) / BIAS_LIMIT, scale_out * FINEST_STEP) / scale_in
    scales = np.maximum(np.abs(wanted), least).astype(np.float32)
    factor = np.where(np.abs(wanted) >= least, np.sign(wanted), wanted / scales)
    shape = (-1,) + (1,) * (weights.codes.ndim - 1)
    codes = np.rint(weights.codes * factor.reshape(shape))
    return Rows(
        np.clip(codes, -LARGEST_CODE, LARGEST_CODE).astype(np.int8),
        scales,
        np.rint(bias / (scales.astype(np.float64) * scale_in)).astype(np.int32),
    )


def factor_rows(factors: np.ndarray, bias: np.ndarray) -> Weights:
    """One weight per channel, ``[C, 1, 1, 1]``, all at the largest code.

    Any real factor is exact this way, and the bias gets the finest step there is.
    """
    codes = np.full((len(factors), 1, 1, 1), LARGEST_CODE, np.int8)
    scales = (factors / LARGEST_CODE).astype(np.float32)
    return Weights(codes, scales, np.full(len(factors), 8, np.uint8), bias.astype(np.float32))


def affine_rows(weights: Weights) -> Weights:
    """The rows of an ``affine``, of whatever widths."""
    codes = weights.codes.reshape(-1).astype(np.float64)
    return factor_rows(codes * weights.scales, weights.bias)


def fold_hardsigmoid(weights: Weights) -> Weights:
    """Rows for ``x / 6 + 1 / 2`` in place of ``x``: a hard sigmoid is that, clamped to [0, 1]."""
    sixth = np.float32(1 / 6)
    return replace(weights, scales=weights.scales * sixth, bias=(weights.bias + 3) * sixth)
