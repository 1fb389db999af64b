"""Looking into a file that someone else made, without running anything of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ajpq.exporters.readers import READERS, Content, Part, kind_of
from ajpq.exporters.readers.content import MOST_STATED, plain
from ajpq.exporters.seal import seal_of
from ajpq.policy import load_policy
from ajpq.runs.folder import load_config
from ajpq.runs.journal import read_journal
from ajpq.runs.seal import load_sealed
from hw_models.errors import AjpqError

MOST_BYTES = (1 << 31) - 1
"""Neither an ONNX nor a TensorFlow Lite file can be larger."""
COMPANIONS = frozenset(["README.md", "verified.json", "test_ledger.jsonl"])
"""What an export leaves beside its files: the card, what a verifier said, and its looks."""
_MOST_FILES = 1000
_FIT = "configuration, policy, weights and result fit their checksums; the journal is sound"
_FIT_WITHOUT_SUMS = (
    "the run has no checksums, so damage to its weights cannot be told; configuration, journal, "
    "policy and result fit together"
)


@dataclass(frozen=True)
class Inspection:
    """What is in a file, and whether it is what its maker wrote.

    Attributes:
        format: what kind of file it is.
        integrity: what was verified, or that there was nothing to verify.
        facts: what the file computes, by what it holds: ready to print.
        stated: what the file says of itself; nobody has verified that.
        parts: operators with the bytes of their constants, in execution order.
        other_bytes: the rest of the file: structure, names, metadata.
    """

    path: Path
    size: int
    format: str
    integrity: str
    facts: Mapping[str, str]
    parts: tuple[Part, ...]
    stated: Mapping[str, str] = field(default_factory=dict)

    @property
    def other_bytes(self) -> int:
        return self.size - sum(part.stored_bytes for part in self.parts)


def inspect(path: Path) -> Inspection:
    """Look into a file that :func:`ajpq.api.export` may have written, or into a run folder.

    Its kind is told by its content. A seal is verified before anything else is read. Nothing is
    executed, unpickled or followed to another file.

    Raises:
        AjpqError: no such file, a kind that is not known, damaged, or not as it was sealed.
    """
    try:
        return _inspect_run(path) if (path / "config.yaml").exists() else _inspect_file(path)
    except AjpqError:
        raise
    except Exception as error:  # whatever a library says of a file that someone has crafted
        reason = plain(f"{type(error).__name__}: {error}")
        raise AjpqError(f"{path}: it is damaged or not understood ({reason})") from error


def _inspect_file(path: Path) -> Inspection:
    data = _content(path)
    try:
        sealed = seal_of(data)
        content = READERS[kind_of(data)](data)
        stated = {**content.stated, **_stated(content, sealed)}
    except AjpqError as error:
        raise AjpqError(f"{path}: {error}") from error
    facts = {key: value for key, value in content.facts.items() if value}
    integrity = _integrity(content, sealed)
    return Inspection(path, len(data), content.format, integrity, facts, content.parts, stated)


def files_in(path: Path) -> list[Path]:
    """What to inspect of a path: a file, a run folder, or every file of another folder.

    Raises:
        AjpqError: the folder is empty or holds very many files.
    """
    if not path.is_dir() or (path / "config.yaml").exists():
        return [path]
    found = sorted(
        entry for entry in path.iterdir() if entry.is_file() and entry.name not in COMPANIONS
    )
    if not 0 < len(found) <= _MOST_FILES:
        raise AjpqError(f"expected 1 to {_MOST_FILES} files in {path}, found {len(found)}")
    return found


def _content(path: Path) -> bytes:
    if not path.is_file():  # a pipe or a device never ends
        raise AjpqError(f"there is no file {path}")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise AjpqError(f"{path}: expected at most {MOST_BYTES:,} bytes, it has {size:,}")
    return path.read_bytes()


def _integrity(content: Content, sealed: str | None) -> str:
    if sealed is not None:
        return f"the file fits its seal, sha256 {sealed[:16]}…"
    return content.integrity or "not sealed: damage cannot be told"


def _stated(content: Content, sealed: str | None) -> dict[str, str]:
    """What the maker says of the file.

    Raises:
        AjpqError: the statement has lost its seal.
    """
    if content.statement is None:
        return {}
    if sealed is None:
        raise AjpqError("it is damaged or was changed: its seal is broken")
    statement: dict[str, Any] = json.loads(content.statement)
    return {
        plain(key): plain(value if isinstance(value, str) else json.dumps(value))
        for key, value in list(statement.items())[:MOST_STATED]
        if key != "seal" and value is not None
    }


def _inspect_run(folder: Path) -> Inspection:
    """A run folder: its files are what it has left, and fit together."""
    config, (result, with_sums) = load_config(folder), load_sealed(folder)
    policy = load_policy(folder / "policy.json")
    lines = read_journal(folder / "journal.jsonl")
    if result.get("policy") != policy.hash:
        stated = plain(str(result.get("policy")))
        raise AjpqError(f"{folder}: its result is of policy {stated}, not of {policy.hash}")
    facts = {
        "model": plain(config.model),
        "data": plain(config.data),
        "target": plain(config.target),
        "policy": policy.hash,
        "top1 test": plain(str(result.get("found", {}).get("top1_test"))),
        "journal": f"{len(lines):,} sound lines",
    }
    files = [entry for entry in sorted(folder.rglob("*")) if entry.is_file()]
    sizes = [(str(entry.relative_to(folder)), entry.stat().st_size) for entry in files]
    parts = tuple(Part(plain(name), "file", "", size) for name, size in sizes)
    integrity = _FIT if with_sums else _FIT_WITHOUT_SUMS
    total = sum(size for _, size in sizes)
    return Inspection(folder, total, f"run folder ({config.kind})", integrity, facts, parts)
