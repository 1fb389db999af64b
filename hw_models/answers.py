"""Answers of slow devices on disk, one JSON file each.

The cache is a convenience: where the disk is full, read-only or holds rubbish, the answer is
computed again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def cache_folder(kind: str) -> Path | None:
    """``$AJPQ_CACHE/kind``, or ``~/.cache/ajpq/kind``; ``None`` for a user without a home."""
    root = os.environ.get("AJPQ_CACHE")
    try:
        return Path(root or "~/.cache/ajpq").expanduser() / kind
    except RuntimeError:
        return None


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"


def read(kind: str, key: str) -> str | None:
    """What was written under a key, if it can be read."""
    folder = cache_folder(kind)
    if folder is None:
        return None
    try:
        return _path(folder, key).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def write(kind: str, key: str, text: str) -> None:
    """Keep a text, whole or not at all."""
    folder = cache_folder(kind)
    if folder is None:
        return
    path = _path(folder, key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w") as stream:
                stream.write(text)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
