"""Files that settings name, so that a run folder works from any directory."""

from __future__ import annotations

import re
from pathlib import Path

_FOLDER = "imagefolder:"
_FILES = (".yaml", ".yml", ".csv", ".safetensors", ".pt", ".pth", ".th", ".bin")
_CHANGE = re.compile(r"(,\s*\w+\s*=\s*)")


def with_full_path(spec: str) -> str:
    """``spec`` with the full path of the file or folder that it names, if it names one.

    Raises:
        ValueError: a path begins with the home of a user who does not exist.
    """
    text = spec
    if text.startswith(_FOLDER):
        folder = text.removeprefix(_FOLDER)
        return f"{_FOLDER}{absolute(folder)}" if folder else text
    location, colon, attribute = text.rpartition(":")
    if location.endswith(".py"):
        return f"{absolute(location)}{colon}{attribute}"
    return str(absolute(text)) if text.endswith(_FILES) or "/" in text else text


def target_with_full_paths(spec: str) -> str:
    """:func:`with_full_path` of a target and of the files in the changes behind it.

    Raises:
        ValueError: as there.
    """
    main, *changes = _CHANGE.split(spec)
    values = [with_full_path(value.strip()) for value in changes[1::2]]
    pairs = (key + value for key, value in zip(changes[::2], values, strict=True))
    return with_full_path(main) + "".join(pairs)


def absolute(path: str) -> Path:
    """The full path, ``~`` included.

    Raises:
        ValueError: it begins with the home of a user who does not exist.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # no home
        raise ValueError(f"{path}: {error}") from error
