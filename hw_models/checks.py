"""Do not trust a cost model that someone else wrote."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.errors import AjpqError
from hw_models.network import Network
from hw_models.plugins import raised_by

REAL_FIELDS = ("latency_s", "energy_j")
NETWORK_FIELDS = (*REAL_FIELDS, "flash_bytes", "peak_activation_bytes")
LAYER_FIELDS = (*REAL_FIELDS, "flash_bytes")


def checked_cost(target: Target, network: Network) -> NetworkCost:
    """``target.cost(network)``, if it is one.

    Raises:
        AjpqError: the answer is no :class:`NetworkCost`, a figure in it is not a finite number of
            zero or more, ``cost()`` raises, or it takes longer than ``target.time_limit_s``;
            target, layer and value are named.
    """
    return _checked(f"target {target.name!r}", _answer(target, network))


def checked_costs(target: Target, networks: Sequence[Network]) -> list[NetworkCost]:
    """``target.costs(networks)``, each answer checked like that of :func:`checked_cost`.

    There is no limit on the time: measuring many networks takes as long as it takes.
    """
    label = f"target {target.name!r}"
    try:
        costs = list(target.costs(networks))
    except AjpqError:
        raise
    except Exception as error:  # whatever someone else's code raises
        raise raised_by(label, error) from error
    if len(costs) != len(networks):
        raise AjpqError(
            f"{label}: costs() returned {len(costs)} answers for {len(networks)} networks"
        )
    return [_checked(label, cost) for cost in costs]


def _checked(label: str, cost: object) -> NetworkCost:
    if not isinstance(cost, NetworkCost):
        raise AjpqError(f"{label}: cost() returned {_short(cost)}, expected a NetworkCost")
    if not isinstance(cost.per_layer, tuple):
        raise AjpqError(f"{label}: per_layer is {_short(cost.per_layer)}, expected a tuple")
    for layer in cost.per_layer:
        if not isinstance(layer, LayerCost):
            raise AjpqError(f"{label}: per_layer holds {_short(layer)}, expected a LayerCost")
        _check_fields(f"{label}, layer {layer.name!r}", layer, LAYER_FIELDS)
    _check_fields(label, cost, NETWORK_FIELDS)
    return cost


def _answer(target: Target, network: Network) -> object:
    """What ``cost()`` returns, if it returns in time.

    It runs in a thread that is left behind when it does not.
    """
    label = f"target {target.name!r}"
    outcome: list[tuple[object, Exception | None]] = []

    def ask() -> None:
        try:
            outcome.append((target.cost(network), None))
        except Exception as error:  # whatever someone else's code raises
            outcome.append((None, error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(target.time_limit_s)
    if not outcome:
        layers = ", ".join(op.name for op in network.layers)
        limit = f"{target.time_limit_s:g} s"
        raise AjpqError(f"{label}: no answer after {limit} for the layers {layers}")
    answer, error = outcome[0]
    if isinstance(error, AjpqError):
        raise error
    if error is not None:
        raise raised_by(label, error) from error
    return answer


def _check_fields(label: str, cost: NetworkCost | LayerCost, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(cost, name)
        if value is not None and not _is_amount(value, Real if name in REAL_FIELDS else Integral):
            kind = "a finite number" if name in REAL_FIELDS else "a whole number"
            raise AjpqError(f"{label}: expected {kind} >= 0 for {name}, got {_short(value)}")


def _is_amount(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
