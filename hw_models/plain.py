"""Reading JSON and YAML that may be damaged or hostile: bounded in bytes, depth and expansion.

Every error is a ``ValueError`` with one short line, which the caller puts behind the file's name.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 8 * 2**20
MOST_DEPTH = 64
MOST_KEYS = 50_000  # of all objects together; what is wrong with each takes memory to say
_MOST_SHOWN = 300
_MOST_CHARACTERS = 200_000
_MOST_NODES = 100_000  # of a YAML text, what its aliases stand for counted in full


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, no UTF-8, no JSON, nested too deeply, or has too many keys.
    """
    return parsed_json(read_text(path))


def parsed_json(text: str) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is no JSON, nested too deeply, or has too many keys.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_form(content)
    return content


def parsed_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        ValueError: it is no YAML, too large, nested too deeply, or its aliases stand for too much.
    """
    if len(text) > _MOST_CHARACTERS:  # reading it takes seconds per megabyte
        raise ValueError(f"expected at most {_MOST_CHARACTERS:,} characters of YAML")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _check_expansion(node)
        content = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except (
        ArithmeticError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:  # `!!int ""` and such
        raise ValueError(f"a value does not fit its tag ({type(error).__name__})") from error
    _check_form(content)
    return content


def read_text(path: Path) -> str:
    """A text file of at most ``MOST_BYTES``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, no UTF-8, or a pipe or device, which may never end.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("expected a file, not a pipe or a device")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"expected at most {MOST_BYTES:,} bytes")
    return content.decode()


def shown(value: object) -> str:
    """A value as it stands in a message: at most some hundred characters, whatever it is."""
    try:
        return _SHORT.repr(value)
    except Exception:  # an integer of too many digits, for example
        return f"a {type(value).__name__}"


def clipped(text: str) -> str:
    """A text as it stands in a message: one line of its first hundreds of characters."""
    start = text[:_MOST_SHOWN]
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in start)
    return line if start == text else f"{line}..."


_TOO_DEEP = f"it is nested more than {MOST_DEPTH} levels deep"
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _MOST_SHOWN


def _check_form(content: Any) -> None:
    level, keys = [content], 0
    for _ in range(MOST_DEPTH):
        keys += sum(len(value) for value in level if isinstance(value, dict))
        if keys > MOST_KEYS:
            raise ValueError(f"expected at most {MOST_KEYS:,} keys")
        level = [part for value in level for part in _parts(value)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _check_expansion(root: yaml.Node | None) -> None:
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        """Nodes below this one; None stands for a node whose own parts are being counted."""
        known = sizes.get(id(node), 0)
        if known is None:
            raise ValueError("an alias in it stands for what it is part of")
        if not known:
            sizes[id(node)] = None
            known = sizes[id(node)] = 1 + sum(map(size, _children(node)))
        return known

    if root is not None and size(root) > _MOST_NODES:
        raise ValueError("its aliases stand for too much")


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from (key, value)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
