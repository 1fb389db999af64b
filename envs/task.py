"""What an environment needs to know of the network being compressed: facts, prices, a judge."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ajpq.evaluate import Costs, Metrics
from ajpq.policy import CompressionPolicy, LayerPolicy, QuantizerSpec
from envs.actions import Knobs, decode
from envs.allocation import KernelTable, Ladder, weighted
from envs.budget import Budget, QuickCosts, project
from envs.guesses import project_by_guess
from envs.slopes import Slopes

# How far an action of 1 moves a setting: from a guess, and from the border of the accuracy.
_REACH, _REACH_AT_BORDER = 0.5, 0.1
# Bounded costs that a projection may look for by guesses.
_GUESSED = frozenset({"latency", "size"})


@dataclass(frozen=True)
class LayerFacts:
    """What is known of a layer before the search; shares are of the whole network.

    Attributes:
        latency_share: of the int8 network on the target; 0 where it tells nothing about layers.
        sensitivity: KL divergence in nats when only this layer is at the narrowest width, and
            when only this layer loses half of its channels, each divided by the largest of all
            layers.
        coupled: do other layers' outputs have to be pruned with this one's?
    """

    name: str
    kind: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    positions: int
    depthwise: bool
    coupled: bool
    macs_share: float
    weights_share: float
    latency_share: float
    sensitivity: tuple[float, float]


def _harmless(changes: Mapping[str, LayerPolicy]) -> float:
    return 0.0


@dataclass(frozen=True, eq=False)
class CompressionTask:
    """The problem as an environment sees it.

    Attributes:
        layers: in execution order.
        scores: layer name -> ``[C]`` importance, same order.
        leaders: for each layer the index of the one that decides its sparsity.
        prior: ``[L, K]`` settings in [0, 1] that single-layer measurements suggest.
        unprunable: layers whose channels must live (those that make the logits).
        packed_bytes: size of the packed file before any training; the cheapest question.
        price: all costs of a policy before any training; asks the target.
        judge: metrics of a policy after the candidates' recipe, given up early where it clearly
            is no finalist within a budget.
        value: reward of metrics under a budget.
        harm: nats of divergence when the uncompressed network has only these layers changed.
        harm_images: how many images it takes to measure that once.
        spent_images: what measuring everything above has taken.
        slopes: of a policy's network; None where candidates are trained or widths are fixed.
        slope_images: what measuring them once costs, in images shown.
        tables: of each layer, what its channels lose and store at every width; empty where
            widths are fixed or real.
        shares: for each layer ``[C]`` how much more its channels matter than the tables say, see
            :func:`envs.allocation.weighted`; None where widths ramp up with importance.
        readers: for each layer the index of the first that reads the same stream; empty where each
            reads its own.
        reach: how far an action of 1 moves a setting from the prior, or shares from those above.
        path: ``[L, K]`` settings within a hard budget from the most expensive policy down, by the
            target's prices and single-layer measurements; empty unless the budget bounds the drop
            of accuracy.
        margin: share of the budget that projection leaves free.
        hard: project proposals onto the budget before they are assessed.
        guess: seconds of a policy on a target that is slow to ask, from what it said before; None
            where it has not said enough.
    """

    layers: tuple[LayerFacts, ...]
    scores: Mapping[str, np.ndarray]
    leaders: tuple[int, ...]
    prior: np.ndarray
    unprunable: frozenset[str]
    knobs: Knobs
    quantizer: QuantizerSpec
    budget: Budget
    packed_bytes: Callable[[CompressionPolicy], int]
    price: Callable[[CompressionPolicy], Costs]
    judge: Callable[[CompressionPolicy, Budget], Metrics]
    value: Callable[[Metrics, Budget], float]
    harm: Callable[[Mapping[str, LayerPolicy]], float] = _harmless
    harm_images: int = 0
    spent_images: int = 0
    slopes: Callable[[CompressionPolicy], Slopes] | None = None
    slope_images: int = 0
    tables: tuple[KernelTable, ...] = ()
    shares: tuple[np.ndarray, ...] | None = None
    readers: tuple[int, ...] = ()
    reach: float = _REACH
    path: tuple[np.ndarray, ...] = ()
    margin: float = 0.02
    hard: bool = True
    guess: Callable[[CompressionPolicy], float | None] | None = None

    def __deepcopy__(self, memo: object = None) -> CompressionTask:
        """Nobody changes one; environments of Stable-Baselines3 copy all that they tell."""
        return self

    @cached_property
    def ladders(self) -> tuple[Ladder, ...] | None:
        """Of each layer, who buys its bits; None where widths ramp up with importance."""
        if self.shares is None:
            return None
        pairs = zip(self.tables, self.shares, strict=True)
        return tuple(weighted(table.ladder, own) for table, own in pairs)

    def assess(self, policy: CompressionPolicy) -> Metrics:
        """Metrics of ``policy`` as a candidate for the task's budget."""
        return self.judge(policy, self.budget)

    def score(self, metrics: Metrics) -> float:
        """Reward of ``metrics`` under the task's budget."""
        return self.value(metrics, self.budget)

    def at(self, scale: float) -> CompressionTask:
        """The task with all bounds on costs ``scale`` times as high."""
        return dataclasses.replace(self, budget=self.budget.scaled(scale))

    def settings(self, index: int, action: np.ndarray) -> np.ndarray:
        """``[K]`` settings of a layer for an action in [-1, 1], an offset from the prior."""
        return np.clip(self.prior[index] + self.reach * np.asarray(action, dtype=np.float64), 0, 1)

    def with_shares(self, shares: Sequence[np.ndarray]) -> CompressionTask:
        """The task with channels that buy their bits as ``shares`` say, ``[C]`` for each layer.

        The knob ``spread`` is gone with the ramps.
        """
        kept = [index for index, name in enumerate(self.knobs.names) if name != "spread"]
        names = tuple(self.knobs.names[index] for index in kept)
        return dataclasses.replace(
            self,
            shares=tuple(shares),
            knobs=dataclasses.replace(self.knobs, names=names),
            prior=self.prior[:, kept] if self.prior.shape[1] > len(kept) else self.prior,
        )

    def around(self, settings: np.ndarray) -> CompressionTask:
        """The task with a prior at the border: the agent looks in its neighbourhood."""
        return dataclasses.replace(self, prior=settings, reach=_REACH_AT_BORDER)

    def projected(self, actions: np.ndarray) -> np.ndarray:
        """``[L, K]`` settings moved onto the budget."""
        budget = self.budget

        def size(moved: np.ndarray) -> int:
            return self.packed_bytes(self.policy(moved))

        def price(moved: np.ndarray) -> Costs:
            return self.price(self.policy(moved))

        if not self.guesses:
            return project(actions, self.knobs, budget, size, price, self.margin)

        def quick(moved: np.ndarray) -> Costs | QuickCosts:
            return self.quick_costs(self.policy(moved))

        return project_by_guess(actions, self.knobs, budget, size, price, quick, self.margin)

    @property
    def guesses(self) -> bool:
        """Is the target slow to ask, and do guesses know all that is bounded?"""
        return self.guess is not None and self.budget.bounds.keys() <= _GUESSED

    def quick_costs(self, policy: CompressionPolicy) -> Costs | QuickCosts:
        """Costs as far as they are bounded, guessed where asking takes long and enough is known."""
        latency = self.guess(policy) if self.guess is not None and self.guesses else None
        if latency is None:
            return self.price(policy)
        return QuickCosts(latency, functools.partial(self.packed_bytes, policy))

    def policy(self, actions: np.ndarray) -> CompressionPolicy:
        """Decode ``[L, K]`` settings in [0, 1]."""
        return decode(
            actions,
            self.scores,
            self.leaders,
            self.unprunable,
            self.knobs,
            self.quantizer,
            self.ladders,
        )
