"""Exported files: written, sealed, and described by a model card."""

from __future__ import annotations

import tempfile
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
    """Write and seal one file per format, and the card last.

    The files appear in ``out`` when all are sealed; if one fails, ``out`` is as it was.

    Args:
        exporters: by the name of their format.

    Raises:
        AjpqError: a format that needs what the source does not have, or cannot hold the network.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        made = {
            name: _sealed_file(source, write, Path(folder)) for name, write in exporters.items()
        }
        files = {name: path.replace(out / path.name) for name, path in made.items()}
    write_card(out, source, files, prices(source.network, source.baseline), license)
    return list(files.values())


def _sealed_file(source: Source, write: Exporter, folder: Path) -> Path:
    path = write(source.network, source.policy, folder)
    seal(path, statement(source))
    return path
