"""Who found what at which cost: outcomes of searches, and what a comparison says of them.

Everything here is a function of plain numbers; searches are run by
:mod:`ajpq.comparing.comparison`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from pydantic import BaseModel, ConfigDict

from ajpq.comparing.staircases import Step, running_best


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredPolicy(_Frozen):
    """A policy on the whole validation split, by the exact reference.

    Attributes:
        top1: percent.
        drop: points of top-1 below the uncompressed network; negative if it is above.
        ratio: mean of the bounded costs, each relative to its reference.
        within: for each budget, does it keep it?
    """

    hash: str
    top1: float
    drop: float
    ratio: float
    within: tuple[bool, ...]


class Outcome(_Frozen):
    """What one search has come to.

    Attributes:
        agent: name of the searcher.
        candidates: how many it asked for.
        images: what they and everything else took.
        seconds: of wall clock, until the last candidate.
        measured: the best of its candidates.
        curve: from so many images on, the mean over budgets of the best reward so far.
    """

    agent: str
    seed: int
    candidates: int
    images: int
    seconds: float
    measured: tuple[MeasuredPolicy, ...]
    curve: tuple[Step, ...]

    def best_top1(self, budget: int) -> float | None:
        """The best top-1 within the budget of this number, in percent; None without any."""
        found = [policy.top1 for policy in self.measured if policy.within[budget]]
        return max(found, default=None)


@dataclass(frozen=True)
class Asked:
    """A candidate as the searcher saw it.

    Attributes:
        images: spent when its answer was known.
        rewards: one for each budget; None where it is not within, and everywhere if it was given
            up.
        between: of budgets between those that were asked for; estimates where it was given up.
    """

    hash: str
    images: int
    rewards: tuple[float | None, ...]
    between: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Median, least and largest over seeds; None where that is a seed that has found nothing."""

    median: float | None
    least: float | None
    most: float | None


@dataclass(frozen=True)
class Standing:
    """One searcher: its row of the table. Plain numbers are medians over its seeds.

    Attributes:
        hypervolume: points of top-1 times cost ratio.
        best_top1: one for each budget, in percent.
    """

    agent: str
    candidates: float
    images: float
    seconds: float
    hypervolume: Spread
    best_top1: tuple[Spread, ...]


class Comparison(_Frozen):
    """Searches on the same problem, at the same cost.

    Attributes:
        budgets: bounded cost -> largest ratio to its reference, the tightest budget first.
        images: what every search might take.
        reference: drop in points and cost ratio from which the hypervolume is measured.
        baseline_top1: of the uncompressed network on the validation split, in percent.
    """

    model: str
    data: str
    target: str
    budgets: tuple[dict[str, float], ...]
    images: int
    reference: tuple[float, float]
    baseline_top1: float
    searches: tuple[Outcome, ...]
    versions: dict[str, str]

    @property
    def by_agent(self) -> dict[str, list[Outcome]]:
        """Searcher -> its searches, in the order in which they were named."""
        found: dict[str, list[Outcome]] = {}
        for outcome in self.searches:
            found.setdefault(outcome.agent, []).append(outcome)
        return found


def standings(comparison: Comparison) -> list[Standing]:
    """One row for each searcher."""
    return [
        _standing(outcomes, len(comparison.budgets), comparison.reference)
        for outcomes in comparison.by_agent.values()
    ]


def _standing(
    outcomes: Sequence[Outcome], budgets: int, reference: tuple[float, float]
) -> Standing:
    def median(value: Callable[[Outcome], float]) -> float:
        return statistics.median(value(outcome) for outcome in outcomes)

    return Standing(
        agent=outcomes[0].agent,
        candidates=median(lambda outcome: outcome.candidates),
        images=median(lambda outcome: outcome.images),
        seconds=median(lambda outcome: outcome.seconds),
        hypervolume=spread([volume_of(outcome, reference) for outcome in outcomes]),
        best_top1=tuple(
            spread([outcome.best_top1(budget) for outcome in outcomes]) for budget in range(budgets)
        ),
    )


def hypervolume(points: Iterable[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area between ``points`` and ``reference`` that at least one point is better than.

    Both coordinates are minimised; a point beyond the reference in either adds nothing.
    """
    found = [point for point in points if point[0] < reference[0] and point[1] < reference[1]]
    return float(moocore.hypervolume(np.array(found), ref=reference)) if found else 0.0


def volume_of(outcome: Outcome, reference: tuple[float, float]) -> float:
    """:func:`hypervolume` of the drops and the cost ratios that a search has reached."""
    return hypervolume(((policy.drop, policy.ratio) for policy in outcome.measured), reference)


def spread(values: Iterable[float | None]) -> Spread:
    """Median, least and largest; None counts as less than anything."""
    numbers = [-math.inf if value is None else value for value in values]
    found = (statistics.median(numbers), min(numbers), max(numbers))
    return Spread(*(value if value > -math.inf else None for value in found))


def best_within(asked: Iterable[Asked], count: int) -> list[str]:
    """Hashes of the ``count`` different candidates with the largest reward within each budget.

    Then the one with the largest within each budget between. Each is named once, those of the first
    budget first.
    """
    seen = {each.hash: each for each in asked}
    own = {name: each.rewards for name, each in seen.items()}
    between = {name: each.between for name, each in seen.items()}
    return list(dict.fromkeys([*_best(own, count), *_best(between, 1)]))


def _best(rewards: Mapping[str, tuple[float | None, ...]], count: int) -> list[str]:
    found: list[str] = []
    for budget in range(len(next(iter(rewards.values()), ()))):
        inside = [(own[budget], name) for name, own in rewards.items()]
        known = [(reward, name) for reward, name in inside if reward is not None]
        ranked = sorted(known, key=lambda pair: pair[0], reverse=True)
        found += [name for _, name in ranked[:count]]
    return found


def reward_curve(asked: Iterable[Asked]) -> list[Step]:
    """Mean over budgets of the best reward so far against images.

    It begins where every budget has a candidate: a mean of fewer would fall later.
    """
    best: list[float] = []
    points: list[Step] = []
    for each in asked:
        rewards = [-math.inf if reward is None else reward for reward in each.rewards]
        best = [max(pair) for pair in zip(best or rewards, rewards, strict=True)]
        points.append((each.images, statistics.fmean(best)))
    return running_best(point for point in points if point[1] > -math.inf)


def front(outcome: Outcome) -> list[Step]:
    """The best top-1, in percent, that a cost ratio up to x has bought."""
    return running_best((policy.ratio, policy.top1) for policy in outcome.measured)
