"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from hw_models.errors import AjpqError


class MissingPackageError(AjpqError):
    """An optional package is not installed."""


def optional(module: str, purpose: str, package: str, install: str = "'ajpq[export]'") -> Any:
    """Import a module of an optional package.

    Raises:
        MissingPackageError: it is not installed; says what for and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs the package {package}: pip install {install}"
        ) from error
