"""Scales and biases as classes and low bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.packed.numbers import ESCAPE, of_biases, of_scales, to_biases, to_scales

PATTERNS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=30)
SHORT = st.lists(st.integers(0, 2**16 - 1).map(lambda top: top << 16), min_size=1, max_size=30)
STEPS = st.integers(-(2**23) + 1, 2**23 - 1)


def floats(patterns):
    return np.asarray(patterns, np.uint32).view(np.float32)


def same_bits(one, two):
    return one.dtype == two.dtype == np.float32 and one.tobytes() == two.tobytes()


@given(PATTERNS | SHORT)
def test_every_scale_comes_back_bit_for_bit(patterns):
    scales = floats(patterns)
    assert same_bits(to_scales(of_scales(scales)), scales)


@settings(max_examples=200)
@given(PATTERNS, st.integers(0, 2**32 - 1))
def test_every_bias_comes_back_bit_for_bit(patterns, step):
    biases = floats(patterns)
    steps = np.full(len(biases), floats([step])[0])
    assert same_bits(to_biases(of_biases(biases, steps), steps), biases)


@settings(max_examples=200)
@given(st.lists(STEPS, min_size=1, max_size=30), st.floats(2.0**-40, 2.0**20, width=32))
def test_whole_steps_take_their_length(counts, step):
    steps = np.full(len(counts), step, np.float32)
    biases = np.asarray(counts, np.float32) * steps
    found = of_biases(biases, steps)
    assert (found.classes != ESCAPE).all()
    assert found.low_bits.tolist() == [max(abs(n).bit_length() - 1, 0) for n in counts]
    assert same_bits(to_biases(found, steps), biases)


@pytest.mark.parametrize(
    ("scale", "number", "low", "bits"),
    [
        (1.0, 5, 0, 7),
        (-0.5, ~6, 0, 7),
        (1.5, 5, 64, 7),
        (2.0**-25, 30, 0, 7),
        (2.0**-26, ESCAPE, 101 << 23, 32),
        (64.0, ESCAPE, 133 << 23, 32),
        (0.0, ESCAPE, 0, 32),
        (1 + 2.0**-8, ESCAPE, 127 << 23 | 1 << 15, 32),
    ],
)
def test_scales_in_this_notation(scale, number, low, bits):
    found = of_scales(np.array([scale], np.float32))
    assert (found.classes[0], found.low[0], found.low_bits[0]) == (number, low, bits)


@pytest.mark.parametrize(
    ("bias", "step", "number", "low", "bits"),
    [
        (2.5, 0.5, 3, 1, 2),
        (-2.5, 0.5, ~3, 1, 2),
        (2.5, -0.5, ~3, 1, 2),
        (0.0, 0.5, 0, 0, 0),
        (0.0, 0.0, 0, 0, 0),
        (0.75, 0.5, ESCAPE, 0x3F400000, 32),
        (1.0, 0.0, ESCAPE, 0x3F800000, 32),
        (2.0**23, 1.0, ESCAPE, 0x4B000000, 32),
    ],
)
def test_biases_in_this_notation(bias, step, number, low, bits):
    found = of_biases(np.array([bias], np.float32), np.array([step], np.float32))
    assert (found.classes[0], found.low[0], found.low_bits[0]) == (number, low, bits)
