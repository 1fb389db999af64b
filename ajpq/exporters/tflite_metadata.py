"""Metadata for a TensorFlow Lite file that is finished already."""

from __future__ import annotations

import re
from collections.abc import Sequence

import flatbuffers

from ajpq.exporters.readers.flatbuffer import root
from ajpq.exporters.readers.tflite_file import BUFFERS, METADATA, METADATA_NAME, SLOTS
from hw_models.errors import AjpqError

_IDENTIFIER = b"TFL3"
_HEAD = 8  # root and identifier
_ALIGNMENT = 16  # constants may be read in place
_VERSION = 0


def with_metadata(data: bytes, text: bytes) -> bytes:
    """The file with ``text`` as its metadata entry ``ajpq``.

    FlatBuffers point forward only and by distance. So a new root in front of the old file may point
    into it, and the old file stays as it is, byte for byte, as the end of the new one (where its
    length is no multiple of 16, zeros fill it up). LiteRT and Vela give equal answers for both.
    """
    old = root(data)
    builder = flatbuffers.Builder(len(data) + len(text) + 4096)
    builder.Prep(_ALIGNMENT, len(data))
    end = builder.CreateByteVector(data) - 4  # the builder counts from the end of the file

    def within(place: int) -> int:
        return end - place

    buffers, entries = old.tables(BUFFERS), old.tables(METADATA)
    content = _table(builder, 3, {0: builder.CreateByteVector(text)})
    name = builder.CreateString(METADATA_NAME)
    entry = _table(builder, 2, {0: name}, {1: len(buffers)})
    offsets = {
        BUFFERS: _vector(builder, [*(within(table.place) for table in buffers), content]),
        METADATA: _vector(builder, [*(within(table.place) for table in entries), entry]),
    }
    for slot in range(1, SLOTS):
        place = old.target(slot)
        if place is not None:
            offsets.setdefault(slot, within(place))
    model = _table(builder, SLOTS, offsets, {_VERSION: old.number(_VERSION)})
    builder.Finish(model, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _table(
    builder: flatbuffers.Builder,
    slots: int,
    offsets: dict[int, int],
    numbers: dict[int, int] | None = None,
) -> int:
    builder.StartObject(slots)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, number in (numbers or {}).items():
        builder.PrependUint32Slot(slot, number, 0)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def without_metadata(data: bytes) -> bytes:
    """Inverse of :func:`with_metadata`: the file that stands behind the block.

    Raises:
        AjpqError: there is none.
    """
    for match in re.finditer(_IDENTIFIER, data[_HEAD:]):
        start = match.start() + _HEAD - 4
        length = int.from_bytes(data[start - 4 : start], "little")
        if start % _ALIGNMENT == 0 and 0 <= len(data) - start - length < _ALIGNMENT:
            return data[start : start + length]
    raise AjpqError("it holds no other TensorFlow Lite file")
