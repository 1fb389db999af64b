"""The files of a run folder as plain data; everything but the folder itself is optional."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajpq.policy import CompressionPolicy, load_policy
from ajpq.runs.journal import read_journal
from ajpq.runs.seal import load_sealed
from hw_models.errors import AjpqError


@dataclass(frozen=True)
class Point:
    """One candidate in the trade-off plots. Units as in the names; None where not measured."""

    hash: str
    top1_val: float
    latency_s: float | None
    packed_bytes: float | None
    on_front: bool


@dataclass(frozen=True)
class RunRecord:
    """What a run folder tells.

    Attributes:
        result: ``result.json``; empty while the run goes on.
        candidates: the candidate lines of the journal, in order.
        recipe: name of what trained the last finalists.
        config: text of ``config.yaml``.
        command: text of ``command.txt``.
    """

    name: str
    result: Mapping[str, Any]
    points: tuple[Point, ...]
    candidates: tuple[Mapping[str, Any], ...]
    recipe: str | None
    policy: CompressionPolicy | None
    config: str
    command: str

    def metric(self, side: str, *path: str) -> float | None:
        """A number of ``baseline`` or ``found``; None where the result does not have it."""
        value: Any = self.result.get(side)
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return _number(value)


def read_run(run_dir: Path) -> RunRecord:
    """Read a run folder, finished or not.

    Raises:
        AjpqError: no such folder, or a damaged file, which the message names.
    """
    if not run_dir.is_dir():
        raise AjpqError(f"there is no run folder {run_dir}")
    journal = read_journal(run_dir / "journal.jsonl")
    policy = run_dir / "policy.json"
    return RunRecord(
        name=run_dir.resolve().name,
        result=load_sealed(run_dir)[0] if (run_dir / "result.json").exists() else {},
        points=_read_points(run_dir / "pareto.csv"),
        candidates=tuple(entry for entry in journal if entry.get("kind") == "candidate"),
        recipe=next((str(line["recipe"]) for line in journal[::-1] if "recipe" in line), None),
        policy=load_policy(policy) if policy.exists() else None,
        config=_text(run_dir / "config.yaml"),
        command=_text(run_dir / "command.txt").strip(),
    )


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def _read_points(path: Path) -> tuple[Point, ...]:
    """Rows without an accuracy are left out."""
    try:
        points = [_read_point(row) for row in csv.DictReader(_text(path).splitlines())]
    except (ValueError, csv.Error) as error:
        raise AjpqError(f"{path} is damaged: {error}") from error
    return tuple(point for point in points if point is not None)


def _read_point(row: Mapping[str, str]) -> Point | None:
    top1 = _number(row.get("top1_val"))
    if top1 is None:
        return None
    latency, size = _number(row.get("latency_s")), _number(row.get("packed_bytes"))
    return Point(row.get("hash") or "", top1, latency, size, row.get("on_front") == "1")


def _number(value: Any) -> float | None:
    return None if value is None or value == "" else float(value)


def width_counts(policy: CompressionPolicy) -> dict[int, list[int]]:
    """Width -> number of channels of this width in every layer; widths that occur, ascending."""
    layers = [layer.weight_bits for layer in policy.layers.values()]
    widths = sorted({bits for layer in layers for bits in layer})
    return {bits: [layer.count(bits) for layer in layers] for bits in widths}
