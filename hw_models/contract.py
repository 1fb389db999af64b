"""What every target promises, as checks that anyone can run.

``python -m ajpq.targets check NAME`` prints them; :mod:`hw_models.testing` runs them in pytest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from hw_models.analytic.base import AnalyticTarget
from hw_models.analytic.work import joined
from hw_models.base import NetworkCost, Target
from hw_models.checks import NETWORK_FIELDS, checked_cost
from hw_models.errors import AjpqError
from hw_models.network import Network
from hw_models.trials import SHRINKING, Trials, small_networks

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; ``detail`` says what was found."""

    check: str
    passed: bool
    detail: str


def findings(
    target: Target, make: Callable[[Target], Trials] = small_networks
) -> Iterator[Finding]:
    """Run all checks, one after the other; a check that raises has failed.

    A target without sound figures fails the first; the others are not tried then.

    Args:
        make: the networks to try it on, made anew for every check.

    Raises:
        AjpqError: the target declares no width.
    """
    for name, check in CHECKS.items():
        trials = make(target)
        try:
            yield Finding(name, True, check(target, trials))
        except AjpqError as error:
            yield Finding(name, False, str(error))
            if check is _figures_are_sound:
                return


def ask(target: Target, network: Network) -> NetworkCost:
    """``checked_cost``, with errors that say for which network."""
    try:
        return checked_cost(target, network)
    except AjpqError as error:
        raise AjpqError(f"network {network.name!r}: {error}") from error


def _figures_are_sound(target: Target, trials: Trials) -> str:
    known: set[str] = set()
    for network in trials.plain:
        cost = ask(target, network)
        known |= {name for name in NETWORK_FIELDS if getattr(cost, name) is not None}
    if not known:
        raise AjpqError("it answers nothing: every figure is None")
    return f"finite and not negative: {', '.join(sorted(known))}"


def _is_deterministic(target: Target, trials: Trials) -> str:
    if target.measured:
        return "not asked of a target that measures"
    first = [ask(target, network) for network in trials.plain]
    copies = copy.deepcopy(trials.plain)  # equal, but not the very same objects
    second = [ask(target, network) for network in reversed(copies)][::-1]
    for one, other in zip(first, second, strict=True):
        for name in (*NETWORK_FIELDS, "per_layer"):
            before, after = getattr(one, name), getattr(other, name)
            if before != after:
                raise AjpqError(f"{name} was {before!r}, the second time {after!r}")
    return "equal questions, equal answers, in any order"


def _leaves_the_network_alone(target: Target, trials: Trials) -> str:
    for network in trials.plain:
        before = _content(network)
        ask(target, network)
        if _content(network) != before:
            raise AjpqError("cost() changes the network that it is given")
    return "the network stays as it is"


def _content(network: Network) -> list[Any]:
    arrays = [
        array.tobytes()
        for op in network.operators
        if op.weights is not None
        for array in (op.weights.codes, op.weights.scales, op.weights.bits, op.weights.bias)
    ]
    return [arrays, dict(network.edges), [dict(op.attributes) for op in network.operators]]


def _takes_pruned_rows(target: Target, trials: Trials) -> str:
    if 0 not in target.weight_bits:
        return "not declared"
    for network in trials.pruned:
        ask(target, network)
    return "half and all of a layer's rows at 0 bits"


def _layers_add_up(target: Target, trials: Trials) -> str:
    for network in trials.plain:
        cost = ask(target, network)
        unknown = {layer.name for layer in cost.per_layer} - {op.name for op in network.operators}
        if unknown:
            raise AjpqError(f"network {network.name!r} has no operator {min(unknown)!r}")
        for name in ("latency_s", "energy_j"):
            parts = [getattr(layer, name) for layer in cost.per_layer]
            total = getattr(cost, name)
            if not parts or total is None or None in parts:
                continue
            if sum(parts) > total * (1 + 1e-6):
                raise AjpqError(f"the layers' {name} add up to {sum(parts)!r}, above {total!r}")
    return "operators of the network, together no more than the whole"


def _is_monotone(target: Target, trials: Trials) -> str:
    declared = target.monotone
    if not isinstance(declared, tuple) or not set(declared) <= set(SHRINKING):
        raise AjpqError(f"expected monotone to be a tuple out of {SHRINKING}, got {declared!r}")
    tried = [what for what in declared if trials.shrinking.get(what)]
    for what in tried:
        costs = [ask(target, network) for network in trials.shrinking[what]]
        for name in NETWORK_FIELDS:
            values = [getattr(cost, name) for cost in costs]
            if None not in values and any(b > a * (1 + _TOLERANCE) for a, b in pairwise(values)):
                raise AjpqError(f"with fewer {what}, {name} goes {values}")
    if not declared:
        return "not declared"
    return f"never dearer with fewer {' or '.join(tried)}" if tried else "not tried"


def _batches_agree(target: Target, trials: Trials) -> str:
    if not isinstance(target, AnalyticTarget):
        return "no batched form"
    forms = trials.alike
    together = target.cost_batch(joined(forms))
    for index, network in enumerate(forms):
        alone = ask(target, network)
        for name in NETWORK_FIELDS:
            one, many = getattr(alone, name), getattr(together, name)
            if (one is None) != (many is None):
                raise AjpqError(f"{name} is {one!r} alone and {many!r} in a batch")
            if one is not None and not np.isclose(many[index], one, rtol=_TOLERANCE, atol=0):
                raise AjpqError(f"{name} is {one!r} alone and {many[index]!r} in a batch")
    return "one by one and all at once"


CHECKS: dict[str, Callable[[Target, Trials], str]] = {
    "figures": _figures_are_sound,
    "read-only": _leaves_the_network_alone,
    "deterministic": _is_deterministic,
    "pruned rows": _takes_pruned_rows,
    "layers": _layers_add_up,
    "monotone": _is_monotone,
    "batched": _batches_agree,
}
