"""Exported files: written, sealed, and described by a model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ajpq.exporters import Exporter
from ajpq.exporters.card import write_card
from ajpq.exporters.pricing import prices
from ajpq.exporters.seal import seal
from ajpq.exporters.source import Source, statement


def write_files(
    source: Source, exporters: Mapping[str, Exporter], out: Path, license: str | None = None
) -> list[Path]:
    """Write one file per format, seal it, and write the card.

    Args:
        exporters: by the name of their format.

    Raises:
        AjpqError: a format that needs what the source does not have, or cannot hold the network.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = {name: write(source.network, source.policy, out) for name, write in exporters.items()}
    for path in files.values():
        seal(path, statement(source))
    write_card(out, source, files, prices(source.network, source.baseline), license)
    return list(files.values())
