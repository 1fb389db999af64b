"""The checksums by which a finished run is recognised as what was written.

They are in ``result.json``, under ``sha256``: one of each file that a replay or an export reads,
and one of the rest of ``result.json`` itself. It is the last file of a run to be written, and
written atomically, so that a run has either both its result and its checksums or neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ajpq.runs.folder import load_result, save_json
from hw_models.errors import AjpqError

BASE_WEIGHTS = "base.safetensors"
POLICY, WEIGHTS, CONFIG, RESULT = "policy.json", "weights.safetensors", "config.yaml", "result.json"
SEALED = (CONFIG, POLICY, WEIGHTS, BASE_WEIGHTS)
_KEY = "sha256"
_OLDER = frozenset(
    [
        *("baseline", "found", "layer_latencies_s", "policy", "target"),
        *("seed", "threads", "seconds", "versions"),
    ]
)
"""All that ``result.json`` held before it had checksums; what holds more has lost them."""


def save_result(run_dir: Path, result: Mapping[str, Any]) -> None:
    """Write ``result.json`` with the checksums, after all other files."""
    sums = {name: _file_sum(run_dir / name) for name in SEALED}
    save_json(run_dir / RESULT, {**result, _KEY: {**sums, RESULT: _content_sum(result)}})


def load_sealed(run_dir: Path) -> tuple[dict[str, Any], bool]:
    """The content of ``result.json`` without the checksums, and whether there are any.

    A run that is older than checksums has none, nor anything else that came with them or later.

    Raises:
        AjpqError: the run has not finished, or a file is not the one that it has left.
    """
    result = load_result(run_dir)
    if result.keys() <= _OLDER:
        return result, False
    sums = result.pop(_KEY, None)
    if not isinstance(sums, dict) or sums.keys() != {*SEALED, RESULT}:
        raise AjpqError(f"{run_dir / RESULT} is damaged: it lacks checksums of the run's files")
    found = {RESULT: _content_sum(result)}
    for name in SEALED:
        if not (run_dir / name).is_file():
            raise AjpqError(f"{run_dir} is incomplete: {name} is missing")
        found[name] = _file_sum(run_dir / name)
    for name, value in found.items():
        if value != sums[name]:
            raise AjpqError(
                f"{run_dir / name} is damaged or was changed after the run had finished: "
                f"its sha256 begins with {value[:12]}, not with {str(sums[name])[:12]}"
            )
    return result, True


def _file_sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.sha256).hexdigest()


def _content_sum(result: Mapping[str, Any]) -> str:
    text = json.dumps(result, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
