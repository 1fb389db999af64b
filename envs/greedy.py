"""The greedy way from a network that loses nothing to cheap ones: one step down at a time.

A ladder is one thing that can be made cheaper, such as the width of one layer's weights; its rungs
are settings from the most expensive to the cheapest. Which step comes next is decided by the cost
that it saves per harm that it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Rungs = tuple[int, ...]
"""For each ladder how many rungs it has been stepped down."""

# Harm that is too small to matter, next to which no step counts as free.
_HARMLESS = 1e-5


def greedy_path(
    heights: Sequence[int],
    related: Sequence[Iterable[int]],
    cost: Callable[[Rungs], float],
    harm: Callable[[int, int], float],
    most_harm: float,
) -> list[Rungs]:
    """Positions from the top of all ladders down, each cheaper than the one before.

    Args:
        heights: rungs of each ladder, the top included.
        related: for each ladder those whose steps may save more once this one has been stepped
            down. The savings of others are looked at again only when they are about to be taken.
        cost: of a position.
        harm: (ladder, rung) -> harm done when only this ladder is stepped down so far. Harms are
            taken to add up; one that is smaller than further up the ladder counts as equal.
        most_harm: the path ends before the sum exceeds this.

    Rungs that save nothing are skipped together with the next that does: a device that computes
    with 8 or 4 bits gains nothing at 7.
    """
    position: Rungs = (0,) * len(heights)
    path, price, total = [position], cost(position), 0.0

    def step(ladder: int) -> Step:
        now = position[ladder]
        for rung in range(now + 1, heights[ladder]):
            cheaper = (*position[:ladder], rung, *position[ladder + 1 :])
            if (saved := price - cost(cheaper)) > 0:
                added = harm(ladder, rung) - (harm(ladder, now) if now else 0.0)
                added = max(added, _HARMLESS)
                if total + added <= most_harm:
                    return Step(saved / added, cheaper, saved, added)
        return Step(0.0, position, 0.0, 0.0)

    steps = [step(ladder) for ladder in range(len(heights))]
    while steps:
        order = [found.efficiency for found in steps]
        ladder = order.index(max(order))
        steps[ladder] = best = step(ladder)
        if best.efficiency < max(order[:ladder] + order[ladder + 1 :], default=0.0):
            continue
        if best.efficiency == 0.0:
            break
        position, price, total = best.position, price - best.saved, total + best.added
        path.append(position)
        for other in {ladder, *related[ladder]}:
            steps[other] = step(other)
    return path


@dataclass(frozen=True)
class Step:
    """The next step down a ladder that saves something; an efficiency of 0 if there is none."""

    efficiency: float
    position: Rungs
    saved: float
    added: float


def last_that_holds(count: int, holds: Callable[[int], bool], more: Callable[[], bool]) -> int:
    """The largest of ``0 .. count - 1`` at which ``holds``, by bisection; 0 is taken to hold.

    ``more`` is asked before every question; at the first no it is the largest found so far.
    """
    low, high = 0, count
    while high - low > 1 and more():
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
