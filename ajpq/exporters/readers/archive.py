"""What a PyTorch archive (``.pt2``, ``.pt``) holds: a zip file whose members are looked at only.

Pickles in it stay what they are. Format of the end of a zip file: APPNOTE.TXT 4.3.16.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import PurePosixPath

from ajpq.exporters.readers.content import LARGEST_JSON, MOST_ITEMS, Content, Part, limited, plain
from hw_models.errors import AjpqError

COMMENT_BEGINS = b'{"ajpq"'
_END, _END_BYTES = b"PK\5\6", 22
_ENTRY = b"PK\1\2"
_MOST_INFLATION = 20
_WEIGHTS = "weights_config.json"


def comment(data: bytes) -> bytes:
    """The comment that a zip file ends with.

    Raises:
        AjpqError: the end of the file is missing or does not fit.
    """
    place = data.rfind(_END)
    head = data[place : place + _END_BYTES]
    if place < 0 or place + _END_BYTES + int.from_bytes(head[-2:], "little") != len(data):
        raise AjpqError("it is no whole zip file: its end is missing")
    return data[place + _END_BYTES :]


def with_comment(data: bytes, text: bytes) -> bytes:
    """The same zip file with a comment; nothing else in it changes.

    Raises:
        AjpqError: it has one already, or the text is longer than a comment can be.
    """
    if comment(data) or len(text) >= 1 << 16:
        raise AjpqError(f"there is no room for {len(text)} bytes in the comment of a zip file")
    return data[:-2] + len(text).to_bytes(2, "little") + text


def without_comment(data: bytes) -> bytes:
    """Inverse of :func:`with_comment`."""
    return data[: len(data) - len(comment(data)) - 2] + b"\0\0"


def read_archive(data: bytes) -> Content:
    """Read a zip file that PyTorch wrote.

    Raises:
        AjpqError: damaged, or it claims to unpack to far more than it is.
    """
    found = comment(data)
    limited(data.count(_ENTRY), "members")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > _MOST_INFLATION * len(data):
            raise AjpqError("it claims to unpack to far more than it is")
        damaged = archive.testzip()
        if damaged is not None:
            raise AjpqError(f"its member {plain(damaged)!r} does not fit its checksum")
        names = dict(_parameters(archive))
        parts = tuple(_part(member, names) for member in members)
    return Content(
        _kind([member.filename for member in members]),
        {"members": f"{len(members):,}"},
        parts,
        found if found.startswith(COMMENT_BEGINS) else None,
        "the checksums of its members fit",
    )


def _part(member: zipfile.ZipInfo, names: dict[str, str]) -> Part:
    path = PurePosixPath(member.filename)
    known = names.get(path.name, "")
    kind = path.parent.name if path.suffix not in (".pkl", ".pt") else "pickle, not opened"
    return Part(plain(known or member.filename), plain(kind), "", member.compress_size)


def _kind(names: list[str]) -> str:
    last = {PurePosixPath(name).name for name in names}
    if "archive_format" in last:
        return "torch.export program"
    return "torch.save file (a pickle, not opened)" if "data.pkl" in last else "zip file"


def _parameters(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """File of a weight -> the parameter in it, where the archive tells."""
    for member in archive.infolist()[:MOST_ITEMS]:
        if member.filename.endswith(_WEIGHTS) and member.file_size <= LARGEST_JSON:
            config = json.loads(archive.read(member)).get("config", {})
            for parameter, entry in config.items():
                yield str(entry.get("path_name", "")), str(parameter)
