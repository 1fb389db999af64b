"""The frame of a packed file of version 2: numbered sections behind one checksum.

::

    magic "AJPQ" | version u16 | number of sections u16 | crc32 u32
    per section: kind u16, length in bytes u32
    the sections, in the order of their kinds

All numbers are little-endian. The checksum covers every byte of the file but its own four.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from enum import IntEnum
from itertools import pairwise

from hw_models.errors import AjpqError

MAGIC = b"AJPQ"
VERSION = 2
_PREFIX = struct.Struct("<4sHHI")
_ENTRY = struct.Struct("<HI")


class Section(IntEnum):
    """What a section holds. Empty sections are left out.

    Attributes:
        STRUCTURE: zlib: JSON of edges and operators.
        WIDTHS: zlib: one byte per weight row, operators in execution order.
        STREAM: 32-bit words of one ANS stream: codes, scales and biases.
        REALS: float32: the values of 32-bit rows.
        MASKS: reserved for quantizers that prune single weights: which codes of each layer are
            there at all. The others are zero and not in the stream.
        CODEBOOKS: zlib: two bytes per operator with weights: length of the blocks of its 8-bit
            rows and number of distinct ones minus one; zeros where codes are stored one by one.
    """

    STRUCTURE = 1
    WIDTHS = 2
    STREAM = 3
    REALS = 4
    MASKS = 16
    CODEBOOKS = 17


_RESERVED = {Section.MASKS: "masks of single weights"}


def damaged(why: object) -> AjpqError:
    """The error for a file that cannot be what :func:`ajpq.packed.pack` wrote."""
    return AjpqError(f"the packed file is damaged: {why}")


def frame_bytes(sections: int) -> int:
    """Bytes of a file with so many sections, beside the sections themselves."""
    return _PREFIX.size + sections * _ENTRY.size


def version_of(data: bytes) -> int:
    """The version that a packed file says it has.

    Raises:
        AjpqError: no packed file.
    """
    if len(data) < _PREFIX.size or data[:4] != MAGIC:
        raise AjpqError("this is not a packed file: it does not begin with AJPQ")
    return int(_PREFIX.unpack_from(data)[1])


def join(sections: Mapping[int, bytes]) -> bytes:
    """A file of the sections that are not empty."""
    filled = {kind: own for kind, own in sorted(sections.items()) if own}
    table = b"".join(_ENTRY.pack(kind, len(own)) for kind, own in filled.items())
    body = table + b"".join(filled.values())
    return _PREFIX.pack(MAGIC, VERSION, len(filled), _checksum(len(filled), body)) + body


def split(data: bytes) -> dict[int, bytes]:
    """Inverse of :func:`join`; sections that were left out are empty.

    Raises:
        AjpqError: damaged, or with a section that this version cannot read.
    """
    _, _, count, checksum = _PREFIX.unpack_from(data)
    start = frame_bytes(count)
    if _checksum(count, data[_PREFIX.size :]) != checksum or len(data) < start:
        raise damaged("its checksum does not match")
    entries = list(_ENTRY.iter_unpack(data[_PREFIX.size : start]))
    ends = [start]
    for _, length in entries:
        ends.append(ends[-1] + length)
    kinds = [kind for kind, _ in entries]
    if ends[-1] != len(data) or any(a >= b for a, b in pairwise([0, *kinds])):
        raise damaged("its sections contradict its length")
    _check_kinds(kinds)
    found = {kind: data[a:b] for kind, (a, b) in zip(kinds, pairwise(ends), strict=True)}
    return dict.fromkeys(map(int, Section), b"") | found


def _check_kinds(kinds: list[int]) -> None:
    for kind in kinds:
        if kind in _RESERVED:
            what = _RESERVED[Section(kind)]
            raise AjpqError(
                f"the packed file holds {what} (section {kind}), which version {VERSION} "
                "keeps a place for but cannot read yet"
            )
        if kind not in list(Section):
            raise AjpqError(f"the packed file has an unknown section {kind}")


def _checksum(count: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_PREFIX.pack(MAGIC, VERSION, count, 0)[:-4]))
