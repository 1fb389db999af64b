"""What :mod:`ajpq.exporters.check` found in a file, for the console."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ajpq.exporters.check import Inspection


def print_inspection(found: Inspection, console: Console) -> None:
    """Facts, then the bytes by part."""
    facts = {
        "format": found.format,
        "bytes": f"{found.size:,}",
        "integrity": found.integrity,
        **found.facts,
    }
    console.print(escape(str(found.path)), style="bold", soft_wrap=True)
    for key, value in facts.items():
        console.print(f"  {key}: {value}", markup=False, highlight=False, soft_wrap=True)
    table = Table("part", "what it is", "constants")
    table.add_column("bytes", justify="right")
    table.add_column("share", justify="right")
    for part in found.parts:
        cells = map(escape, (part.name, part.kind, part.constants))
        table.add_row(*cells, *_size(part.stored_bytes, found.size))
    table.add_row("everything else", "", "", *_size(found.other_bytes, found.size))
    console.print(table)


def _size(count: int, total: int) -> tuple[str, str]:
    return f"{count:,}", f"{100 * count / max(total, 1):.1f} %"
