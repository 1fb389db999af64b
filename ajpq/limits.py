"""Bounds on what a network may cost, as people write them: ``70%``, ``0.5 ms``, ``128 kB``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hw_models.errors import AjpqError, UnknownNameError

METRICS = {
    "latency": "latency_s",
    "size": "packed_bytes",
    "flash": "flash_bytes",
    "sram": "peak_activation_bytes",
    "energy": "energy_j",
}
"""What can be bounded, and the field of :class:`ajpq.evaluate.Costs` that it bounds."""

_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "KiB": 1024.0, "MiB": 1024.0**2}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_JOULES = {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9}
_UNITS = {
    "latency": _SECONDS,
    "size": _BYTES,
    "flash": _BYTES,
    "sram": _BYTES,
    "energy": _JOULES,
}
_SHOWN = ("B", "kB", "MB", "us", "ms", "s", "nJ", "uJ", "mJ", "J")
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*(%|[A-Za-z]+)")


@dataclass(frozen=True)
class Limit:
    """An upper bound: in SI units or bytes, or, if ``relative``, as a share of the reference."""

    value: float
    relative: bool


def in_units(cost: str, value: float) -> str:
    """A cost as people write it, in the largest unit that it fills: ``22.5 kB``, ``1.6 ms``."""
    units = [(unit, _UNITS[cost][unit]) for unit in _SHOWN if unit in _UNITS[cost]]
    filled = [each for each in units if value >= each[1]] or units[:1]
    unit, size = filled[-1]
    return f"{value / size:.4g} {unit}"


def parse_limit(cost: str, text: str) -> Limit | None:
    """Read ``text`` as a bound on ``cost``; ``none`` is none.

    Raises:
        UnknownNameError: no such cost.
        AjpqError: no positive number with a unit of this cost, or ``%``.
    """
    if cost not in METRICS:
        raise UnknownNameError("limit", cost, METRICS)
    if text.strip().lower() == "none":
        return None
    match = _QUANTITY.fullmatch(text.strip())
    units = _UNITS[cost]
    if match is None or match[2] not in ("%", *units) or float(match[1]) <= 0:
        known = ", ".join(["%", *units])
        raise AjpqError(
            f"limit {cost!r}: expected a positive number with one of {known}, got {text!r}"
        )
    if match[2] == "%":
        return Limit(float(match[1]) / 100, relative=True)
    return Limit(float(match[1]) * units[match[2]], relative=False)
