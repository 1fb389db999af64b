"""``python -m ajpq.export``: write the compressed network of a run as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ajpq import api, cli


def main(
    run: Annotated[Path, tyro.conf.Positional],
    format: str = "policy,onnx,packed",
    out: Path | None = None,
) -> None:
    """Export the compressed network of a finished run.

    Args:
        run: the run folder.
        format: comma-separated: policy (JSON), onnx (int8 QDQ for ONNX Runtime), tflite (int8 for
            LiteRT and for Arm's compiler), packed (the smallest file, loads back into PyTorch).
        out: folder for the files; default <run>/export.
    """
    names = [name.strip() for name in format.split(",") if name.strip()]
    folder = out or run / "export"
    for path in api.export(run, names, folder):
        Console().print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.export")
