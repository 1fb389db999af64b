"""``python -m ajpq.export``: write a network as files, verify them, check files from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from ajpq import cli
from ajpq.exporters import FORMATS
from ajpq.exporters.check import files_in, inspect
from ajpq.exporters.expected import Verdict
from ajpq.exporters.source import CARD_FILE, packed_file
from ajpq.progress import ConsoleProgress
from ajpq.reporting.inspected import print_inspection
from hw_models.errors import AjpqError

ALL = "all"
DEFAULT = ("policy", "onnx", "packed")


def main(
    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None,
    format: Annotated[str, cli.option("NAMES", "policy,onnx,packed")] = "",
    out: Path | None = None,
    verify: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    license: Annotated[str | None, cli.option("NAME", "default: unknown")] = None,
    data: Annotated[str | None, cli.option("NAME", "default: the run's")] = None,
    check: Annotated[Path | None, cli.option("FILE", "")] = None,
) -> None:
    """Export a compressed network and a model card, or look into an exported file.

    Args:
        run: a finished run, a folder with model.ajpq, or a packed file.
        format: comma-separated, or all: policy (JSON), packed (the smallest file, loads back into
            PyTorch), torch (torch.export program), onnx (int8 QDQ for ONNX Runtime), onnx-blocked
            (the small ONNX file), tflite (int8 for LiteRT and for Arm's compiler), vela (that
            file compiled for the Ethos-U), qonnx (arbitrary widths, for FPGA compilers).
        out: folder for the files; default <run>/export.
        verify: run each file on the test images and compare it with the reference.
        license: of the checkpoint, for the model card: apache-2.0, for example.
        data: where the run's images lie on this machine; for a packed file the images that it is
            for, to verify on and to choose the range of the logits of tflite and vela.
        check: tell what is in this file, folder of files or run folder, and whether it is still
            what was exported; nothing of it is executed.
    """
    if (run is None) == (check is None):
        raise AjpqError("name what to export (a run, a folder with model.ajpq), or --check FILE")
    if check is not None:
        return _check(check)
    assert run is not None
    folder = out or (run.parent if run.is_file() else run) / "export"
    _export(run, formats_asked(run, format), folder, verify, license, data)


def formats_asked(run: Path, text: str) -> list[str]:
    """The formats that ``--format`` names; a packed file holds no policy to write."""
    asked = [name.strip() for name in text.split(",") if name.strip()] or list(DEFAULT)
    every = list(FORMATS) if asked == [ALL] else asked
    if packed_file(run) and (not text or asked == [ALL]):
        return [name for name in every if name != "policy"]
    return every


def _export(
    run: Path, names: list[str], folder: Path, verify: bool, license: str | None, data: str | None
) -> None:
    from ajpq import exporting  # takes seconds, and a check needs nothing of it

    console = Console()
    progress = ConsoleProgress(console)
    if verify:
        exporting.check_verifiable(run, data)
    paths = exporting.export(run, names, folder, license=license, data=data, note=progress.note)
    if not verify:
        for path in [*paths, folder / CARD_FILE]:
            console.print(f"{path}  {path.stat().st_size:,} bytes")
        return
    verdicts = exporting.verify(run, names, folder, data=data, progress=progress)
    console.print(verdict_table(paths, verdicts))
    console.print(f"{folder / exporting.VERIFIED}")
    failed = [name for name, verdict in verdicts.items() if not verdict.ok]
    if failed:
        reasons = "; ".join(f"{name}: {verdicts[name].note}" for name in failed)
        raise AjpqError(f"not what the reference answers: {reasons}")


def verdict_table(paths: Sequence[Path], verdicts: Mapping[str, Verdict]) -> Table:
    """One row per file."""
    table = Table()
    table.add_column("format", no_wrap=True)
    table.add_column("file", overflow="fold")
    for heading in ("bytes", "top-1 %", "agree %"):
        table.add_column(heading, justify="right")
    table.add_column("ok")
    table.add_column("run by", overflow="fold")
    for path, (name, verdict) in zip(paths, verdicts.items(), strict=True):
        figures = [
            "-" if value is None else f"{value:.2f}" for value in (verdict.top1, verdict.agreement)
        ]
        ok = "yes" if verdict.ok else "[red]no[/red]"
        table.add_row(name, path.name, f"{path.stat().st_size:,}", *figures, ok, verdict.note)
    return table


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
