"""Protocol buffers on the wire, read without their schema and without copying.

Nothing is allocated beyond one view per field, every length is checked against the bytes that are
there, and one budget of fields is for the whole file: messages are as many as one reads, and the
same one counts each time. Format: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ajpq.exporters.readers.content import limited, plain
from hw_models.errors import AjpqError

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
MOST_FIELDS = 500_000
"""Reading so many takes some seconds, and each some hundred bytes; an exported layer has 400."""
Value = int | memoryview


@dataclass
class Budget:
    """How many fields may still be read of one file."""

    left: int = MOST_FIELDS

    def spend(self) -> None:
        """Read one.

        Raises:
            AjpqError: there were too many.
        """
        self.left -= 1
        if self.left < 0:
            raise AjpqError(f"it has more than {MOST_FIELDS:,} fields")


@dataclass(frozen=True)
class Message:
    """The fields of one message by number; what is known of a field is asked by its kind."""

    fields: Mapping[int, list[Value]]
    budget: Budget = field(default_factory=Budget, repr=False, compare=False)

    def blobs(self, number: int) -> list[memoryview]:
        """All values of a field that holds bytes, text or messages.

        Raises:
            AjpqError: the field holds numbers.
        """
        found = self.fields.get(number, [])
        wrong = any(isinstance(value, int) for value in found)
        if wrong:
            raise AjpqError(f"field {number} of a message holds a number in place of bytes")
        return [value for value in found if not isinstance(value, int)]

    def messages(self, number: int) -> Iterator[Message]:
        """All messages in a field, one after the other."""
        return (parse(blob, self.budget) for blob in self.blobs(number))

    def texts(self, number: int) -> list[str]:
        """All texts in a field, ready to print."""
        return [plain(blob) for blob in self.blobs(number)]

    def text(self, number: int) -> str:
        """The last text in a field, or nothing."""
        return (self.texts(number) or [""])[-1]

    def keys(self, number: int) -> list[bytes]:
        """All names in a field, whole."""
        return [bytes(blob) for blob in self.blobs(number)]

    def integers(self, number: int) -> list[int]:
        """All integers in a field, packed or one by one.

        Raises:
            AjpqError: one of them is cut off.
        """
        found: list[int] = []
        for value in self.fields.get(number, []):
            found += [value] if isinstance(value, int) else _packed(value)
        return found

    def integer(self, number: int) -> int:
        """The last integer in a field, or 0."""
        return (self.integers(number) or [0])[-1]


def parse(data: memoryview, budget: Budget | None = None) -> Message:
    """One message.

    Args:
        budget: of the file that the message is in; without one it is a file of its own.

    Raises:
        AjpqError: it is cut off, is no message, or has more fields than are left.
    """
    budget = budget or Budget()
    fields: dict[int, list[Value]] = defaultdict(list)
    place = count = 0
    while place < len(data):
        tag, place = _varint(data, place)
        value, place = _value(data, place, tag & 7)
        if tag >> 3 == 0 or place > len(data):
            raise AjpqError("a message is cut off or damaged")
        count = limited(count + 1, "fields in one message")
        budget.spend()
        fields[tag >> 3].append(value)
    return Message(dict(fields), budget)


def _value(data: memoryview, place: int, kind: int) -> tuple[Value, int]:
    if kind == _VARINT:
        return _varint(data, place)
    if kind in (_FIXED32, _FIXED64):
        end = place + (4 if kind == _FIXED32 else 8)
        return int.from_bytes(data[place:end], "little"), end
    if kind == _DELIMITED:
        length, place = _varint(data, place)
        return data[place : place + length], place + length
    raise AjpqError(f"a message holds a field of the unknown kind {kind}")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    if place < len(data) and data[place] < 128:  # nearly all of them
        return data[place], place + 1
    value = 0
    for shift, byte in enumerate(data[place : place + _LONGEST_VARINT]):
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, place + shift + 1
    raise AjpqError("a number in a message is cut off")


def _packed(data: memoryview) -> list[int]:
    found, place = [], 0
    while place < len(data):
        value, place = _varint(data, place)
        found.append(value)
        limited(len(found), "numbers in one list")
    return found


def varint(value: int) -> bytes:
    """A number of zero or more as it stands in a message."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def delimited(number: int, content: bytes) -> bytes:
    """A field that holds bytes, text or a message."""
    return varint(number << 3 | _DELIMITED) + varint(len(content)) + content


def without_first_field(data: bytes) -> bytes:
    """A message without the field that it begins with.

    Raises:
        AjpqError: it is cut off.
    """
    view = memoryview(data)
    tag, place = _varint(view, 0)
    return data[_value(view, place, tag & 7)[1] :]
