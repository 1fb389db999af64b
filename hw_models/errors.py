"""The errors that a user can mend.

Every command turns an :class:`AjpqError` into one line on standard error and exit code 2;
anything else is a defect of the program and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AjpqError(Exception):
    """Bad input or a missing tool; the message is one line and quotes the offending value."""


class UnknownNameError(AjpqError):
    """A name that is not registered; the message suggests the nearest one that is.

    Args:
        what: the kind of thing that was asked for, such as ``"target"``.
        name: the name as the user gave it.
        known: the names that exist.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"unknown {what} {name!r}; {hint}")


class BudgetError(AjpqError):
    """No policy within the target's widths meets the budget."""


class UnsupportedModuleError(AjpqError):
    """The network contains a module or an operation that cannot be handled."""
