"""Scales and biases as short numbers: an entropy-coded class each, and low bits as they are.

A class is a code of ``CLASS_BITS`` bits: ``k`` for a positive number and ``~k`` for a negative one.

- A *scale* of 16 bits (a bfloat16: sign, 8 bits of exponent, 7 of mantissa) between ``2**-25`` and
  ``2**6`` has ``k = 5 - exponent``; its low bits are those of the mantissa.
- A *bias* that is a whole number of accumulator steps, ``n * step`` in float32 with
  ``step = float32(scale_in) * scale`` and ``|n| < 2**23``, has the bit length of ``|n|`` as ``k``;
  its low bits are those below the leading one.
- Whatever is neither has the class ``ESCAPE``, and all 32 bits of its float32 are low bits.

Every float32 comes back bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CLASS_BITS = 6
ESCAPE = -32
_MANTISSA_BITS = 7
_LARGEST_EXPONENT = 5
_CLASSES = 31
_MOST_STEPS = 1 << 23  # up to here a float32 product tells which integer was in it


@dataclass(frozen=True, eq=False)
class Numbers:
    """Any shape. ``classes``: int8; ``low``: uint32; ``low_bits``: how many each takes, uint8."""

    classes: np.ndarray
    low: np.ndarray
    low_bits: np.ndarray


def scale_low_bits(classes: np.ndarray) -> np.ndarray:
    """Low bits of scales of these classes."""
    return np.where(classes == ESCAPE, 32, _MANTISSA_BITS).astype(np.uint8)


def bias_low_bits(classes: np.ndarray) -> np.ndarray:
    """Low bits of biases of these classes."""
    length = np.maximum(_sizes(classes), 1)
    return np.where(classes == ESCAPE, 32, length - 1).astype(np.uint8)


def of_scales(scales: np.ndarray) -> Numbers:
    """Float32 scales as numbers."""
    pattern = np.ascontiguousarray(scales, np.float32).view(np.uint32)
    size = _LARGEST_EXPONENT + 127 - (pattern >> 23 & 0xFF).astype(np.int64)
    short = (pattern & 0xFFFF == 0) & (size >= 0) & (size < _CLASSES)
    classes = _classes(short, size, pattern >> 31 == 1)
    low = np.where(short, pattern >> 16 & 0x7F, pattern)
    return Numbers(classes, low, scale_low_bits(classes))


def to_scales(numbers: Numbers) -> np.ndarray:
    """Inverse of :func:`of_scales`."""
    exponent = (_LARGEST_EXPONENT + 127 - _sizes(numbers.classes)).astype(np.uint32)
    sign = (numbers.classes < 0).astype(np.uint32)
    pattern = sign << 31 | exponent << 23 | numbers.low << 16
    return np.where(numbers.classes == ESCAPE, numbers.low, pattern).view(np.float32)


def of_biases(biases: np.ndarray, steps: np.ndarray) -> Numbers:
    """Float32 biases as numbers, given the float32 accumulator step of each."""
    biases = np.ascontiguousarray(biases, np.float32)
    with np.errstate(all="ignore"):
        wide = np.zeros(biases.shape)
        count = np.rint(np.divide(biases, steps, out=wide, where=steps != 0, dtype=np.float64))
        product = count.astype(np.float32) * steps
        whole = (product.view(np.uint32) == biases.view(np.uint32)) & (np.abs(count) < _MOST_STEPS)
        absolute = np.where(whole, np.abs(count), 0).astype(np.int64)
    length = np.frexp(absolute)[1]
    leading = 1 << np.maximum(length, 1).astype(np.int64) - 1
    classes = _classes(whole, length, np.signbit(count))
    low = np.where(whole, np.where(length > 0, absolute - leading, 0), biases.view(np.uint32))
    return Numbers(classes, low.astype(np.uint32), bias_low_bits(classes))


def to_biases(numbers: Numbers, steps: np.ndarray) -> np.ndarray:
    """Inverse of :func:`of_biases`."""
    length = _sizes(numbers.classes)
    leading = 1 << np.maximum(length, 1) - 1
    absolute = np.where(length > 0, leading + numbers.low, 0).astype(np.float32)
    with np.errstate(all="ignore"):
        whole = np.where(numbers.classes < 0, -absolute, absolute) * steps
    return np.where(numbers.classes == ESCAPE, numbers.low.view(np.float32), whole)


def chunks(low_bits: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Low bits in pieces of at most 16: number of bits, how far to shift, ``[N]`` bool of whom."""
    found = []
    for shift in (0, 16):
        own = np.clip(low_bits.astype(np.int64) - shift, 0, 16)
        found += [(bits, shift, own == bits) for bits in np.unique(own).tolist() if bits]
    return found


def joined(low_bits: np.ndarray, draw: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """Low bits put together from pieces; ``draw(bits, count)`` gives the next ones."""
    low = np.zeros(len(low_bits), np.uint32)
    for bits, shift, own in chunks(low_bits):
        low[own] |= draw(bits, int(own.sum())).astype(np.uint32) << shift
    return low


def _classes(short: np.ndarray, sizes: np.ndarray, negative: np.ndarray) -> np.ndarray:
    return np.where(short, np.where(negative, ~sizes, sizes), ESCAPE).astype(np.int8)


def _sizes(classes: np.ndarray) -> np.ndarray:
    """``k`` of every class."""
    wide = classes.astype(np.int64)
    return np.where(wide < 0, ~wide, wide)
