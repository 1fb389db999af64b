"""``python -m ajpq.export``: write the compressed network of a run as files, and verify them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from ajpq import api, cli
from ajpq.exporters import FORMATS
from ajpq.exporters.expected import Verdict
from ajpq.progress import ConsoleProgress
from hw_models.errors import AjpqError

ALL = "all"


def main(
    run: Annotated[Path, tyro.conf.Positional],
    format: str = "policy,onnx,packed",
    out: Path | None = None,
    verify: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Export the compressed network of a finished run.

    Args:
        run: the run folder.
        format: comma-separated, or all: policy (JSON), packed (the smallest file, loads back into
            PyTorch), torch (torch.export program), onnx (int8 QDQ for ONNX Runtime), onnx-blocked
            (the small ONNX file), tflite (int8 for LiteRT and for Arm's compiler), vela (that
            file compiled for the Ethos-U), qonnx (arbitrary widths, for FPGA compilers).
        out: folder for the files; default <run>/export.
        verify: run each file on the test images and compare it with the reference.
    """
    asked = [name.strip() for name in format.split(",") if name.strip()]
    names = list(FORMATS) if asked == [ALL] else asked
    folder, console = out or run / "export", Console()
    paths = api.export(run, names, folder)
    if not verify:
        for path in paths:
            console.print(f"{path}  {path.stat().st_size:,} bytes")
        return
    verdicts = api.verify(run, names, folder, progress=ConsoleProgress(console))
    console.print(verdict_table(paths, verdicts))
    console.print(f"{folder / api.VERIFIED}")
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


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.export")
