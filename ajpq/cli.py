"""What the commands share: arguments to configuration, errors to one line and exit code 2."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from ajpq.config.files import load_run, on_top, validated_run
from ajpq.config.schema import Run, RunConfig
from ajpq.memory import keep_freed_memory
from ajpq.progress import ConsoleProgress
from ajpq.runs.folder import stored_config
from hw_models.errors import AjpqError


def option(metavar: str, hint: str = "default: the config's", about: str | None = None) -> Any:
    """How the help shows an option whose default is not in the signature.

    Args:
        about: what it is, where a docstring cannot know.
    """
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint, help=about)


Text = Annotated[str | None, option("NAME")]
Count = Annotated[int | None, option("N")]
Bound = Annotated[float | Literal["none"] | None, option("RATIO")]
Limits = Annotated[
    tuple[tuple[str, ...], ...], option("COST=BOUND ...", "(repeatable)"), tyro.conf.UseAppendAction
]


def run(command: Callable[..., None], *, prog: str) -> None:
    """Parse ``sys.argv`` for ``command`` and call it.

    Exit codes: 0 done, 2 bad input or a full disk (one line on standard error), 130 interrupted.
    """
    _guarded(lambda: tyro.cli(command, prog=prog))


def run_subcommand(commands: dict[str, Callable[..., None]], *, prog: str) -> None:
    """Call the one of ``commands`` that ``sys.argv`` names, or the first.

    Exit codes as of :func:`run`.
    """
    arguments = sys.argv[1:] or [next(iter(commands))]
    _guarded(lambda: tyro.extras.subcommand_cli_from_dict(commands, prog=prog, args=arguments))


def _guarded(call: Callable[[], object]) -> None:
    keep_freed_memory()
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
    line = " ".join(message.split())  # it may quote what someone else has written
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    print(f"error: {shown}", file=sys.stderr)
    sys.exit(2)


def given(**options: Any) -> dict[str, Any]:
    """The options that the user set."""
    return {name: value for name, value in options.items() if value is not None}


def bounds_given(**bounds: float | Literal["none"] | None) -> dict[str, float | None]:
    """The bounds that the user set or, with "none", took away."""
    return {
        name: None if bound == "none" else bound
        for name, bound in bounds.items()
        if bound is not None
    }


def limits_given(limits: Sequence[Sequence[str]]) -> dict[str, dict[str, str]]:
    """``COST=BOUND`` of the user, in one or several options, as the setting ``limits``.

    Nothing without any.

    Raises:
        AjpqError: a text of another form, or two bounds of one cost.
    """
    pairs: dict[str, str] = {}
    for text in itertools.chain.from_iterable(limits):
        cost, equals, bound = text.partition("=")
        if not equals:
            raise AjpqError(f"--limit: expected COST=BOUND, such as flash=128kB, got {text!r}")
        if cost in pairs:
            raise AjpqError(f"--limit: two bounds of {cost}: {pairs[cost]} and {bound}")
        pairs[cost] = bound
    return {"limits": pairs} if pairs else {}


def settings_of(
    kind: type[Run],
    overrides: dict[str, Any],
    *,
    run_dir: Path | None,
    resume: bool,
    config: str | None,
    default: str,
) -> Run:
    """Settings of the run that is resumed, or of a config, with the user's options on top.

    Raises:
        AjpqError: bad settings, or nothing that says what to continue with.
    """
    if not resume:
        return load_run(kind, config or default, overrides)
    if run_dir is None:
        raise AjpqError("--resume needs --run-dir, the folder to continue in")
    if (run_dir / "config.yaml").exists():
        stored = stored_config(run_dir).model_dump()
        return validated_run(kind, on_top(stored, overrides), f"run folder {run_dir}")
    if config is None and not overrides:
        raise AjpqError(
            f"there is no run in {run_dir} yet: repeat the first command, without --resume"
        )
    return load_run(kind, config or default, overrides)  # interrupted before anything was recorded


def perform(
    work: Callable[..., object], settings: RunConfig, run_dir: Path | None, resume: bool
) -> None:
    """Do the run with a progress bar and say where it lies."""
    folder = run_dir or Path("runs") / time.strftime(f"{settings.model_name}-%Y%m%d-%H%M%S")
    console = Console()
    work(settings, folder, resume=resume, progress=ConsoleProgress(console))
    console.print(f"run folder: {folder}   report: {folder / 'report.html'}")
