"""One small reader per format: what is in a file, told by its content and never by its name.

Nothing is executed, unpickled or followed to another file, and nothing is allocated on the word of
the file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from ajpq.exporters.readers.archive import read_archive
from ajpq.exporters.readers.content import Content, Part
from ajpq.exporters.readers.onnx_file import read_onnx
from ajpq.exporters.readers.own import read_packed, read_policy, read_safetensors
from ajpq.exporters.readers.tflite_file import read_tflite
from hw_models.errors import AjpqError

__all__ = ["READERS", "Content", "Kind", "Part", "kind_of"]

Kind = Literal["packed", "tflite", "zip", "safetensors", "json", "onnx"]

READERS: Mapping[Kind, Callable[[bytes], Content]] = {
    "packed": read_packed,
    "tflite": read_tflite,
    "zip": read_archive,
    "safetensors": read_safetensors,
    "json": read_policy,
    "onnx": read_onnx,
}

_LENGTH_BYTES = 8  # in front of the header of a safetensors file
_ONNX_FIELDS = frozenset([1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26])


def kind_of(data: bytes) -> Kind:
    """The kind of a file, by how it begins.

    Raises:
        AjpqError: none of those that are known.
    """
    if data[:4] == b"AJPQ":
        return "packed"
    if data[4:8] == b"TFL3":
        return "tflite"
    if data[:4] == b"PK\3\4":
        return "zip"
    if data[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and data[6:_LENGTH_BYTES] == b"\0\0":
        return "safetensors"
    if data[:1] == b"{":
        return "json"
    if data[:1] == b"\x80":
        raise AjpqError("it is a pickle, which may run code when it is loaded: it is not opened")
    if data[:1] and data[0] >> 3 in _ONNX_FIELDS and data[0] & 7 in (0, 2):
        return "onnx"  # has no magic; this is how its fields begin
    raise AjpqError("it is none of the formats that ajpq writes")
