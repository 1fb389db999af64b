"""Answers of looked-up functions keep away from the middle between two codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.simulation.lookup import CLEAR, FUNCTIONS, MOST_LARGER, clear_step
from hw_models.network import Edge

TORCH = {
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


def margin(function: str, source: Edge, target: Edge) -> float:
    """How near the nearest answer is to the middle between two codes, by PyTorch in float64."""
    low, high = source.code_range
    inputs = torch.arange(low, high + 1).double() * source.scale
    exact = (TORCH[function](inputs) / target.scale).clamp(*target.code_range)
    return float((exact - exact.floor() - 0.5).abs().min())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_are_pytorchs(function):
    x = np.linspace(-9, 9, 201)
    assert np.allclose(FUNCTIONS[function](x), TORCH[function](torch.from_numpy(x)).numpy())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FUNCTIONS)),
    st.floats(0.01, 0.1),
    st.floats(0.002, 0.1),
    st.booleans(),
)
def test_the_step_grows_a_little_and_answers_are_clearer(function, step_in, step_out, signed):
    source = Edge("in", (), 8, True, float(np.float32(step_in)))
    target = Edge("out", (), 8, signed, float(np.float32(step_out)))
    step = clear_step([(function, source)], target)
    assert target.scale <= step <= target.scale * (1 + MOST_LARGER) * (1 + 1e-6)
    found = margin(function, source, Edge("out", (), 8, signed, step))
    assert found >= min(CLEAR, margin(function, source, target)) - 1e-9


def test_a_grid_that_is_clear_stays():
    source, target = Edge("in", (), 2, True, 3.0), Edge("out", (), 8, False, 1.0)
    assert margin("hardswish", source, target) == 0.5
    assert clear_step([("hardswish", source)], target) == 1.0


def test_functions_that_share_a_grid_are_both_clear():
    sources = [("hardswish", Edge("a", (), 8, True, 0.031)), ("silu", Edge("b", (), 8, True, 0.02))]
    target = Edge("out", (), 8, True, float(np.float32(0.0301)))
    step = clear_step(sources, target)
    moved = Edge("out", (), 8, True, step)
    before = min(margin(function, source, target) for function, source in sources)
    after = min(margin(function, source, moved) for function, source in sources)
    assert target.scale <= step <= target.scale * (1 + MOST_LARGER)
    assert after > before
