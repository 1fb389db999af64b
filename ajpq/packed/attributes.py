"""What each kind of operator says of itself, as :mod:`hw_models.network` documents it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field

from hw_models.network import ACTIVATIONS, KINDS

Size = Annotated[int, Field(gt=0, lt=2**31)]
_Index = Annotated[int, Field(ge=-1, lt=2**31)]
_Pair = Annotated[list[Size], Field(min_length=2, max_length=2)]
_Margin = Annotated[int, Field(ge=0, lt=2**31)]
_Margins = Annotated[list[_Margin], Field(min_length=2, max_length=2)]


def _known(function: str) -> str:
    if function not in ACTIVATIONS:
        raise ValueError(f"no activation {function[:40]!r}")
    return function


Function = Annotated[str, AfterValidator(_known)]


class _Attributes(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Convolution(_Attributes):
    stride: _Pair
    padding: _Margins
    dilation: _Pair
    groups: Size


class _Activation(_Attributes):
    function: Function


class _Select(_Attributes):
    index: Annotated[list[_Index], FailFast()]


class _Subsample(_Attributes):
    stride: _Pair


class _Padding(_Attributes):
    padding: Annotated[list[_Margin], Field(min_length=4, max_length=4)]


class _Window(_Attributes):
    kernel: _Pair
    stride: _Pair
    padding: _Margins
    ceil_mode: bool


class _Average(_Window):
    count_include_pad: bool


ATTRIBUTES: Mapping[str, type[_Attributes]] = {
    **dict.fromkeys(KINDS, _Attributes),
    "conv": _Convolution,
    "activation": _Activation,
    "select": _Select,
    "subsample": _Subsample,
    "pad": _Padding,
    "maxpool": _Window,
    "avgpool": _Average,
}
"""Operator kind -> its attributes, in the order in which a file lists their values."""


def listed(kind: str, attributes: Mapping[str, Any]) -> list[Any]:
    """The values of an operator's attributes.

    Raises:
        ValueError: one is missing, or the kind does not know it.
    """
    names = ATTRIBUTES[kind].model_fields
    if attributes.keys() != names.keys():
        raise ValueError(f"a {kind} has the attributes {list(names)}, not {list(attributes)}")
    return [attributes[name] for name in names]


def named(kind: str, values: list[Any]) -> dict[str, Any]:
    """Inverse of :func:`listed`, checked; lists become tuples.

    Raises:
        ValueError: not what such an operator has.
    """
    model = ATTRIBUTES[kind]
    if len(values) != len(model.model_fields):
        raise ValueError(f"a {kind} with {len(values)} attributes is not understood")
    checked = model(**dict(zip(model.model_fields, values, strict=True)))
    return {name: _tuples(value) for name, value in checked.model_dump().items()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
