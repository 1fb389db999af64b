"""Budgets, the projection of a proposal onto them, and the reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ajpq.evaluate import Costs, Metrics
from envs.actions import Knobs
from hw_models.errors import BudgetError

# Tightening is searched on this many equal steps between the proposal and the cheapest policy.
_STEPS = 64


@dataclass(frozen=True)
class Budget:
    """Upper bounds relative to a reference; ``None`` leaves a cost free.

    Attributes:
        latency_ratio, size_ratio: bounds on ``latency_s / reference_latency_s`` and on
            ``packed_bytes / reference_bytes``.
        max_drop: points of top-1 that may be lost against ``reference_top1``.
    """

    latency_ratio: float | None
    size_ratio: float | None
    max_drop: float | None
    reference_latency_s: float | None
    reference_bytes: int
    reference_top1: float

    def ratios(self, costs: Costs) -> dict[str, float]:
        """``latency`` (where the target knows it) and ``size``, relative to the reference."""
        ratios = {"size": costs.packed_bytes / self.reference_bytes}
        if costs.latency_s is not None and self.reference_latency_s:
            ratios["latency"] = costs.latency_s / self.reference_latency_s
        return ratios

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are set, by the same keys."""
        given = {"latency": self.latency_ratio, "size": self.size_ratio}
        return {name: bound for name, bound in given.items() if bound is not None}

    def excess(self, costs: Costs, margin: float = 0.0) -> dict[str, float]:
        """By how much each bound is exceeded, relative to it; 0 where it holds."""
        ratios = self.ratios(costs)
        return {
            name: max(0.0, ratios[name] / (bound * (1 - margin)) - 1)
            for name, bound in self.bounds.items()
        }

    def met(self, costs: Costs, margin: float = 0.0) -> bool:
        """Do all bounds hold?"""
        return not any(self.excess(costs, margin).values())


def reward(
    metrics: Metrics, budget: Budget, *, kl_weight: float, soft: bool, excess_weight: float = 2.0
) -> float:
    """One number per candidate, larger is better.

    Without ``max_drop`` it is accuracy (0..1) minus ``kl_weight`` times the KL divergence, relative
    to the uncompressed network. With ``max_drop`` it is the negative mean cost ratio, minus what
    the accuracy falls short of the bound in tenths of a point. ``soft`` subtracts
    ``excess_weight`` times the excess over each bound.
    """
    lost_points = budget.reference_top1 - metrics.top1_val
    if budget.max_drop is None:
        value = -lost_points / 100 - kl_weight * metrics.kl
    else:
        ratios = budget.ratios(metrics)
        value = -float(np.mean(list(ratios.values())))
        value -= max(0.0, lost_points - budget.max_drop) / 10 + kl_weight * metrics.kl
    if soft:
        value -= excess_weight * sum(budget.excess(metrics).values())
    return value


def project(
    actions: np.ndarray,
    knobs: Knobs,
    budget: Budget,
    price: Callable[[np.ndarray], Costs],
    margin: float,
) -> np.ndarray:
    """The least tightening of ``actions [L, K]`` that meets the budget.

    First all layers move together towards more sparsity until the latency bound holds, because
    compute falls with channels only; then towards narrower widths until the size bound holds;
    if that is not enough, both together.

    Raises:
        BudgetError: even the cheapest policy exceeds a bound; the message names its cost.
    """
    if not budget.bounds or budget.met(price(actions), margin):
        return actions
    sparsity = np.array([name == "sparsity" for name in knobs.names], dtype=float)
    if "latency" in budget.bounds:
        actions = _tighten(actions, knobs, sparsity, price, lambda c: _within(budget, c, margin, "latency"))
    if "size" in budget.bounds and "bits" in knobs.names:
        actions = _tighten(
            actions, knobs, 1 - sparsity, price, lambda c: _within(budget, c, margin, "size")
        )
    everything = np.ones(len(knobs.names))
    actions = _tighten(actions, knobs, everything, price, lambda c: budget.met(c, margin))
    costs = price(actions)
    if not budget.met(costs, margin):
        raise unreachable(budget, costs, margin)
    return actions


def unreachable(budget: Budget, cheapest: Costs, margin: float) -> BudgetError:
    """The error for a budget below the cheapest policy."""
    ratios = budget.ratios(cheapest)
    parts = [
        f"{name} ratio {bound:g} (with a margin of {margin:.0%}), smallest reachable {ratios[name]:.4f}"
        for name, bound in budget.bounds.items()
        if ratios[name] > bound * (1 - margin)
    ]
    return BudgetError(f"no policy meets the budget: {'; '.join(parts)}")


def _within(budget: Budget, costs: Costs, margin: float, name: str) -> bool:
    return budget.excess(costs, margin)[name] == 0


def _tighten(
    actions: np.ndarray,
    knobs: Knobs,
    movable: np.ndarray,
    price: Callable[[np.ndarray], Costs],
    good: Callable[[Costs], bool],
) -> np.ndarray:
    """Bisect the smallest common step from ``actions`` towards the cheapest settings.

    Costs fall along the way but for small rounding effects of hardware, so the result is checked
    by the caller, not assumed.
    """

    def moved(step: int) -> np.ndarray:
        share = movable * (step / _STEPS)
        return actions + share * (knobs.tightest - actions)

    if good(price(actions)):
        return actions
    low, high = 0, _STEPS
    if not good(price(moved(high))):
        return moved(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(price(moved(middle))) else (middle, high)
    return moved(high)
