"""Functions that hardware looks up: one answer per code, and none of them a close call.

Runtimes evaluate such functions in an arithmetic of their own, which is a little off: an answer in
the middle between two codes becomes one here and the other there, at every pixel that asks for it.
A slightly larger step of the answers' grid moves all of them away from the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hw_models.network import Edge

CLEAR = 0.01  # of a step: what runtimes are off by is below a half of it
MOST_LARGER = 0.02
_TRIES = 81


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3, 0, 6) / 6


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hardswish": lambda x: x * _hard_sigmoid(x),
    "hardsigmoid": _hard_sigmoid,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
}


def clear_step(asked: Sequence[tuple[str, Edge]], target: Edge) -> float:
    """The smallest step of ``target`` from its own upwards that leaves no answer in the middle.

    Args:
        asked: functions, keys of ``FUNCTIONS``, and the codes that each is asked about.
        target: codes of the answers; saturated ones are never in the middle.

    Returns:
        A float32 number at most 2 % above ``target.scale``: the first with which every answer is
        ``CLEAR`` of the middle, or else the one that comes closest to that.
    """
    answers = np.concatenate([_answers(function, source) for function, source in asked])
    steps = (target.scale * np.linspace(1, 1 + MOST_LARGER, _TRIES)).astype(np.float32)
    exact = np.clip(answers / steps[:, None].astype(np.float64), *target.code_range)
    margins = np.abs(exact - np.floor(exact) - 0.5).min(1)
    good = margins >= CLEAR
    return float(steps[good.argmax() if good.any() else margins.argmax()])


def _answers(function: str, source: Edge) -> np.ndarray:
    low, high = source.code_range
    return FUNCTIONS[function](np.arange(low, high + 1) * source.scale)
