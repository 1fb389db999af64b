"""FlatBuffers read with every offset checked, which the generated classes do not do.

Format: https://flatbuffers.dev/internals
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from ajpq.exporters.readers.content import limited, plain
from hw_models.errors import AjpqError

_OFFSET, _VTABLE_HEAD = 4, 4


@dataclass(frozen=True)
class Table:
    """A table within ``data``; its fields are asked by their slot in the schema.

    Every method raises :class:`AjpqError` where an offset or a length leads out of the file.
    """

    data: memoryview
    place: int

    def _field(self, slot: int) -> int | None:
        vtable = self.place - read(self.data, "<i", self.place)
        entry = _VTABLE_HEAD + 2 * slot
        if entry + 2 > read(self.data, "<H", vtable):
            return None
        offset = read(self.data, "<H", vtable + entry)
        return self.place + offset if offset else None

    def number(self, slot: int, kind: str = "<I") -> int:
        """An integer, 0 if it is not there; ``kind`` as in :mod:`struct`."""
        place = self._field(slot)
        return 0 if place is None else read(self.data, kind, place)

    def target(self, slot: int) -> int | None:
        """Where the table, vector or text of a field begins."""
        place = self._field(slot)
        return None if place is None else place + read(self.data, "<I", place)

    def blob(self, slot: int, width: int = 1) -> memoryview:
        """The bytes of a vector of values of ``width`` bytes, or of a text; empty if not there."""
        start = self.target(slot)
        if start is None:
            return self.data[:0]
        end = start + _OFFSET + width * read(self.data, "<I", start)
        if end > len(self.data):
            raise AjpqError("a vector is longer than the file")
        return self.data[start + _OFFSET : end]

    def text(self, slot: int) -> str:
        """A text, ready to print."""
        return plain(self.blob(slot))

    def integers(self, slot: int) -> np.ndarray:
        """A vector of int32."""
        return np.frombuffer(self.blob(slot, 4), "<i4")

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables."""
        start = self.target(slot)
        if start is None:
            return []
        count = limited(len(self.blob(slot, _OFFSET)) // _OFFSET, "tables in one list")
        places = range(start + _OFFSET, start + _OFFSET + _OFFSET * count, _OFFSET)
        return [Table(self.data, place + read(self.data, "<I", place)) for place in places]


def root(data: bytes) -> Table:
    """The table that a file begins with."""
    view = memoryview(data)
    return Table(view, read(view, "<I", 0))


def read(data: memoryview, kind: str, place: int) -> int:
    """One integer.

    Raises:
        AjpqError: it would not lie within the file.
    """
    if not 0 <= place <= len(data) - struct.calcsize(kind):
        raise AjpqError("an offset leads out of the file")
    (value,) = struct.unpack_from(kind, data, place)
    return int(value)
