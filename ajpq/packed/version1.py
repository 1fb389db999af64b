"""Reading version 1, which was written until scales had 16 bits.

::

    magic "AJPQ" | version u16 | zero u16 | crc32 u32 | four section lengths u32 x 4
    header   zlib: length u32, JSON of edges and operators, then one width byte per weight row
    floats   float32: scales and biases of the rows that are not zero rows, layer by layer
    reals    float32: the values of 32-bit rows
    codes    u32 words of one ANS stream: per layer and width, a histogram model and the codes

All numbers are little-endian. The checksum covers everything behind it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator

from ajpq.packed.attributes import listed, named
from ajpq.packed.codes import close_stream, decode_groups, open_stream
from ajpq.packed.container import damaged
from ajpq.packed.layers import Layer, check_sizes, split_rows, spread
from ajpq.packed.limits import STRUCTURE_BYTES, fits, inflate
from ajpq.packed.wiring import check_wiring
from hw_models.network import ACTIVATIONS, KINDS, Edge, Network, Operator, Weights
from hw_models.plain import shown

VERSION = 1
_PREFIX = struct.Struct("<4sHHI")
_LENGTHS = struct.Struct("<4I")
_Size = Annotated[int, Field(gt=0, lt=2**31)]
_Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Scalar = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str
_WEIGHTED = {"conv", "linear", "affine"}
_Bits = Literal[2, 3, 4, 5, 6, 7, 8, 32]
_Edge = tuple[str, list[_Size], _Bits, bool, _Scale]
_Attributes = dict[str, _Scalar | list[_Scalar | list[_Scalar]]]
_Operator = tuple[str, str, list[str], str, str | None, _Attributes, list[_Size], Literal[0, 1]]


class Header(BaseModel):
    """What the JSON holds.

    Attributes:
        e: edges: name, shape, bits, signed, scale.
        o: operators: name, kind, inputs, output, activation, attributes, shape of the weights
            (empty without weights), 1 if scale and bias of zero rows are stored too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    n: str
    i: str
    x: str
    e: Annotated[list[_Edge], FailFast()]
    o: Annotated[list[_Operator], FailFast()]

    @model_validator(mode="after")
    def _consistent(self) -> Header:
        edges = {row[0] for row in self.e}
        for name, kind, inputs, output, activation, _, shape, _ in self.o:
            missing = {*inputs, output} - edges
            known = kind in KINDS and activation in ACTIVATIONS | {None}
            if not known or missing or bool(shape) != (kind in _WEIGHTED):
                raise ValueError(f"operator {shown(name)} is not understood")
        if {self.i, self.x} - edges or len(edges) != len(self.e):
            raise ValueError("edges are missing or repeated")
        return self


def unpack(data: bytes) -> Network:
    """The network of a packed file of version 1.

    Raises:
        AjpqError: damaged.
    """
    section, floats, reals, codes = _split(data)
    header, widths = _read_header(section, len(data))
    network = _checked(header)
    layers = split_rows([row[6] for row in header.o if row[6]], widths)
    zero_rows = [row[7] for row in header.o if row[6]]
    stored = [(layer.bits > 0) | (kind == 1) for layer, kind in zip(layers, zero_rows, strict=True)]
    check_sizes(layers, len(data), len(reals))
    if len(floats) != 8 * sum(int(rows.sum()) for rows in stored):
        raise damaged("its sizes contradict each other")
    places = [place for place, row in enumerate(header.o) if row[6]]
    found = _read_weights(layers, stored, floats, reals, codes)
    weights = dict(zip(places, found, strict=True))
    operators = (
        replace(op, weights=weights.get(place)) for place, op in enumerate(network.operators)
    )
    return replace(network, operators=tuple(operators))


def _checked(header: Header) -> Network:
    """The network without its weights."""
    try:
        network = _network(header)
        check_wiring(network, {n: tuple(row[6]) for n, row in enumerate(header.o) if row[6]})
    except ValidationError as error:
        raise damaged(error.errors(include_url=False, include_input=False)[0]["msg"]) from error
    except ValueError as error:
        raise damaged(error) from error
    return network


def _split(data: bytes) -> list[bytes]:
    start = _PREFIX.size + _LENGTHS.size
    if len(data) < start:
        raise damaged("it is cut off")
    _, _, reserved, checksum = _PREFIX.unpack_from(data)
    lengths = _LENGTHS.unpack_from(data, _PREFIX.size)
    if reserved or zlib.crc32(data[_PREFIX.size :]) != checksum:
        raise damaged("its checksum does not match")
    if start + sum(lengths) != len(data):
        raise damaged("its sections contradict its length")
    ends = np.cumsum([start, *lengths]).tolist()
    return [data[a:b] for a, b in pairwise(ends)]


def _read_header(section: bytes, size: int) -> tuple[Header, bytes]:
    """The structure, and one width per weight row."""
    text = inflate(section, STRUCTURE_BYTES)
    length = int.from_bytes(text[:4], "little")
    if not 4 + length <= len(text) or not fits(size, 0, 0, len(text) - 4 - length):
        raise damaged("its header is cut off")
    try:
        return Header.model_validate_json(text[4 : 4 + length]), text[4 + length :]
    except ValidationError as error:
        raise damaged(error.errors(include_url=False, include_input=False)[0]["msg"]) from error


def _read_weights(
    layers: list[Layer], stored: list[np.ndarray], floats: bytes, reals: bytes, codes: bytes
) -> list[Weights]:
    values = np.frombuffer(floats, "<f4").astype(np.float32)
    real_values = np.frombuffer(reals, "<f4").astype(np.float32)
    coder = open_stream(codes)
    groups = iter(decode_groups(coder, [group for layer in layers for group in layer.groups]))
    close_stream(coder)
    found = []
    for layer, rows in zip(layers, stored, strict=True):
        count = int(rows.sum())
        scales, bias, values = np.split(values, [count, 2 * count])
        own_reals, real_values = np.split(real_values, [layer.reals])
        placed = layer.place(groups, own_reals)
        found.append(
            Weights(placed, spread(rows, scales, 0), layer.bits.copy(), spread(rows, bias, 0))
        )
    return found


def _network(header: Header) -> Network:
    edges = {
        name: Edge(name, tuple(shape), bits, signed, scale)
        for name, shape, bits, signed, scale in header.e
    }
    operators = tuple(
        Operator(
            name,
            kind,
            tuple(inputs),
            output,
            named(kind, listed(kind, attributes)),
            None,
            activation,
        )
        for name, kind, inputs, output, activation, attributes, *_ in header.o
    )
    return Network(header.n, header.i, header.x, edges, operators)
