"""What the commands share: arguments to configuration, errors to one line and exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import tyro

from hw_models.errors import AjpqError


def run(command: Callable[..., None], *, prog: str) -> None:
    """Parse ``sys.argv`` for ``command`` and call it.

    Exit codes: 0 done, 2 bad input or a full disk (one line on standard error), 130 interrupted.
    """
    _guarded(lambda: tyro.cli(command, prog=prog))


def run_subcommand(commands: dict[str, Callable[..., None]], *, prog: str) -> None:
    """Call the one of ``commands`` that ``sys.argv`` names; exit codes as of :func:`run`."""
    _guarded(lambda: tyro.extras.subcommand_cli_from_dict(commands, prog=prog))


def _guarded(call: Callable[[], object]) -> None:
    try:
        call()
    except AjpqError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.filename is None and not full:
            raise
        where = f": {error.filename}" if error.filename else ""
        advice = "; what was finished is kept, continue with --resume" if full else ""
        _fail(f"{error.strerror}{where}{advice}")
    except KeyboardInterrupt:
        print("\ninterrupted; continue with --resume", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def given(**options: Any) -> dict[str, Any]:
    """The options that the user set."""
    return {name: value for name, value in options.items() if value is not None}
