"""The files of a run folder."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from torch import Tensor

from ajpq.checkpoints import load_tensors, save_tensors
from ajpq.comparing.config import CompareConfig
from ajpq.compressed import CompressedWeights
from ajpq.config.files import validated
from ajpq.config.schema import CompressConfig, ProblemConfig, ReplayConfig, RunConfig, SearchConfig
from ajpq.files import write_atomically
from ajpq.runs.journal import read_journal
from ajpq.simulation.grids import ActivationRange
from hw_models.errors import AjpqError
from hw_models.plain import clipped, parsed_yaml, read_json, read_text

_MOST_THREADS = 4096
_LATENT, _COMPRESSED, _RANGE = "latent.", "compressed.", "range."
_SCALES, _WIDTHS, _ASKED = "scales.", "widths.", "asked."


def create_run(run_dir: Path, config: ProblemConfig) -> None:
    """Create the folder with its configuration and the command line."""
    run_dir.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_atomically(run_dir / "config.yaml", text.encode())
    write_atomically(run_dir / "command.txt", _command().encode())


def _command() -> str:
    """What was typed, and where."""
    program, *arguments = sys.argv
    module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None)
    start = ["python", "-m", module] if module else ["python", program]
    return f"cd {shlex.quote(str(Path.cwd()))}\n{shlex.join([*start, *arguments])}\n"


def check_new(run_dir: Path) -> None:
    """Is there room for a new run?

    Raises:
        AjpqError: the folder holds something already, or cannot be made.
    """
    try:
        if run_dir.is_file() or (run_dir.exists() and any(run_dir.iterdir())):
            raise AjpqError(f"run folder {run_dir} already exists; add --resume or choose another")
        place = next(own for own in (run_dir, *run_dir.absolute().parents) if own.exists())
    except OSError as error:
        raise AjpqError(f"cannot make the run folder {run_dir}: {error.strerror}") from error
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        kind = "may not be written to" if place.is_dir() else "is a file"
        raise AjpqError(f"cannot make the run folder {run_dir}: {place} {kind}")


def check_resumable(run_dir: Path, config: ProblemConfig) -> None:
    """Does the folder hold a run of ``config``, with a sound journal?

    Raises:
        AjpqError: the folder holds something else, the run was started with another
            configuration, or a line of its journal is damaged.
    """
    read_journal(run_dir / "journal.jsonl")
    if not run_dir.exists() or not any(run_dir.iterdir()):
        return  # Interrupted before its first result: there is nothing to lose.
    stored = stored_config(run_dir)
    given = config.model_dump(mode="json")
    changed = [k for k, v in stored.model_dump(mode="json").items() if v != given.get(k)]
    if changed:
        raise AjpqError(
            f"run folder {run_dir} was started with another {changed[0]}: "
            f"{getattr(stored, changed[0])!r}, not {getattr(config, changed[0], None)!r}"
        )


def load_config(run_dir: Path) -> RunConfig:
    """The configuration that a run was started with.

    Raises:
        AjpqError: ``run_dir`` is no run folder.
    """
    config = stored_config(run_dir)
    if isinstance(config, CompareConfig):
        raise AjpqError(f"{run_dir} is no run folder but a comparison of searches")
    return config


def stored_config(run_dir: Path) -> RunConfig | CompareConfig:
    """The configuration that a run or a comparison was started with.

    Raises:
        AjpqError: ``run_dir`` is neither.
    """
    path = run_dir / "config.yaml"
    try:
        content = parsed_yaml(read_text(path))
    except OSError as error:
        raise AjpqError(f"{run_dir} is no run folder: {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise AjpqError(f"{path} is damaged: {error}") from error
    kind = content.get("kind", "search") if isinstance(content, dict) else "search"
    known: dict[str, type[ProblemConfig]] = {
        "compress": CompressConfig,
        "compare": CompareConfig,
        "replay": ReplayConfig,
    }
    wanted = known.get(kind, SearchConfig) if isinstance(kind, str) else SearchConfig
    config: RunConfig | CompareConfig = validated(wanted, content, str(path))
    return config


def load_result(run_dir: Path) -> dict[str, Any]:
    """The content of ``result.json``.

    Raises:
        AjpqError: the run has not finished, or the file is damaged.
    """
    path = run_dir / "result.json"
    try:
        result: Any = read_json(path)
    except OSError as error:
        raise AjpqError(f"{run_dir} holds no finished run: no {path.name}") from error
    except ValueError as error:
        raise AjpqError(f"{path} is damaged: {error}") from error
    if not (isinstance(result, dict) and _is_result(result)):
        raise AjpqError(f"{path} is damaged: it holds no result of a run")
    return result


def _is_result(content: dict[str, Any]) -> bool:
    """Are the parts that a replay reads of the right types?"""
    threads = content.get("threads")
    known = isinstance(threads, int) and 0 < threads < _MOST_THREADS
    return isinstance(content.get("found"), dict) and (threads is None or known)


def save_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically."""
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def save_weights(path: Path, weights: CompressedWeights) -> None:
    """Write latent weights, the compressed mode's statistics, activation ranges and grids."""
    tensors: dict[str, Tensor] = {_LATENT + k: v for k, v in weights.latent.items()}
    tensors |= {_COMPRESSED + k: v for k, v in weights.buffers.items()}
    tensors |= {
        _RANGE + edge: torch.tensor([found.maximum, float(found.signed)], dtype=torch.float64)
        for edge, found in weights.ranges.items()
    }
    tensors |= {_SCALES + layer: scales for layer, scales in weights.scales.items()}
    tensors |= {_WIDTHS + layer: widths for layer, widths in weights.widths.items()}
    tensors |= {_ASKED + layer: widths for layer, widths in weights.asked.items()}
    save_tensors(path, tensors)


def load_weights(path: Path) -> CompressedWeights:
    """Read what :func:`save_weights` wrote.

    Raises:
        AjpqError: the file is missing or damaged.
    """
    tensors, _ = load_tensors(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    for name, value in tensors.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise AjpqError(f"weights {str(path)!r}: {clipped(name)} does not hold finite numbers")
    ranges = {edge: _range(path, edge, value) for edge, value in part(_RANGE).items()}
    return CompressedWeights(
        part(_LATENT), part(_COMPRESSED), ranges, part(_SCALES), part(_WIDTHS), part(_ASKED)
    )


def _range(path: Path, edge: str, value: Tensor) -> ActivationRange:
    if value.shape != (2,) or float(value[0]) < 0:
        raise AjpqError(f"weights {str(path)!r}: {clipped(edge)} has no range of activations")
    return ActivationRange(maximum=float(value[0]), signed=bool(value[1]))


def save_pareto(path: Path, candidates: list[dict[str, Any]]) -> None:
    """One row per candidate of the journal; ``on_front`` marks the best trade-offs.

    A candidate that was given up after part of the ``images``, or before the first of them, has an
    estimated accuracy and is on no front.
    """
    rows = [
        {
            "hash": entry["hash"],
            **{k: entry["metrics"][k] for k in ("top1_val", "kl", "latency_s")},
            **{k: entry["metrics"][k] for k in ("packed_bytes", "flash_bytes", "macs")},
            **{k: entry["metrics"].get(k) for k in ("peak_activation_bytes", "energy_j", "images")},
            **{f"bops_{k}": v for k, v in entry["metrics"]["bops"].items()},
            "reward": entry["reward"],
        }
        for entry in candidates
    ]
    table = pd.DataFrame(rows)
    table["on_front"] = 0
    if rows:
        seen = pd.to_numeric(table["images"]).fillna(math.inf)
        whole = table[seen == seen.max()]
        table.loc[whole.index, "on_front"] = on_front(whole).astype(int)
    write_atomically(path, table.to_csv(index=False).encode())


def on_front(table: pd.DataFrame) -> pd.Series:
    """Is no other row at least as good in accuracy, latency and bytes, and better in one?"""
    values = table[["top1_val", "latency_s", "packed_bytes"]].fillna(0.0).astype(float)
    points = values.to_numpy() * [-1.0, 1.0, 1.0]
    dominated = [
        bool(((points <= point).all(axis=1) & (points < point).any(axis=1)).any())
        for point in points
    ]
    return ~pd.Series(dominated, index=table.index, dtype=bool)


def versions() -> dict[str, str]:
    """Python and the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("ajpq", "torch", "stable-baselines3", "gymnasium", "numpy", "ethos-u-vela"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def append_to_ledger(entry: dict[str, Any], run_dir: Path) -> None:
    """Record that test images were looked at.

    In a checkout the ledger is ``benchmarks/results/test_ledger.jsonl``, elsewhere it lies in the
    run folder.
    """
    checkout = Path("benchmarks/results")
    folder = checkout if checkout.is_dir() else run_dir
    with (folder / "test_ledger.jsonl").open("a") as file:
        file.write(json.dumps(entry, sort_keys=True) + "\n")
