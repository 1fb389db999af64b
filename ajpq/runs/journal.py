"""The journal: one checksummed JSON line per result, append-only.

The journal is also how a killed search continues. A resumed run starts over with the same seed;
its agent learns again, deterministically and fast, and every result that the journal already holds
is taken from there instead of being computed. What follows is then the same as without the
interruption, for any agent, without saving its insides.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hw_models.errors import AjpqError


def encode_line(entry: dict[str, Any]) -> str:
    """One line: the entry as compact JSON with the CRC-32 of its content under ``crc``."""
    content = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return json.dumps({**entry, "crc": f"{zlib.crc32(content.encode()):08x}"}) + "\n"


def decode_line(line: str) -> dict[str, Any] | None:
    """The entry of a line, or None if it is damaged."""
    try:
        entry: dict[str, Any] = json.loads(line)
        crc = entry.pop("crc")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    content = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return entry if crc == f"{zlib.crc32(content.encode()):08x}" else None


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All entries in order; a last line that a kill cut short is left out.

    Raises:
        AjpqError: a line is damaged; the message gives its number, the file is not touched. Or it
            is no file but a pipe, which may never end.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise AjpqError(f"expected a journal in {path}, but it is no file")
    text = path.read_text(errors="replace")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    entries = []
    for number, line in enumerate(lines, 1):
        entry = decode_line(line)
        if entry is None:
            raise AjpqError(
                f"{path} is damaged in line {number} of {len(lines)}; the file was not changed. "
                f"To continue without what follows, keep its first {number - 1} lines"
            )
        entries.append(entry)
    return entries


def recorded_seconds(path: Path) -> float:
    """What all results in the journal took, those of an interrupted life of the run included."""
    return sum(float(entry["seconds"]) for entry in read_journal(path))


class Journal:
    """Appends entries, or hands back those of an earlier life of the same run.

    Args:
        started: the ``time.monotonic()`` at which the run began, for the first line's seconds.

    Entries are recorded in a fixed order. While the file still holds entries ahead of the present
    position, :meth:`next_recorded` returns them; after that, :meth:`append` adds new ones.
    """

    def __init__(self, path: Path, started: float | None = None) -> None:
        self._path = path
        self._last = time.monotonic() if started is None else started
        self._recorded: Iterator[dict[str, Any]] = iter(read_journal(path))
        self._position = 0
        _drop_torn_line(path)

    def next_recorded(self, **expected: Any) -> dict[str, Any] | None:
        """The next entry of the earlier life, or None if it had no more.

        Raises:
            AjpqError: the entry differs from ``expected``: it was made by another configuration,
                another version, or on a machine that computes differently.
        """
        entry = next(self._recorded, None)
        if entry is None:
            return None
        self._last = time.monotonic()
        self._position += 1
        for key, value in expected.items():
            if entry.get(key) != value:
                raise AjpqError(
                    f"{self._path} does not belong to this search: line {self._position} has "
                    f"{key}={entry.get(key)!r}, the search arrives at {value!r}"
                )
        return entry

    def append(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Write one line and wait until it is on the disk.

        Returns:
            The entry with ``seconds`` added: the time since the line before it, or since the start
            of the run, so that the lines of all lives of a run add up to what it took.

        Raises:
            OSError: the disk is full; what was written before stays readable.
        """
        now = time.monotonic()
        entry = {**entry, "seconds": round(now - self._last, 3)}
        self._last = now
        with self._path.open("a") as file:
            file.write(encode_line(entry))
            file.flush()
            os.fsync(file.fileno())
        self._position += 1
        return entry


def _drop_torn_line(path: Path) -> None:
    """Cut off an unfinished last line, so that the next one starts on its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("r+b") as file:
            file.truncate(end)
