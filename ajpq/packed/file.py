"""Putting a packed file together and taking it apart."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ajpq.files import write_atomically
from ajpq.packed import structure, version1
from ajpq.packed.blocks import Coding, described, smallest_coding
from ajpq.packed.codes import encode
from ajpq.packed.container import VERSION, Section, damaged, join, split, version_of
from ajpq.packed.layers import (
    Layer,
    check_sizes,
    groups_of,
    layer_of,
    layers_fit,
    reals_of,
    split_rows,
    spread,
    weighted,
    widths_of,
    with_blocks,
)
from ajpq.packed.limits import STRUCTURE_BYTES, fits, inflate
from ajpq.packed.rows import number_groups, numbers_of, read_rows, stores_zero_rows
from hw_models.errors import AjpqError
from hw_models.network import Network, Weights


def pack(network: Network) -> bytes:
    """The packed file of a network.

    Raises:
        AjpqError: codes that do not fit the width of their row, naming the operator, or something
            else that the file cannot hold.
    """
    text = structure.dump(network)
    structure.parse(text)  # what could not be read is not written
    numbers, layers = numbers_of(network), codings_of(network)
    groups = [group for layer in layers for coding in layer for group in coding.groups]
    data = join(
        {
            Section.STRUCTURE: zlib.compress(text, 9),
            Section.WIDTHS: compressed(widths_of(network)),
            Section.STREAM: encode([*groups, *number_groups(numbers)], numbers),
            Section.REALS: reals_of(network),
            Section.CODEBOOKS: compressed(described(layers)),
        }
    )
    if not layers_fit([layer_of(weights) for _, weights in weighted(network)], len(data)):
        raise AjpqError(f"network {network.name!r} is almost only zeros: remove zero rows first")
    return data


def codings_of(network: Network) -> list[list[Coding]]:
    """How a file holds the codes of each operator that has weights, by width.

    Raises:
        AjpqError: codes that do not fit the width of their row, naming the operator.
    """
    return [
        [smallest_coding(group) for group in groups_of(op.name, own)]
        for op, own in weighted(network)
    ]


def compressed(content: bytes) -> bytes:
    """The section of row widths or of codebooks."""
    return zlib.compress(content, 9) if content else b""


def unpack(data: bytes) -> Network:
    """The network of a packed file, equal to the packed one in every code, scale and bias.

    Raises:
        AjpqError: no packed file, another version, or damaged.
    """
    version = version_of(data)
    if version == version1.VERSION:
        return version1.unpack(data)
    if version != VERSION:
        raise AjpqError(
            f"the packed file has version {version}, this program reads "
            f"{version1.VERSION} and {VERSION}"
        )
    return _unpack(split(data), len(data))


def save(network: Network, path: str | Path) -> Path:
    """Write the packed file and return its path."""
    write_atomically(path, pack(network))
    return Path(path)


def load(path: str | Path) -> Network:
    """Read a packed file.

    Raises:
        AjpqError: missing, or see :func:`unpack`.
    """
    return unpack(read(path))


def read(path: str | Path) -> bytes:
    """The bytes of a packed file.

    Raises:
        AjpqError: it cannot be read, or is a pipe or a device, which may never end.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise AjpqError(f"cannot read the packed file {path}: expected a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise AjpqError(f"cannot read the packed file {path}: {error.strerror}") from error


def _unpack(sections: Mapping[int, bytes], size: int) -> Network:
    parsed = structure.parse(inflate(sections[Section.STRUCTURE], STRUCTURE_BYTES))
    layers = _layers(parsed, sections, size)
    check_sizes(layers, size, len(sections[Section.REALS]))
    weights = _read_weights(parsed, layers, sections)
    operators = [
        replace(op, weights=weights.get(place)) for place, op in enumerate(parsed.network.operators)
    ]
    return replace(parsed.network, operators=tuple(operators))


def _layers(parsed: structure.Parsed, sections: Mapping[int, bytes], size: int) -> list[Layer]:
    widths = sections[Section.WIDTHS]
    rows = sum(shape[0] for shape in parsed.shapes.values())
    if not fits(size, 0, 0, rows) or bool(rows) != bool(widths):
        raise damaged(f"{rows} weight rows are impossible")
    layers = split_rows(parsed.shapes.values(), inflate(widths, rows) if rows else b"")
    return with_blocks(layers, sections[Section.CODEBOOKS])


def _read_weights(
    parsed: structure.Parsed, layers: list[Layer], sections: Mapping[int, bytes]
) -> dict[int, Weights]:
    operators = [parsed.network.operators[place] for place in parsed.shapes]
    stored = [
        (layer.bits > 0) | stores_zero_rows(kind)
        for layer, kind in zip(layers, parsed.zero_rows.values(), strict=True)
    ]
    sources = [parsed.network.edges[op.inputs[0]].scale for op in operators]
    groups, scales, biases = read_rows(sections[Section.STREAM], layers, stored, sources)
    reals = np.frombuffer(sections[Section.REALS], "<f4").astype(np.float32)
    own_reals = np.split(reals, np.cumsum([layer.reals for layer in layers])[:-1])
    found: dict[int, Weights] = {}
    for number, place in enumerate(parsed.shapes):
        layer, rows = layers[number], stored[number]
        fill = 0 if stores_zero_rows(parsed.zero_rows[place]) else parsed.zero_rows[place]
        found[place] = Weights(
            layer.place(groups, own_reals[number]),
            spread(rows, scales[number], fill),
            layer.bits.copy(),
            spread(rows, biases[number], 0),
        )
    return found
