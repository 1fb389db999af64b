"""``python -m ajpq.export``: write a compressed network as files, or check files from others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ajpq import cli
from ajpq.exporters.check import files_in, inspect
from ajpq.reporting.inspected import print_inspection
from hw_models.errors import AjpqError


def main(
    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None,
    format: str = "policy,onnx,packed",
    out: Path | None = None,
    license: Annotated[str | None, cli.option("NAME", "default: unknown")] = None,
    check: Annotated[Path | None, cli.option("FILE", "")] = None,
) -> None:
    """Export a compressed network and a model card, or look into an exported file.

    Args:
        run: a finished run, a folder with model.ajpq, or a packed file.
        format: comma-separated: policy (JSON), onnx (int8 QDQ for ONNX Runtime), tflite (int8 for
            LiteRT and for Arm's compiler), packed (the smallest file, loads back into PyTorch).
        out: folder for the files; default <run>/export.
        license: of the checkpoint, for the model card: apache-2.0, for example.
        check: tell what is in this file, folder of files or run folder, and whether it is still
            what was exported; nothing of it is executed.
    """
    if (run is None) == (check is None):
        raise AjpqError("name what to export (a run, a folder with model.ajpq), or --check FILE")
    if check is not None:
        return _check(check)
    from ajpq import api  # takes seconds, and a check needs nothing of it

    assert run is not None
    names = [name.strip() for name in format.split(",") if name.strip()]
    folder = out or (run.parent if run.is_file() else run) / "export"
    paths = api.export(run, names, folder, license=license)
    for path in [*paths, folder / "README.md"]:
        Console().print(f"{path}  {path.stat().st_size:,} bytes")


def _check(path: Path) -> None:
    """Show every file; those that are damaged are told at the end."""
    refused = []
    for file in files_in(path):
        try:
            print_inspection(inspect(file), Console())
        except AjpqError as error:
            refused.append(str(error))
    if refused:
        raise AjpqError("; ".join(refused))


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.export")
