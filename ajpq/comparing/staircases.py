"""Staircases: the best so far, as something is spent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Step = tuple[float, float]
"""From this x on the best so far is y."""


def running_best(points: Iterable[Step]) -> list[Step]:
    """Where, as x grows, y exceeds everything before: one step for each such place."""
    steps: list[Step] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not steps or y > steps[-1][1]:
            steps.append((x, y))
    return steps


def heights(steps: Sequence[Step], grid: np.ndarray) -> np.ndarray:
    """``[len(grid)]`` height of a staircase; NaN before its first step."""
    if not steps:
        return np.full(len(grid), np.nan)
    x, y = np.array(steps, dtype=np.float64).T
    place = np.searchsorted(x, grid, side="right") - 1
    return np.where(place < 0, np.nan, y[np.maximum(place, 0)])


def band(staircases: Sequence[Sequence[Step]], grid: np.ndarray) -> np.ndarray:
    """``[3, len(grid)]`` least, median and largest height; NaN where not all have begun."""
    values = np.array([heights(steps, grid) for steps in staircases])
    return np.array([values.min(0), np.median(values, 0), values.max(0)])


def corners(staircases: Sequence[Sequence[Step]], end: float) -> np.ndarray:
    """Every x before ``end`` at which one of ``staircases`` steps, ascending, and ``end``.

    On this grid :func:`band` holds all that there is to draw.
    """
    found = {x for steps in staircases for x, _ in steps if x < end}
    return np.array(sorted(found | {end}), dtype=np.float64)
