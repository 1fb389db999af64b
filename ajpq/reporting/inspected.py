"""What :mod:`ajpq.exporters.check` found in a file, for the console."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ajpq.exporters.check import Inspection
from ajpq.exporters.readers.content import LONGEST_PATH, plain


def print_inspection(found: Inspection, console: Console) -> None:
    """Facts, the bytes by part, and last what the file says of itself."""
    own = {"format": found.format, "bytes": f"{found.size:,}", "integrity": found.integrity}
    console.print(escape(plain(str(found.path), LONGEST_PATH)), style="bold", soft_wrap=True)
    for key, value in [*own.items(), *found.facts.items()]:
        _print_line(f"{key}: {value}", console)
    table = Table("part", "what it is", "constants")
    table.add_column("bytes", justify="right")
    table.add_column("share", justify="right")
    for part in found.parts:
        cells = map(escape, (part.name, part.kind, part.constants))
        table.add_row(*cells, *_size(part.stored_bytes, found.size))
    table.add_row("everything else", "", "", *_size(found.other_bytes, found.size))
    console.print(table)
    for key, value in found.stated.items():
        _print_line(f"states {key}: {value}", console)


def _print_line(text: str, console: Console) -> None:
    console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)


def _size(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"{100 * count / max(total, 1):.1f} %"
