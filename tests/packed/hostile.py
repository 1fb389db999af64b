"""Packed files that nobody would write: taken apart, changed, and given a right checksum again."""

from __future__ import annotations

import json
import struct
import zlib

PREFIX, ENTRY = struct.Struct("<4sHHI"), struct.Struct("<HI")
STRUCTURE, WIDTHS, STREAM, REALS, MASKS, CODEBOOKS = 1, 2, 3, 4, 16, 17
VALID = {
    "n": "net",
    "i": 0,
    "x": 1,
    "e": [["a", [3], 8, True, 0.5], ["b", [2], 32, True, 1.0]],
    "o": [["fc", "linear", None, 0, [1], [], [2, 3], 1]],
}
"""A linear layer of two zero rows, as the documentation of the format says it."""


def signed(count: int, body: bytes, version: int = 2) -> bytes:
    """A file of version 2 with so many sections, whose checksum is right."""
    begin = PREFIX.pack(b"AJPQ", version, count, 0)[:8]
    return begin + struct.pack("<I", zlib.crc32(begin + body)) + body


def signed_again(data: bytes) -> bytes:
    """The same bytes with a right checksum."""
    if data[4] == 1:
        return data[:8] + struct.pack("<I", zlib.crc32(data[12:])) + data[12:]
    return data[:8] + struct.pack("<I", zlib.crc32(data[:8] + data[12:])) + data[12:]


def of_sections(sections: dict[int, bytes]) -> bytes:
    table = b"".join(ENTRY.pack(kind, len(own)) for kind, own in sections.items())
    return signed(len(sections), table + b"".join(sections.values()))


def sections_of(data: bytes) -> dict[int, bytes]:
    count = PREFIX.unpack_from(data)[2]
    start, found = PREFIX.size + count * ENTRY.size, {}
    for kind, length in ENTRY.iter_unpack(data[PREFIX.size : start]):
        found[kind] = data[start : start + length]
        start += length
    return found


def forged(structure: object, widths: bytes = b"\0\0", stream: bytes = b"") -> bytes:
    """A file of a structure, as an object or as text."""
    text = structure if isinstance(structure, bytes) else json.dumps(structure).encode()
    sections = {STRUCTURE: zlib.compress(text), WIDTHS: zlib.compress(widths), STREAM: stream}
    return of_sections({kind: own for kind, own in sections.items() if own})


def altered(**changes: object) -> dict[str, object]:
    return {**VALID, **changes}


def layer(shape: object = (2, 3), zero_rows: object = 1, attributes: object = ()) -> list[object]:
    return ["fc", "linear", None, 0, [1], attributes, shape, zero_rows]


def outputs(rows: int, operator: list[object]) -> dict[str, object]:
    return altered(e=[VALID["e"][0], ["b", [rows], 32, True, 1.0]], o=[operator])


MANY = 2**31 - 1
CLAIMS = {
    "a huge row": forged(altered(o=[layer((2, MANY))])),
    "a huger row": forged(altered(o=[layer((2, MANY, MANY, MANY))])),
    "many codes that no stream holds": forged(altered(o=[layer((2, 33_000_000))]), b"\4\4"),
    "just too many codes": forged(altered(o=[layer((2, 600_000))]), b"\4\4"),
    "many rows": forged(outputs(MANY, layer((MANY, 1)))),
    "many rows of no bytes": forged(outputs(10**6, layer((10**6, 1))), b"\0" * 10**6),
    "zero rows of real values": forged(altered(o=[layer((2, 33_000_000))]), b"\0\40"),
    "a bomb": forged(json.dumps(VALID).encode() + b" " * 2**26),
    "a bomb of widths": forged(VALID, b"\4" * 2**26),
    "deep lists": forged(json.dumps(VALID).replace("[]", "[" * 10**5 + "]" * 10**5).encode()),
    "a long number": forged(json.dumps(VALID).replace("0.5", "9" * 10**6).encode()),
    "a long attribute": forged(json.dumps(VALID).replace("[]", "[" + "9" * 10**6 + "]").encode()),
    "a million errors": forged(altered(e=[0] * 10**6)),
    "a million empty lists": forged(altered(o=[[]] * 500_000)),
    "a long name": forged(altered(n="n" * 10**6)),
    "many sections": signed(65535, b""),
    "a long section": signed(1, ENTRY.pack(STRUCTURE, 2**32 - 1)),
    "a long section beside a short one": signed(
        2, ENTRY.pack(STRUCTURE, 2**32 - 1) + ENTRY.pack(WIDTHS, 1) + b"x"
    ),
}
"""Files that claim more than they hold; all have right checksums."""

STRUCTURES = {
    "an unknown key": altered(z=1),
    "a missing key": {key: VALID[key] for key in "nixe"},
    "a text for a number": altered(i="0"),
    "no such input": altered(i=2),
    "a negative edge": altered(x=-1),
    "an edge twice": altered(e=[VALID["e"][0]] * 2),
    "an unknown width": altered(e=[VALID["e"][0], ["b", [2], 9, True, 1.0]]),
    "no size": altered(e=[["a", [0], 8, True, 0.5], VALID["e"][1]]),
    "a scale of zero": altered(e=[["a", [3], 8, True, 0.0], VALID["e"][1]]),
    "a negative scale": altered(e=[["a", [3], 8, True, -1.0], VALID["e"][1]]),
    "an endless scale": altered(e=[["a", [3], 8, True, 1e300], VALID["e"][1]]),
    "a vanishing scale": altered(e=[["a", [3], 8, True, 1e-300], VALID["e"][1]]),
    "a scale of letters": altered(e=[["a", [3], 8, True, "letters"], VALID["e"][1]]),
    "an endless scale in letters": altered(e=[["a", [3], 8, True, "inf"], VALID["e"][1]]),
    "no number in letters": altered(e=[["a", [3], 8, True, "nan"], VALID["e"][1]]),
    "a scale beyond all": altered(e=[["a", [3], 8, True, "0x1p+99999"], VALID["e"][1]]),
    "an unknown kind": altered(o=[["fc", "dense", None, 0, [1], [], [2, 3], 1]]),
    "an unknown activation": altered(o=[["fc", "linear", "tanh", 0, [1], [], [2, 3], 1]]),
    "no weights": altered(o=[layer(())]),
    "weights that do not belong": altered(o=[["fc", "add", None, 0, [1, 1], [], [2, 3], 1]]),
    "other rows than outputs": altered(o=[layer((3, 2))]),
    "a negative size": altered(o=[layer((-2, 3))]),
    "another kind of zero rows": altered(o=[layer(zero_rows=3)]),
    "attributes that do not belong": altered(o=[layer(attributes=[1])]),
    "an input from the future": altered(o=[["fc", "linear", None, 0, [0], [], [2, 3], 1]]),
    "an input outside": altered(o=[["fc", "linear", None, 0, [9], [], [2, 3], 1]]),
    "an output outside": altered(o=[["fc", "linear", None, 5, [1], [], [2, 3], 1]]),
    "an output twice": altered(o=[layer(), ["fd", "linear", None, -1, [1], [], [2, 3], 1]]),
    "a convolution of half a stride": altered(
        o=[["c", "conv", None, 0, [1], [[1], [0, 0], [1, 1], 1], [2, 3], 1]]
    ),
    "a convolution of no stride": altered(
        o=[["c", "conv", None, 0, [1], [[0, 1], [0, 0], [1, 1], 1], [2, 3], 1]]
    ),
    "a selection of no channel": altered(
        e=[["a", [3], 8, True, 0.5], ["b", [2], 8, True, 0.5]],
        o=[["s", "select", None, 0, [1], [[0, -2]], [], 0]],
    ),
    "an activation of its own": altered(
        o=[["s", "activation", None, 0, [1], ["tanh"], [], 0]],
    ),
}
"""Structures that no network has."""
