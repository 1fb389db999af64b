"""What an environment needs to know of the network being compressed: facts, prices, a judge."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ajpq.evaluate import Costs, Metrics
from ajpq.policy import CompressionPolicy, QuantizerSpec
from envs.actions import Knobs, decode
from envs.budget import Budget, QuickCosts, project
from envs.guesses import project_by_guess

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
        assess: metrics of a policy after the candidates' recipe; a pure function.
        score: reward of metrics.
        reach: how far an action of 1 moves a setting from the prior.
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
    assess: Callable[[CompressionPolicy], Metrics]
    score: Callable[[Metrics], float]
    reach: float = _REACH
    path: tuple[np.ndarray, ...] = ()
    margin: float = 0.02
    hard: bool = True
    guess: Callable[[CompressionPolicy], float | None] | None = None

    def settings(self, index: int, action: np.ndarray) -> np.ndarray:
        """``[K]`` settings of a layer for an action in [-1, 1], an offset from the prior."""
        return np.clip(self.prior[index] + self.reach * np.asarray(action, dtype=np.float64), 0, 1)

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

        if self.guess is None or not budget.bounds.keys() <= _GUESSED:
            return project(actions, self.knobs, budget, size, price, self.margin)
        return project_by_guess(
            actions, self.knobs, budget, size, price, self._quick_costs, self.margin
        )

    def _quick_costs(self, moved: np.ndarray) -> Costs | QuickCosts:
        assert self.guess is not None
        policy = self.policy(moved)
        latency = self.guess(policy)
        if latency is None:
            return self.price(policy)
        return QuickCosts(latency, functools.partial(self.packed_bytes, policy))

    def policy(self, actions: np.ndarray) -> CompressionPolicy:
        """Decode ``[L, K]`` settings in [0, 1]."""
        return decode(
            actions, self.scores, self.leaders, self.unprunable, self.knobs, self.quantizer
        )
