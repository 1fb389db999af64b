"""What the commands share: arguments to configuration, errors to one line and exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
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


def resumable(run_dir: Path | None, config: str | None) -> bool:
    """Does the folder tell how its run was started? Else the options given now have to.

    Raises:
        AjpqError: no folder, or neither it nor a config says what to continue with.
    """
    if run_dir is None:
        raise AjpqError("--resume needs --run-dir, the folder to continue in")
    if (run_dir / "config.yaml").exists():
        return True
    if config is None:
        raise AjpqError(
            f"there is no run in {run_dir} yet: repeat the command that started it, with --config"
        )
    return False
