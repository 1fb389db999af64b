"""A device of which there is a table of measured layers, and nothing else."""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy.interpolate import RegularGridInterpolator

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.errors import AjpqError
from hw_models.liveness import peak_activation_bytes
from hw_models.network import Network, Operator
from hw_models.size_only import stored_bytes

KEYS = ("kind", "height", "width", "kernel", "stride", "groups")
AXES = ("in_channels", "out_channels", "weight_bits")
COLUMNS = (*KEYS, *AXES, "latency_us")
_DEPTHWISE = "depthwise"
_LAYERS = ("conv", "linear")
_FREE = ("flatten",)  # moves nothing

Key = tuple[str, ...]
Point = tuple[int, ...]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DeviceLut(Target):
    """Latencies of single layers as somebody measured them, interpolated.

    ``table`` is a CSV file with the columns ``kind`` (``conv``, ``depthwise``, ``linear``, or any
    other operator of the network IR), ``height``, ``width`` (of the output), ``kernel`` (``3``, or
    ``1x7`` where it is not square), ``stride``, ``groups``, ``in_channels``, ``out_channels``,
    ``weight_bits`` and ``latency_us``. ``groups`` is 1 for ordinary layers, 0 for depthwise ones
    and ``8x4`` for convolutions with 8 inputs and 4 outputs in every group: pruning leaves fewer
    of such groups. ``out_channels`` is 0 wherever it follows from ``in_channels``.
    Rows that share the first six columns form a grid: every measured number of channels with every
    other and with every width. Between its points latency is linear; below the smallest number of
    channels and the narrowest width it stays what it is there, above the largest there is none.
    ``python -m ajpq.targets table`` writes such a file for a network, latencies left to measure.
    """

    name: str
    table: Path
    fixed_latency_us: float = Field(default=0.0, ge=0)
    channel_granularity: int = Field(default=1, ge=1)

    activation_bits = (8,)

    def __post_init__(self) -> None:
        _ = self._grids  # a table that cannot be used is an error now

    @property
    def weight_bits(self) -> tuple[int, ...]:  # type: ignore[override]
        """0 and from the narrowest to the widest that was measured."""
        return self._widths

    @cached_property
    def _rows(self) -> dict[Key, dict[Point, float]]:
        return _read(self.table)

    @property
    def measured_keys(self) -> frozenset[Key]:
        """The columns ``kind`` to ``groups`` of all rows."""
        return frozenset(self._rows)

    @cached_property
    def _widths(self) -> tuple[int, ...]:
        layers = (points for key, points in self._rows.items() if key[0] in (*_LAYERS, _DEPTHWISE))
        measured = sorted({point[2] for points in layers for point in points})
        if not measured:
            raise AjpqError(f"{self.table}: no row of a conv, depthwise or linear layer")
        return (0, *range(max(measured[0], 2), measured[-1] + 1))

    @cached_property
    def _grids(self) -> dict[Key, RegularGridInterpolator]:
        return {key: _grid(self.table, key, points) for key, points in self._rows.items()}

    def cost(self, network: Network) -> NetworkCost:
        """Latencies of all operators, added up, and ``fixed_latency_us``.

        An operator that is no layer and has no row counts as nothing.

        Raises:
            AjpqError: a layer was not measured, or not with so many channels; it is named.
        """
        layers = tuple(
            LayerCost(op.name, self._latency_us(network, op) * 1e-6, flash_bytes=stored_bytes(op))
            for op in network.operators
        )
        return NetworkCost(
            latency_s=sum(layer.latency_s or 0.0 for layer in layers)
            + self.fixed_latency_us * 1e-6,
            flash_bytes=sum(layer.flash_bytes or 0 for layer in layers),
            peak_activation_bytes=peak_activation_bytes(network),
            per_layer=layers,
        )

    def _latency_us(self, network: Network, operator: Operator) -> float:
        places = described(network, operator)
        known = [place for place in places if place[0] in self._grids]
        layer = f"{self.table}: layer {operator.name!r}"
        if not known:
            if operator.kind not in _LAYERS:
                return 0.0
            key, _ = places[0]
            wanted = ", ".join(f"{name} {value}" for name, value in zip(KEYS, key, strict=True))
            raise AjpqError(f"{layer} was not measured: no row with {wanted}")
        covered = [(key, point) for key, point in known if not self._beyond(key, point)]
        if not covered:
            axis, value, top = self._beyond(*known[0])[0]
            raise AjpqError(f"{layer} has {axis} {value:g}, the most that was measured is {top:g}")
        key, point = covered[0]
        grid = self._grids[key]
        least, most = ([measured[end] for measured in grid.grid] for end in (0, -1))
        return float(grid(np.clip(point, least, most))[0])

    def _beyond(self, key: Key, point: np.ndarray) -> list[tuple[str, float, float]]:
        """Numbers of channels above the largest that was measured, and that."""
        largest = [measured[-1] for measured in self._grids[key].grid]
        return [
            (axis, value, most)
            for axis, value, most in zip(AXES[:2], point[:2], largest[:2], strict=True)
            if value > most
        ]


def described(network: Network, operator: Operator) -> list[tuple[Key, np.ndarray]]:
    """Where a table may hold an operator, the best place first.

    A place is the columns that must be equal, and the point in the grid. There is more than one
    where pruning has left a single group: that is an ordinary convolution, which may have been
    measured as one or together with the grouped one that it was.
    """
    inputs, out = network.edges[operator.inputs[0]].shape[0], network.edges[operator.output].shape
    height, width = out[1:] if len(out) == len("CHW") else (1, 1)
    attributes = operator.attributes
    common = (str(int(height)), str(int(width)), _kernel(network, operator))
    stride = str(int(attributes.get("stride", (1, 1))[0]))
    bits = 8.0
    if operator.weights is not None:
        live = operator.weights.bits[operator.weights.bits > 0]
        bits = float(live.mean()) if len(live) else 0.0

    def place(kind: str, groups: str, outputs: int) -> tuple[Key, np.ndarray]:
        return (kind, *common, stride, groups), np.array([inputs, outputs, bits])

    if operator.kind not in _LAYERS:
        return [place(operator.kind, "1", 0)]
    count = int(attributes.get("groups", 1))
    each = (inputs // count, out[0] // count)
    grouped = place("conv", f"{each[0]}x{each[1]}", 0)
    if each == (1, 1):
        grouped = place(_DEPTHWISE, "0", 0)
    plain = place(operator.kind, "1", out[0])
    if operator.kind != "conv":
        return [plain]
    return [grouped] if count > 1 else [plain, grouped]


def _kernel(network: Network, operator: Operator) -> str:
    """``3``, or ``1x7`` where it is not square; a global pooling's is its whole input."""
    kernel = operator.attributes.get("kernel", (1, 1))
    if operator.kind == "globalavgpool":
        kernel = network.edges[operator.inputs[0]].shape[1:]
    if operator.weights is not None and operator.weights.codes.ndim == 4:
        kernel = operator.weights.codes.shape[2:]
    rows, columns = (int(size) for size in kernel)
    return str(rows) if rows == columns else f"{rows}x{columns}"


def unmatched(target: DeviceLut, networks: Sequence[Network]) -> tuple[list[str], list[str]]:
    """What a table and networks do not share.

    Returns:
        Rows (without channels and widths) in which no operator is looked up, and the names of
        operators that have no row and count as nothing.
    """
    places = [
        (op, {key for key, _ in described(network, op)})
        for network in networks
        for op in network.operators
        if op.kind not in _FREE
    ]
    asked = set().union(*(keys for _, keys in places))
    rows = sorted(",".join(key) for key in target.measured_keys - asked)
    others = [(op.name, keys) for op, keys in places if op.kind not in _LAYERS]
    free = dict.fromkeys(name for name, keys in others if not keys & target.measured_keys)
    return rows, list(free)


def _read(path: Path) -> dict[Key, dict[Point, float]]:
    """Key -> point -> microseconds."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise AjpqError(f"cannot read the table {path}: {error.strerror}") from error
    if not rows:
        raise AjpqError(f"{path}: expected rows with the columns {', '.join(COLUMNS)}")
    for name in COLUMNS:
        if name not in rows[0]:
            raise AjpqError(f"{path}: no column {name!r}; expected {', '.join(COLUMNS)}")
    empty = sum(not (row["latency_us"] or "").strip() for row in rows)
    if empty:
        raise AjpqError(f"{path}: {empty} of {len(rows)} rows have no latency_us yet")
    found: dict[Key, dict[Point, float]] = defaultdict(dict)
    for line, row in enumerate(rows, start=2):
        key = tuple((row[name] or "").strip() for name in KEYS)
        key = tuple(
            _square(text) if name == "kernel" else text
            for name, text in zip(KEYS, key, strict=True)
        )
        place = f"{path}, line {line}"
        point = tuple(int(_number(place, name, row[name], int)) for name in AXES)
        latency = _number(place, "latency_us", row["latency_us"], float)
        if point in found[key]:
            raise AjpqError(f"{place}: the layer was measured twice")
        found[key][point] = latency
    return found


def _square(kernel: str) -> str:
    """``3x3`` is ``3``."""
    rows, _, columns = kernel.partition("x")
    return rows if rows == columns else kernel


def _number(place: str, name: str, text: str | None, kind: Callable[[str], float]) -> float:
    try:
        value = kind(text or "")
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        what = "a whole number" if kind is int else "a number"
        raise AjpqError(f"{place}: expected {what} of 0 or more as {name}, got {text!r}")
    return value


def _grid(path: Path, key: Key, points: dict[Point, float]) -> RegularGridInterpolator:
    axes = [np.array(sorted({point[axis] for point in points})) for axis in range(len(AXES))]
    values = np.empty([len(axis) for axis in axes])
    for index in np.ndindex(*values.shape):
        point = tuple(int(axis[i]) for axis, i in zip(axes, index, strict=True))
        if point not in points:
            names = zip((*KEYS, *AXES), (*key, *point), strict=True)
            missing = ", ".join(f"{name} {value}" for name, value in names)
            raise AjpqError(f"{path}: no row for {missing}; measure every combination")
        values[index] = points[point]
    return RegularGridInterpolator(axes, values)


def to_measure(network: Network, channels: int = 4, widths: Sequence[int] = (8,)) -> list[str]:
    """Lines of a table for all layers of a network, ``latency_us`` left empty.

    Args:
        channels: how many numbers of channels of each layer, in equal steps up to its own.
        widths: of the weights.
    """
    needed: dict[Key, set[Point]] = defaultdict(set)
    for operator in network.operators:
        if operator.kind in _FREE:
            continue
        key, point = described(network, operator)[0]
        fixed = (operator.inputs[0] == network.input, operator.output == network.output)
        steps = [
            [int(value)] if whole else _steps(int(value), channels, unit)
            for value, whole, unit in zip(point[:2], fixed, (_group_inputs(key), 1), strict=True)
        ]
        own = widths if operator.weights is not None else (8,)
        needed[key] |= {(a, b, width) for a in steps[0] for b in steps[1] for width in own}
    lines = [",".join(COLUMNS)]
    for key, points in needed.items():
        grid = itertools.product(*(sorted({point[axis] for point in points}) for axis in range(3)))
        lines += [",".join((*key, *map(str, point), "")) for point in grid]
    return lines


def _group_inputs(key: Key) -> int:
    """Channels that come and go together: those of one group of a grouped convolution."""
    inputs, times, _ = key[KEYS.index("groups")].partition("x")
    return int(inputs) if times else 1


def _steps(largest: int, count: int, unit: int = 1) -> list[int]:
    """``count`` equal steps up to ``largest``, in multiples of ``unit``; 0 stays 0."""
    units = largest // unit
    return sorted({-(-units * step // count) * unit for step in range(1, count + 1)})
