"""The structure of a network as compact JSON, and its validation when it comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hw_models.errors import AjpqError
from hw_models.network import ACTIVATIONS, KINDS, Edge, Network, Operator, Weights

_Size = Annotated[int, Field(gt=0, lt=2**31)]
_Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Scalar = bool | int | Annotated[float, Field(allow_inf_nan=False)] | str
_WEIGHTED = {"conv", "linear", "affine"}
_Bits = Literal[2, 3, 4, 5, 6, 7, 8, 32]


class Header(BaseModel):
    """What the JSON holds; field names are short because the file is.

    Attributes:
        e: edges: name, shape, bits, signed, scale.
        o: operators: name, kind, inputs, output, activation, attributes, shape of the weights
            (empty without weights), 1 if scale and bias of zero rows are stored too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    n: str
    i: str
    x: str
    e: list[tuple[str, list[_Size], _Bits, bool, _Scale]]
    o: list[
        tuple[
            str,
            str,
            list[str],
            str,
            str | None,
            dict[str, _Scalar | list[_Scalar | list[_Scalar]]],
            list[_Size],
            Literal[0, 1],
        ]
    ]

    @model_validator(mode="after")
    def _consistent(self) -> Header:
        shapes = {name: shape for name, shape, *_ in self.e}
        for name, kind, inputs, output, activation, _, shape, _ in self.o:
            missing = {*inputs, output} - shapes.keys()
            known = kind in KINDS and activation in ACTIVATIONS | {None}
            if not known or missing or bool(shape) != (kind in _WEIGHTED):
                raise ValueError(f"operator {name!r} is not understood")
            if shape and shapes[output][:1] != shape[:1]:
                raise ValueError(f"operator {name!r} has rows and outputs of different number")
        if {self.i, self.x} - shapes.keys() or len(shapes) != len(self.e):
            raise ValueError("edges are missing or repeated")
        return self


def _plain(value: Any) -> Any:
    """Numpy numbers and arrays as JSON knows them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"cannot store {value!r} in a packed file")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def stores_zero_rows(weights: Weights) -> bool:
    """Do zero rows have a scale or a bias other than 0, which the file then has to hold?"""
    dead = weights.bits == 0
    return bool(weights.scales[dead].any() or weights.bias[dead].any())


def dump_header(network: Network) -> bytes:
    """Compact JSON.

    Raises:
        AjpqError: an attribute that JSON cannot hold.
    """
    content = {
        "n": network.name,
        "i": network.input,
        "x": network.output,
        "e": [[e.name, e.shape, e.bits, e.signed, float(e.scale)] for e in network.edges.values()],
        "o": [_dump_operator(op) for op in network.operators],
    }
    try:
        text = json.dumps(content, separators=(",", ":"), default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AjpqError(f"cannot pack network {network.name!r}: {error}") from error
    return text.encode()


def _dump_operator(op: Operator) -> list[Any]:
    shape = op.weights.codes.shape if op.weights is not None else ()
    zero_rows = int(op.weights is not None and stores_zero_rows(op.weights))
    attributes = dict(op.attributes)
    return [op.name, op.kind, op.inputs, op.output, op.activation, attributes, shape, zero_rows]


def parse_header(text: bytes) -> Header:
    """Read and validate.

    Raises:
        AjpqError: not JSON, or not the structure of a network.
    """
    try:
        return Header.model_validate_json(text)
    except ValidationError as error:
        raise AjpqError(f"the packed file is damaged: {error.errors()[0]['msg']}") from error


def build_network(header: Header, weights: Mapping[int, Weights]) -> Network:
    """The IR; ``weights`` maps the position of an operator to its rows."""
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
            {key: _tuples(value) for key, value in attributes.items()},
            weights.get(position),
            activation,
        )
        for position, (name, kind, inputs, output, activation, attributes, _, _) in enumerate(
            header.o
        )
    )
    return Network(header.n, header.i, header.x, edges, operators)
