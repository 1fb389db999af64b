"""The structure of a network as compact JSON, and its validation when it comes back.

Edges are known by their number. An operator's output is told as what it differs from the number of
the operator plus one, and its inputs as how far they lie before the output: in a chain that is
always ``0`` and ``[1]``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator

from ajpq.packed.attributes import Function, Size, listed, named
from ajpq.packed.container import damaged
from ajpq.packed.limits import STRUCTURE_BYTES
from ajpq.packed.wiring import check_wiring
from hw_models.errors import AjpqError
from hw_models.network import KINDS, Edge, Network, Operator, Weights

_WEIGHTED = {"conv", "linear", "affine"}
_Bits = Literal[2, 3, 4, 5, 6, 7, 8, 32]
_Scale = Annotated[float, Field(gt=0, lt=2.0**127)] | Annotated[str, Field(max_length=32)]
_Distance = Annotated[int, Field(gt=-(2**31), lt=2**31)]
_Name = Annotated[str, Field(max_length=1000)]
_Shape = Annotated[list[Size], Field(max_length=8), FailFast()]
_Distances = Annotated[list[_Distance], FailFast()]
_Edge = tuple[_Name, _Shape, _Bits, bool, _Scale]
_Operator = tuple[
    _Name, str, Function | None, _Distance, _Distances, list[Any], _Shape, Literal[0, 1, 2]
]
STORED = 2
"""``zero_rows`` of an operator whose zero rows have scales and biases in the file; where they all
have a bias of 0, this number is their scale instead: 0 or 1."""


class Structure(BaseModel):
    """What the JSON holds; field names are short because the file is.

    Attributes:
        n: name of the network.
        i: edge that the network reads.
        x: edge that it answers with.
        e: edges: name, shape, bits, signed, scale. A scale is the shortest decimal that rounds to
            its float32; in a network made elsewhere it may be another float64, as a string of
            hexadecimal digits.
        o: operators: name, kind, activation, output, inputs, values of the attributes, shape of the
            weights (empty without weights), zero rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    n: _Name
    i: _Distance
    x: _Distance
    e: Annotated[list[_Edge], FailFast()]
    o: Annotated[list[_Operator], FailFast()]

    @model_validator(mode="after")
    def _consistent(self) -> Structure:
        for place, operator in enumerate(self.o):
            name, kind, _, _, _, _, shape, _ = operator
            if kind not in KINDS or bool(shape) != (kind in _WEIGHTED):
                raise ValueError(f"operator {name!r} is not understood")
            self.ends(place)
        if len({row[0] for row in self.e}) < len(self.e):
            raise ValueError("names of edges are repeated")
        for end in (self.i, self.x):
            self._edge(end)
        return self

    def ends(self, place: int) -> tuple[list[int], int]:
        """Edges that an operator reads, and the one that it makes."""
        _, _, _, shift, distances, *_ = self.o[place]
        output = self._edge(place + 1 + shift)
        return [self._edge(output - distance) for distance in distances], output

    def _edge(self, number: int) -> int:
        if not 0 <= number < len(self.e):
            raise ValueError(f"there is no edge {number}")
        return number


@dataclass(frozen=True)
class Parsed:
    """A structure that is understood.

    Attributes:
        network: without weights.
        shapes: number of the operator -> shape of its weights.
        zero_rows: likewise, see ``STORED``.
    """

    network: Network
    shapes: Mapping[int, tuple[int, ...]]
    zero_rows: Mapping[int, int]


def zero_rows(weights: Weights) -> int:
    """The scale of all rows of 0 bits if that is 0 or 1 and their bias is 0, or ``STORED``."""
    dead = weights.bits == 0
    if not dead.any():
        return 1
    scales = {scale.tobytes() for scale in weights.scales[dead].astype(np.float32)}
    if weights.bias[dead].astype(np.float32).view(np.uint32).any() or len(scales) > 1:
        return STORED
    return _ALONE.get(scales.pop(), STORED)


_ALONE = {np.float32(scale).tobytes(): scale for scale in (0, 1)}


def dump(network: Network) -> bytes:
    """Compact JSON.

    Raises:
        AjpqError: something that such a file cannot hold.
    """
    number = {name: place for place, name in enumerate(network.edges)}
    try:
        content = {
            "n": network.name,
            "i": number[network.input],
            "x": number[network.output],
            "e": [_dump_edge(edge) for edge in network.edges.values()],
            "o": [_dump_operator(place, op, number) for place, op in enumerate(network.operators)],
        }
        text = json.dumps(content, separators=(",", ":"), default=_plain, allow_nan=False)
    except (TypeError, ValueError, KeyError) as error:
        raise AjpqError(f"cannot pack network {network.name!r}: {error}") from error
    return text.encode()


def _dump_edge(edge: Edge) -> list[Any]:
    with np.errstate(over="ignore", under="ignore"):
        short = float(str(np.float32(edge.scale)))
        same = float(np.float32(short)) == edge.scale
    return [edge.name, edge.shape, edge.bits, edge.signed, short if same else edge.scale.hex()]


def _dump_operator(place: int, op: Operator, number: Mapping[str, int]) -> list[Any]:
    output, weights = number[op.output], op.weights
    return [
        op.name,
        op.kind,
        op.activation,
        output - place - 1,
        [output - number[edge] for edge in op.inputs],
        listed(op.kind, op.attributes),
        () if weights is None else weights.codes.shape,
        0 if weights is None else zero_rows(weights),
    ]


def _plain(value: Any) -> Any:
    """Numpy numbers and arrays as JSON knows them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"cannot store {value!r} in a packed file")


def parse(text: bytes) -> Parsed:
    """Read and validate.

    Raises:
        AjpqError: not JSON, or not the structure of a network.
    """
    if len(text) > STRUCTURE_BYTES:
        raise AjpqError(f"a structure of {len(text)} bytes is too long for a packed file")
    try:
        structure = Structure.model_validate_json(text)
        network = _network(structure)
        shapes = {place: tuple(row[6]) for place, row in enumerate(structure.o) if row[6]}
        check_wiring(network, shapes)
    except ValidationError as error:
        raise damaged(error.errors(include_url=False, include_input=False)[0]["msg"]) from error
    except (ValueError, OverflowError) as error:
        raise damaged(error) from error
    return Parsed(network, shapes, {place: structure.o[place][7] for place in shapes})


def _network(structure: Structure) -> Network:
    edges = [
        Edge(name, tuple(shape), bits, signed, _scale(scale))
        for name, shape, bits, signed, scale in structure.e
    ]
    names = [edge.name for edge in edges]
    operators = []
    for place, (name, kind, activation, _, _, values, _, _) in enumerate(structure.o):
        inputs, output = structure.ends(place)
        sources = tuple(names[edge] for edge in inputs)
        attributes = named(kind, values)
        operators.append(Operator(name, kind, sources, names[output], attributes, None, activation))
    return Network(
        structure.n,
        names[structure.i],
        names[structure.x],
        dict(zip(names, edges, strict=True)),
        tuple(operators),
    )


def _scale(told: float | str) -> float:
    scale = float.fromhex(told) if isinstance(told, str) else float(np.float32(told))
    if not 0 < scale < float("inf"):
        raise ValueError(f"a scale of {told} is impossible")
    return scale
