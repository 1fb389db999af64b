"""Budgets, the projection of a proposal onto them, and the reward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ajpq.evaluate import Costs, Metrics
from ajpq.limits import METRICS, in_units
from envs.actions import Knobs
from hw_models.errors import BudgetError

# A proposal moves on so many equal steps towards the cheapest and towards the richest policy.
_STEPS = 32
# Costs that follow the widths rather than the number of channels.
_STORED = frozenset({"size", "flash"})


@dataclass(frozen=True)
class QuickCosts:
    """Latency and size alone, for a projection that is bounded by nothing else.

    Attributes:
        size: bytes of the packed file; asked only where it decides.
    """

    latency_s: float
    size: Callable[[], int]
    flash_bytes: None = None
    peak_activation_bytes: None = None
    energy_j: None = None

    @property
    def packed_bytes(self) -> int:
        """What ``size`` answers."""
        return self.size()


@dataclass(frozen=True)
class Budget:
    """Upper bounds relative to a reference.

    Attributes:
        bounds: cost (a key of :data:`ajpq.limits.METRICS`) -> largest ratio to the reference.
        reference: cost -> what the reference costs; a cost that the target does not know is absent.
        max_drop: points of top-1 that may be lost against ``reference_top1``; None is no bound.
    """

    bounds: Mapping[str, float]
    reference: Mapping[str, float]
    max_drop: float | None
    reference_top1: float

    def scaled(self, scale: float) -> Budget:
        """The budget with all bounds ``scale`` times as high."""
        bounds = {name: bound * scale for name, bound in self.bounds.items()}
        return replace(self, bounds=bounds)

    def ratios(self, costs: Costs | QuickCosts) -> dict[str, float]:
        """Every bounded cost, and latency and size where they are known, over the reference."""
        shown = [name for name in METRICS if name in self.bounds or name in ("latency", "size")]
        known = [name for name in shown if name in self.reference]
        return {
            name: self._ratio(name, costs)
            for name in known
            if getattr(costs, METRICS[name]) is not None
        }

    def _ratio(self, name: str, costs: Costs | QuickCosts) -> float:
        return float(getattr(costs, METRICS[name]) / max(self.reference[name], 1e-12))

    def cost(self, costs: Costs | QuickCosts) -> float:
        """The mean of :meth:`ratios`: what a search with ``max_drop`` wants small."""
        return float(np.mean(list(self.ratios(costs).values())))

    def excess(self, costs: Costs | QuickCosts, margin: float = 0.0) -> dict[str, float]:
        """By how much each bound is exceeded, relative to it; 0 where it holds."""
        return {
            name: max(0.0, self._ratio(name, costs) / (bound * (1 - margin)) - 1)
            for name, bound in self.bounds.items()
        }

    def keeps_accuracy(self, metrics: Metrics) -> bool:
        """Is no more accuracy lost than ``max_drop`` allows?"""
        lost = self.reference_top1 - metrics.top1_val
        return self.max_drop is None or lost <= self.max_drop

    def met(self, costs: Costs | QuickCosts, margin: float = 0.0) -> bool:
        """Do all bounds hold?"""
        return not any(self.excess(costs, margin).values())


def between(budgets: Sequence[Budget], count: int) -> list[Budget]:
    """``count`` budgets between each of ``budgets`` and the next, equal factors apart."""
    shares = [step / (count + 1) for step in range(1, count + 1)]
    return [
        replace(low, bounds=_mixed(low.bounds, high.bounds, share))
        for low, high in itertools.pairwise(budgets)
        for share in shares
    ]


def _mixed(low: Mapping[str, float], high: Mapping[str, float], share: float) -> dict[str, float]:
    return {name: bound ** (1 - share) * high[name] ** share for name, bound in low.items()}


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
        value = -budget.cost(metrics)
        value -= max(0.0, lost_points - budget.max_drop) / 10 + kl_weight * metrics.kl
    if soft:
        value -= excess_weight * sum(budget.excess(metrics).values())
    return value


def project(
    actions: np.ndarray,
    knobs: Knobs,
    budget: Budget,
    packed_bytes: Callable[[np.ndarray], int],
    price: Callable[[np.ndarray], Costs | QuickCosts],
    margin: float,
) -> np.ndarray:
    """Move ``actions [L, K]`` onto the budget: tighter where they exceed it, looser where not.

    All layers move by the same share of their way to the cheapest or the richest setting, so that
    the proposal keeps what it says about layers relative to each other, and no candidate wastes a
    budget that it was allowed. Widths answer to the bounds on what is stored, then sparsity to the
    others, because compute falls with channels. Channels come in blocks and devices in steps, so
    one layer after the other then takes back what the common move pruned without need, the least
    pruned first; at last widths take what pruning has left. If that fails, everything is tightened
    together. With ``max_drop`` nothing is loosened: there the cheaper policy is the better one.

    Raises:
        BudgetError: even the cheapest policy exceeds a bound; the message names its cost.
    """
    if not budget.bounds:
        return actions
    loosest = -_STEPS if budget.max_drop is None else 0
    sparsity = np.array([name == "sparsity" for name in knobs.names], dtype=float)
    widths = np.array([name == "bits" for name in knobs.names], dtype=float)

    def small_enough(moved: np.ndarray) -> bool:
        size = budget.bounds.get("size", math.inf)
        return packed_bytes(moved) <= size * (1 - margin) * budget.reference["size"]

    def all_met(moved: np.ndarray) -> bool:
        return small_enough(moved) and budget.met(price(moved), margin)

    def stored(moved: np.ndarray) -> bool:
        if not small_enough(moved) or "flash" not in budget.bounds:
            return small_enough(moved)
        return budget.excess(price(moved), margin)["flash"] == 0

    others = {name: bound for name, bound in budget.bounds.items() if name not in _STORED}
    compute = replace(budget, bounds=others)

    def computed(moved: np.ndarray) -> bool:
        return compute.met(price(moved), margin)

    if widths.any() and budget.bounds.keys() & _STORED:
        actions = _move(actions, knobs, widths, loosest, stored)
    if others:
        actions = _move(actions, knobs, sparsity, loosest, computed)
        if loosest < 0:
            actions = _refill(actions, knobs, sparsity, computed)
    if widths.any():
        actions = _move(actions, knobs, widths, loosest, all_met)
    actions = _move(actions, knobs, np.ones(len(knobs.names)), 0, all_met)
    costs = price(actions)
    if not budget.met(costs, margin):
        raise unreachable(budget, costs, margin)
    return actions


def unreachable(budget: Budget, cheapest: Costs | QuickCosts, margin: float) -> BudgetError:
    """The error for a budget below the cheapest policy."""
    ratios = budget.ratios(cheapest)
    parts = [
        f"{name} ratio {bound:.4g} or {in_units(name, bound * budget.reference[name])} (with a "
        f"margin of {margin:.1%}), smallest reachable {ratios[name]:.4g} or "
        f"{in_units(name, ratios[name] * budget.reference[name])}"
        for name, bound in budget.bounds.items()
        if ratios[name] > bound * (1 - margin)
    ]
    return BudgetError(f"no policy meets the budget: {'; '.join(parts)}")


def _refill(
    actions: np.ndarray, knobs: Knobs, movable: np.ndarray, good: Callable[[np.ndarray], bool]
) -> np.ndarray:
    """Loosen one layer at a time as far as ``good`` holds, those with the least to regain first."""
    if good(actions):
        for layer in np.argsort((actions * movable).sum(1), kind="stable"):
            alone = np.outer(np.arange(len(actions)) == layer, movable)
            actions = _move(actions, knobs, alone, -_STEPS, good, tightest=0)
    return actions


def _move(
    actions: np.ndarray,
    knobs: Knobs,
    movable: np.ndarray,
    loosest: int,
    good: Callable[[np.ndarray], bool],
    tightest: int = _STEPS,
) -> np.ndarray:
    """Bisect the loosest common step at which ``good`` holds; the tightest if it never does.

    ``movable``, ``[K]`` or ``[L, K]``, is 1 for the numbers that move.

    Costs fall along the way but for small rounding effects of hardware, so the caller checks the
    result.
    """

    def moved(step: int) -> np.ndarray:
        end = knobs.tightest if step > 0 else knobs.loosest
        return actions + movable * (abs(step) / _STEPS) * (end - actions)

    if good(moved(loosest)):
        return moved(loosest)
    if not good(moved(tightest)):
        return moved(tightest)
    low, high = loosest, tightest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(moved(middle)) else (middle, high)
    return moved(high)
