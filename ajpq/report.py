"""``python -m ajpq.report``: one offline HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ajpq import api, cli


def main(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write report.html: trade-offs, the bit-width map, the reward curve.

    Args:
        run: the run folder, finished or not.
    """
    Console().print(str(api.report(run)))


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.report")
