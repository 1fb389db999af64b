"""Packed files that nobody would write: taken apart, changed, and given a right checksum again."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

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
    packed_widths = zlib.compress(widths) if widths else b""
    sections = {STRUCTURE: zlib.compress(text), WIDTHS: packed_widths, STREAM: stream}
    return of_sections({kind: own for kind, own in sections.items() if own})


def with_zero_rows(structure: dict[str, Any]) -> bytes:
    """A file of a structure in which nothing but that may be wrong."""
    rows = sum(max(operator[6][0], 0) for operator in structure.get("o", ()) if operator[6])
    return forged(structure, bytes(rows))


def altered(**changes: object) -> dict[str, object]:
    return {**VALID, **changes}


def layer(shape: object = (2, 3), zero_rows: object = 1, attributes: object = ()) -> list[object]:
    return ["fc", "linear", None, 0, [1], attributes, shape, zero_rows]


def sized(rows: int, columns: int) -> dict[str, object]:
    """The linear layer with another number of outputs and inputs, edges as they should be."""
    edges = [["a", [columns], 8, True, 0.5], ["b", [rows], 32, True, 1.0]]
    return altered(e=edges, o=[layer((rows, columns))])


def one(kind: str, attributes: list, shapes: list, output: list, weights: object = ()) -> object:
    """One operator that reads edges of these shapes, of which the first is the network's input and
    the others are made of it by activations."""
    edges = [[f"e{n}", shape, 8, True, 0.5] for n, shape in enumerate(shapes or [[3]])]
    others = len(edges) - 1
    made = [[f"r{n}", "activation", None, 0, [n + 1], ["relu"], [], 0] for n in range(others)]
    distances = [len(edges) - n for n in range(len(shapes))]
    operator = ["op", kind, None, 0, distances, attributes, weights, 1 if weights else 0]
    edges.append(["out", output, 8, True, 0.5])
    return {"n": "net", "i": 0, "x": len(edges) - 1, "e": edges, "o": [*made, operator]}


MANY = 2**31 - 1
CLAIMS = {
    "a huge row": forged(altered(o=[layer((2, MANY))])),
    "a huger row": forged(altered(o=[layer((2, MANY, MANY, MANY))])),
    "many codes that no stream holds": forged(sized(4, 16_000_000), b"\4\4\4\4"),
    "just too many codes": forged(sized(2, 600_000), b"\4\4"),
    "many rows": forged(sized(MANY, 1)),
    "many rows of allowed shape": forged(sized(2**24, 1)),
    "many rows of no bytes": forged(sized(10**6, 1), b"\0" * 10**6),
    "zero rows of real values": forged(sized(2, 16_000_000), b"\0\40"),
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
    "an operator twice": altered(
        e=[["a", [3], 8, True, 0.5], ["b", [3], 8, True, 0.5], ["c", [3], 8, True, 0.5]],
        x=2,
        o=[["r", "activation", None, 0, [1], ["relu"], [], 0]] * 2,
    ),
    "an output that nothing makes": altered(
        e=[["a", [3], 8, True, 0.5], ["b", [2], 8, True, 0.5], ["c", [2], 8, True, 0.5]],
        x=2,
    ),
    "a linear layer of nothing": altered(o=[["fc", "linear", None, 0, [], [], [2, 3], 1]]),
    "a linear layer of two": altered(o=[["fc", "linear", None, 0, [1, 1], [], [2, 3], 1]]),
    "other columns than inputs": altered(o=[layer((2, 4))]),
    "too many axes": altered(o=[layer((2, 3, 1))]),
    "too large an input": altered(
        e=[["a", [2**31 - 1, 2**31 - 1, 1], 8, True, 0.5], ["b", [2], 8, True, 0.5]]
    ),
}
_CONV = [[1, 1], [0, 0], [1, 1], 1]
_WINDOW = [[2, 2], [2, 2], [0, 0], False]
_IMAGE = [4, 8, 8]
FITTING = {
    "conv": ("conv", _CONV, [_IMAGE], [6, 6, 6], [6, 4, 3, 3]),
    "a grouped conv": ("conv", [[2, 1], [1, 0], [1, 2], 2], [_IMAGE], [6, 4, 4], [6, 2, 3, 3]),
    "linear": ("linear", [], [[3]], [2], [2, 3]),
    "affine": ("affine", [], [_IMAGE], _IMAGE, [4, 1, 1, 1]),
    "activation": ("activation", ["relu"], [_IMAGE], _IMAGE),
    "add": ("add", [], [_IMAGE, _IMAGE], _IMAGE),
    "mul": ("mul", [], [[3], [3]], [3]),
    "concat": ("concat", [], [_IMAGE, _IMAGE, _IMAGE], [12, 8, 8]),
    "select": ("select", [[3, -1]], [_IMAGE], [2, 8, 8]),
    "subsample": ("subsample", [[3, 1]], [_IMAGE], [4, 3, 8]),
    "pad": ("pad", [[1, 2, 3, 4]], [_IMAGE], [4, 15, 11]),
    "maxpool": ("maxpool", _WINDOW, [_IMAGE], [4, 4, 4]),
    "a pool of the ceiling": ("maxpool", [[2, 3], [3, 2], [1, 1], True], [_IMAGE], [4, 3, 5]),
    "avgpool": ("avgpool", [*_WINDOW, True], [_IMAGE], [4, 4, 4]),
    "globalavgpool": ("globalavgpool", [], [_IMAGE], [4, 1, 1]),
    "flatten": ("flatten", [], [_IMAGE], [256]),
}
"""Operators as :func:`one` takes them, which fit."""


def _misfits():
    """The same with nothing to read, with too much to read, and with another output."""
    for name, (kind, attributes, shapes, output, *weights) in FITTING.items():
        yield f"{name} of nothing", one(kind, attributes, [], output, *weights)
        if kind != "concat":
            yield f"{name} of more", one(kind, attributes, [*shapes, shapes[-1]], output, *weights)
        for axis in range(len(output)):
            longer = [length + (place == axis) for place, length in enumerate(output)]
            yield f"{name}, axis {axis}", one(kind, attributes, shapes, longer, *weights)
        yield f"{name} without axes", one(kind, attributes, shapes, [], *weights)
        yield f"{name} with one more axis", one(kind, attributes, shapes, [*output, 1], *weights)


_FAR = 2**31 - 1
STRUCTURES |= dict(_misfits())
STRUCTURES |= {
    "a channel that is not there": one("select", [[4]], [_IMAGE], [1, 8, 8]),
    "groups that do not divide": one("conv", [*_CONV[:3], 3], [_IMAGE], [6, 6, 6], [6, 4, 3, 3]),
    "groups of the rows": one("conv", [*_CONV[:3], 4], [_IMAGE], [6, 6, 6], [6, 1, 3, 3]),
    "a convolution of five axes": one("conv", _CONV, [_IMAGE], [6, 6, 6], [6, 4, 3, 3, 1]),
    "an affine of pairs": one("affine", [], [_IMAGE], _IMAGE, [4, 2, 1, 1]),
    "an addition of two shapes": one("add", [], [_IMAGE, [4, 8, 7]], _IMAGE),
    "a product of two shapes": one("mul", [], [_IMAGE, [4, 8, 1]], _IMAGE),
    "a flat window": one("maxpool", _WINDOW, [[256]], [128]),
    "a vast edge": one("activation", ["relu"], [[1, _FAR, _FAR]], [1, _FAR, _FAR]),
    "a vast padding": one("pad", [[_FAR, 0, _FAR, 0]], [_IMAGE], [4, 8 + _FAR, 8 + _FAR]),
    "a vast margin of a pool": one(
        "avgpool",
        [[_FAR, _FAR], [_FAR, _FAR], [2**30 - 1, 2**30 - 1], False, True],
        [_IMAGE],
        [4, 1, 1],
    ),
    "a vast margin of a convolution": one(
        "conv",
        [[_FAR, _FAR], [_FAR // 2] * 2, [_FAR - 1] * 2, 1],
        [_IMAGE],
        [6, 1, 1],
        [6, 4, 2, 2],
    ),
    "a margin beyond half of the window": one(
        "maxpool", [[2, 2], [2, 2], [2, 2], False], [_IMAGE], [4, 6, 6]
    ),
    "a window beyond the input": one(
        "maxpool", [[9, 9], [1, 1], [0, 0], False], [_IMAGE], [4, 1, 1]
    ),
}
"""Structures that no network has."""
