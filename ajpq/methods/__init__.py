"""Methods by name. A new one is a file here, a line in ``METHODS`` and ``configs/methods``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ajpq.methods.base import Group, Method, Own, Settled
from ajpq.methods.codeq import CoDeQ
from ajpq.methods.ewgs import EWGS
from ajpq.methods.gdrq import GDRQ
from ajpq.methods.gwk import GWK
from ajpq.methods.lsq import LSQ
from ajpq.methods.ptq import PTQ
from ajpq.methods.straight_through import StraightThrough
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.plain import shown

__all__ = ["METHODS", "Group", "Method", "MethodSpec", "Own", "Settled", "make_method"]

METHODS: dict[str, type[Method]] = {
    "straight_through": StraightThrough,
    "lsq": LSQ,
    "ewgs": EWGS,
    "gwk": GWK,
    "codeq": CoDeQ,
    "ptq": PTQ,
    "gdrq": GDRQ,
}


class MethodSpec(BaseModel):
    """Which method trains the weights of a stage; in YAML its name alone will do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, content: Any) -> Any:
        return {"name": content} if isinstance(content, str) else content


def make_method(spec: MethodSpec) -> Method:
    """Build the method that a stage names.

    Raises:
        UnknownNameError: no method has this name.
        AjpqError: a parameter is unknown or has an impossible value.
    """
    if spec.name not in METHODS:
        raise UnknownNameError("method", spec.name, METHODS)
    try:
        return METHODS[spec.name].model_validate(spec.params)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AjpqError(
            f"method {spec.name!r}: {where}: {first['msg']}, got {shown(first['input'])}"
        ) from error


ROLES = frozenset(role for kind in METHODS.values() for role in kind.layer_roles)
"""Under these names methods keep something of a layer."""
EDGE_ROLES = frozenset(role for kind in METHODS.values() for role in kind.edge_roles)
"""Under these names methods keep something of an edge."""
