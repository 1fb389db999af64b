"""Who made a file, and a digest of the file in it, so that it can be checked alone.

The statement is JSON in the place that the format has for metadata:

=================  ===============================================================================
ONNX               ``metadata_props`` under the key ``ajpq``, in front of the file as it was:
                   the parts of a protocol buffer may stand in any order
TensorFlow Lite    the entry ``ajpq`` of the model's metadata and its buffer, in a block in front of
                   the file as it was (:mod:`ajpq.exporters.tflite_metadata`)
PyTorch archive    the comment at the end of the zip file
=================  ===============================================================================

Nothing else in the file changes. The packed file and the policy have checks of their own.

The statement contains ``ajpq-sha256:`` and 64 digits: the SHA-256 of the whole file with zeros in
their place. It tells damage and who says to have made the file; whoever can change a file can also
seal it again, so it does not tell forgery.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ajpq.exporters.readers import Kind, kind_of
from ajpq.exporters.readers.archive import with_comment, without_comment
from ajpq.exporters.readers.onnx_file import METADATA_FIELD, METADATA_KEY
from ajpq.exporters.readers.protobuf import delimited, without_first_field
from ajpq.exporters.tflite_metadata import with_metadata, without_metadata
from ajpq.files import write_atomically
from hw_models.errors import AjpqError

MARKER = b"ajpq-sha256:"
_DIGITS = 64
_BLANK = b"0" * _DIGITS


def seal(path: Path, statement: Mapping[str, Any]) -> None:
    """Put a statement and a seal into a file that an exporter wrote, where its format has room.

    Raises:
        AjpqError: no format that is known, or sealed already.
    """
    data = path.read_bytes()
    found = sealed(data, statement)
    if found != data:
        write_atomically(path, found)


def sealed(data: bytes, statement: Mapping[str, Any]) -> bytes:
    """The file with a statement and a seal in it."""
    place = _PLACES.get(kind_of(data))
    if place is None:
        return data
    if MARKER in data:
        raise AjpqError("the file is sealed already")
    text = json.dumps({**statement, "seal": (MARKER + _BLANK).decode()})
    filled = place(data, text.encode())
    start = filled.index(MARKER) + len(MARKER)
    return filled[:start] + _digest(filled, start) + filled[start + _DIGITS :]


def unsealed(data: bytes) -> bytes:
    """The file as it was before it was sealed; a file without a seal as it is."""
    remove = _REMOVED.get(kind_of(data))
    return data if remove is None or seal_of(data) is None else remove(data)


def seal_of(data: bytes) -> str | None:
    """The digest that a file carries, if the file still has it; None if it carries none.

    Raises:
        AjpqError: the file is not what was sealed.
    """
    found = [match.end() for match in re.finditer(re.escape(MARKER), data)]
    if not found:
        return None
    stated = data[found[0] : found[0] + _DIGITS]
    if len(found) > 1 or stated != _digest(data, found[0]):
        raise AjpqError("it is damaged or was changed: it does not fit its seal")
    return stated.decode()


def _digest(data: bytes, start: int) -> bytes:
    """Of the whole file, with zeros in the place of the digest itself."""
    view, digest = memoryview(data), hashlib.sha256()
    for part in (view[:start], _BLANK, view[start + _DIGITS :]):
        digest.update(part)
    return digest.hexdigest().encode()


def _in_onnx(data: bytes, text: bytes) -> bytes:
    entry = delimited(1, METADATA_KEY) + delimited(2, text)
    return delimited(METADATA_FIELD, entry) + data


_PLACES: Mapping[Kind, Callable[[bytes, bytes], bytes]] = {
    "onnx": _in_onnx,
    "tflite": with_metadata,
    "zip": with_comment,
}
_REMOVED: Mapping[Kind, Callable[[bytes], bytes]] = {
    "onnx": without_first_field,
    "tflite": without_metadata,
    "zip": without_comment,
}
