"""What a reader finds in a file, as plain data that is safe to print."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hw_models.errors import AjpqError

MOST_ITEMS = 200_000
"""More operators, tensors or fields in one list are no network that anyone exported."""
LARGEST_JSON = 1 << 23
"""Bytes of JSON that are parsed; some of it takes twenty times as much in memory."""
MOST_STATED = 20
"""Of what a file says of itself, no more is shown."""
LONGEST_PATH = 4096
"""Characters of a path that are shown."""
LONGEST_STATEMENT = 1 << 16
"""Bytes; no more fits into the comment of a zip file."""
_LONGEST_TEXT = 120


@dataclass(frozen=True)
class Part:
    """One operator, or what belongs together under one name.

    Attributes:
        kind: the operators in it, by the format's names.
        constants: how many values of which width it holds.
        stored_bytes: of its constants in the file.
    """

    name: str
    kind: str
    constants: str
    stored_bytes: int


@dataclass(frozen=True)
class Content:
    """What is in a file.

    Attributes:
        format: what kind of file it is.
        facts: what the format itself tells of the network.
        parts: in execution order.
        statement: the entry ``ajpq`` among its metadata, where it has one.
        integrity: what was verified beside the seal; empty if the format has nothing to verify.
        stated: what the file says of itself outside a statement that is sealed.
    """

    format: str
    facts: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    statement: bytes | None = None
    integrity: str = ""
    stated: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.statement or b"") > LONGEST_STATEMENT:
            raise AjpqError(f"its entry ajpq is longer than {LONGEST_STATEMENT:,} bytes")


def plain(text: bytes | bytearray | memoryview | str, longest: int = _LONGEST_TEXT) -> str:
    """At most a line of text, without anything that a terminal might obey."""
    if not isinstance(text, str):
        text = bytes(text[: 4 * longest]).decode("utf-8", "replace")
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def listed(names: Sequence[str]) -> str:
    """Different names in order of appearance."""
    return plain(", ".join(dict.fromkeys(names[:MOST_ITEMS])))


def counted(values: Mapping[str, int]) -> str:
    """``2,304 uint8, 33 float32``."""
    return plain(", ".join(f"{count:,} {kind}" for kind, count in values.items() if count))


def product(dims: Sequence[int], most: int) -> int:
    """Number of values of a tensor.

    Raises:
        AjpqError: a negative length, or more than ``most`` values.
    """
    found = math.prod(dims[:16])
    if len(dims) > 16 or any(not 0 <= length <= most for length in dims) or found > most:
        shape = plain("x".join(map(str, dims[:17])))
        raise AjpqError(f"a tensor of {shape} values cannot be in a file of this size")
    return found


def limited(count: int, what: str) -> int:
    """``count``.

    Raises:
        AjpqError: it is beyond :data:`MOST_ITEMS`.
    """
    if count > MOST_ITEMS:
        raise AjpqError(f"it claims {count:,} {what}, more than {MOST_ITEMS:,}")
    return count


@dataclass
class Tally:
    """Collects the operators and constants of one part."""

    name: str
    kinds: list[str] = field(default_factory=list)
    constants: Counter[str] = field(default_factory=Counter)
    stored_bytes: int = 0

    def add(self, dtype: str, values: int, stored_bytes: int) -> None:
        """Count a constant."""
        self.constants[dtype] += values
        self.stored_bytes += stored_bytes

    @property
    def part(self) -> Part:
        """What was collected."""
        return Part(
            plain(self.name), listed(self.kinds), counted(self.constants), self.stored_bytes
        )
