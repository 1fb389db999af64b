"""What every benchmark shares: bars, the description of the machine, and the result file."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ajpq.progress import ConsoleProgress
from ajpq.surroundings import processor

Part = Callable[[], list[dict[str, Any]]]
"""Finds out something and returns rows."""

RESULTS = Path(__file__).parent / "results"
NAME = re.compile(r"[a-z0-9_]+")
# What a reader need not be told.
ORDINARY = {("data", "cifar10"), ("checkpoint", "public")}
PACKAGES = (
    "ajpq",
    "torch",
    "torchvision",
    "stable-baselines3",
    "gymnasium",
    "numpy",
    "scipy",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "ethos-u-vela",
    "torch-pruning",
    "constriction",
)


def at_least(value: float, bar: float) -> dict[str, Any]:
    """A bar that holds when ``value >= bar``; a value that is not a number never holds."""
    return {"value": value, "bar": bar, "holds": bool(value >= bar)}


def at_most(value: float, bar: float) -> dict[str, Any]:
    """A bar that holds when ``value <= bar``; a value that is not a number never holds."""
    return {"value": value, "bar": bar, "holds": bool(value <= bar)}


def versions() -> dict[str, str]:
    """Python and those of the packages that results depend on which are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # no sysconf, or a name that it does not know
        return None


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _instruction_set() -> str:
    from torch.backends import cpu

    return cpu.get_cpu_capability()


def machine() -> dict[str, Any]:
    """What a reader needs to judge a time; names neither the host nor the user."""
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "instruction_set": _instruction_set(),
        "os": _operating_system(),
    }


def command_line(name: str, quick: bool, **options: Any) -> str:
    """The line that repeats a benchmark, without a path of this machine.

    A folder of the user's becomes DIR, a file outside the repository keeps its name only; options
    that are None or False are left out.
    """
    parts = [f"python -m benchmarks.{name}"]
    for option, value in options.items():
        if value is None or value is False or (option, value) in ORDINARY:
            continue
        text = str(value)
        if option == "data":
            text = f"{text.split(':', maxsplit=1)[0]}:DIR"
        elif Path(text).is_absolute():
            text = Path(text).name
        parts.append(f"--{option.replace('_', '-')} {text}")
    return " ".join([*parts, *(["--quick"] if quick else [])])


def done_once(file: Path, settings: dict[str, Any], name: str, work: Part) -> dict[str, Any]:
    """Rows and seconds of a part: from ``file`` if they were found there under these settings."""
    if file.exists():
        known: dict[str, Any] = json.loads(file.read_text())
        if known["settings"] == settings:
            return known
    started = time.monotonic()
    with ConsoleProgress().phase(name):
        rows = work()
    found = {"settings": settings, "rows": rows, "seconds": time.monotonic() - started}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found) + "\n")
    return found


def _plain(value: Any) -> Any:
    """JSON's own types: numpy scalars unwrapped, what is not finite becomes ``None``."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a row holds text, numbers or None, got {value!r}")


def _plain_dict(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): _plain(value) for key, value in row.items()}


def write_result(
    name: str,
    *,
    command: str,
    seed: int,
    rows: Sequence[Mapping[str, Any]],
    bars: Mapping[str, Mapping[str, Any]],
    seconds: float,
    quick: bool,
    folder: Path = RESULTS,
) -> Path:
    """Write ``NAME.json``, or ``NAME.quick.json``, which never replaces a full result.

    Args:
        name: lower-case letters, digits and underscores.
        command: the line that repeats the benchmark, from the root of the repository.
        seed: the seed it ran with.
        rows: flat dictionaries, units in their keys; they become the rows of a table.
        bars: name to what :func:`at_least` or :func:`at_most` returns. The name says the
            direction and the unit, such as ``"latency_ratio_at_most"``.
        seconds: how long it took.
        quick: the short form, whose figures are no claim.
        folder: where the file goes.

    Raises:
        ValueError: a name that is none, or a bar without ``value``, ``bar`` and ``holds``.
        TypeError: a row or bar that holds something else than text, numbers or ``None``.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"expected a name of [a-z0-9_], got {name!r}")
    for bar_name, bar in bars.items():
        if set(bar) != {"value", "bar", "holds"}:
            raise ValueError(f"bar {bar_name!r} needs value, bar and holds, got {sorted(bar)}")
    content = {
        "command": command,
        "seed": seed,
        "versions": versions(),
        "machine": machine(),
        "seconds": round(float(seconds), 1),
        "rows": [_plain_dict(row) for row in rows],
        "bars": {bar_name: _plain_dict(bar) for bar_name, bar in bars.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{'.quick' if quick else ''}.json"
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    unfinished.replace(path)
    return path
