"""Latency guessed from what a slow target said of operators of the same shape.

A projection compares dozens of policies that differ in a few layers, and a compiler takes longer
for each than everything else about it. What a compiler says of an operator follows from its shape
and, where loading the weights takes longer than computing, from their bytes. A guess decides where
a projection looks; whether the budget is met is always asked.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

import numpy as np

from ajpq.apply import outline
from ajpq.evaluate import Costs
from ajpq.graph.channels import Masks
from ajpq.graph.structure import Fusion
from ajpq.packed.sizes import CodeBits
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem
from ajpq.selection.remembered import remembered_by_structure
from envs.actions import Knobs
from envs.budget import Budget, QuickCosts, project
from hw_models.base import LayerCost
from hw_models.errors import BudgetError

Form = tuple[str, ...]
"""Shape and settings of an operator."""
Described = Sequence[tuple[str, Form, float]]
"""Name, form and bytes of the codes of every operator."""
Points = list[tuple[float, float]]
"""Bytes of the codes, ascending, and seconds."""
Seen = dict[Form, Points]

# Bytes of codes that differ by less than this share are alike.
_NEAR = 0.25
# A guess that was too low is corrected by the answer; what depends on more than one operator is
# met by keeping a little more distance every time.
_ATTEMPTS, _DISTANCE = 8, 0.0005
_FORMED = 256


def description(
    problem: Problem, bits_of: CodeBits
) -> Callable[[CompressionPolicy], list[tuple[str, Form, float]]]:
    """A function of policies: the operators of their networks as :data:`Described`."""
    graph = problem.graph
    settings = {fusion.output: _settings(problem, fusion) for fusion in graph.fusions}

    def formed(policy: CompressionPolicy) -> list[tuple[str, Form]]:
        kept, available = outline(graph, policy)
        return [
            (fusion.node.name, _form(problem, fusion, kept, settings[fusion.output]))
            for fusion in graph.fusions
            if fusion.output in available
        ]

    forms = remembered_by_structure(formed, _FORMED)

    def described(policy: CompressionPolicy) -> list[tuple[str, Form, float]]:
        bits = bits_of(policy)
        return [(name, form, bits.get(name, 0.0) / 8) for name, form in forms(policy)]

    return described


def _settings(problem: Problem, fusion: Fusion) -> str:
    node = fusion.node
    kernel: tuple[int, ...] = ()
    if "weight" in node.parameters:
        kernel = tuple(problem.state[node.parameters["weight"]].shape[2:])
    attributes = {name: value for name, value in node.attributes.items() if name != "groups"}
    return repr((node.kind, sorted(attributes.items()), kernel, fusion.function))


def _form(problem: Problem, fusion: Fusion, kept: Masks, settings: str) -> Form:
    edges = (*fusion.node.inputs, fusion.output)
    shapes = [(int(kept[edge].sum()), *problem.graph.shapes[edge][1:]) for edge in edges]
    return (settings, *map(str, shapes))


def learn(seen: Seen, described: Described, told: Sequence[LayerCost]) -> None:
    """Add what a target said of the operators of one network, where it says anything of them."""
    seconds = {layer.name: layer.latency_s for layer in told}
    for name, form, size in described:
        latency = seconds.get(name)
        if latency is not None:
            points = seen.setdefault(form, [])
            place = bisect.bisect_left(points, (size,))
            known = place < len(points) and points[place][0] == size
            points[place : place + known] = [(size, latency)]


def guess(seen: Seen, described: Described) -> float | None:
    """Seconds of the whole network; None where it has an operator of a form not seen."""
    found = [_latency(seen.get(form, []), size) for _, form, size in described]
    known = [latency for latency in found if latency is not None]
    return sum(known) if known and len(known) == len(found) else None


def _latency(points: Points, size: float) -> float | None:
    """Between the two points around ``size`` if one of them is near, otherwise rather too little.

    A guess that is too low is found out when the target is asked; one that is too high is not, and
    would waste the budget.
    """
    if not points:
        return None
    place = bisect.bisect_left(points, (size,))
    around = points[max(place - 1, 0) : place + 1]
    (low, quick), (high, slow) = around[0], around[-1]
    if size < low:
        return quick * size / low if size < (1 - _NEAR) * low else quick
    if low < size <= high and min(size - low, high - size) <= _NEAR * size:
        return quick + (slow - quick) * (size - low) / (high - low)
    return quick


def project_by_guess(
    actions: np.ndarray,
    knobs: Knobs,
    budget: Budget,
    packed_bytes: Callable[[np.ndarray], int],
    price: Callable[[np.ndarray], Costs | QuickCosts],
    quick: Callable[[np.ndarray], Costs | QuickCosts],
    margin: float,
) -> np.ndarray:
    """:func:`envs.budget.project`, looking where ``quick`` says and accepting what ``price`` says.

    Args:
        quick: costs that may be off; better once ``price`` was asked of the same.

    Raises:
        BudgetError: see :func:`envs.budget.project`.
    """
    for attempt in range(_ATTEMPTS):
        kept_free = margin + attempt * _DISTANCE
        try:
            moved = project(actions, knobs, budget, packed_bytes, quick, kept_free)
        except BudgetError:
            break
        if budget.met(price(moved), margin):
            return moved
    return project(actions, knobs, budget, packed_bytes, price, margin)
