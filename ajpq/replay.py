"""``python -m ajpq.replay``: prove that a run's result is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from ajpq import api, cli
from ajpq.progress import ConsoleProgress


def main(run: Annotated[Path, tyro.conf.Positional], retrain: bool = False) -> None:
    """Rebuild the compressed network of a run and measure it again.

    Fails if a recorded metric does not come back.

    Args:
        run: the run folder.
        retrain: repeat the fine-tuning instead of loading the weights.
    """
    console = Console()
    outcome = api.replay(run, retrain=retrain, progress=ConsoleProgress(console))
    table = Table(title=f"{run} replays")
    for heading in ("metric", "recorded", "replayed"):
        table.add_column(heading)
    for key, value in outcome["replayed"].items():
        table.add_row(key, str(outcome["recorded"][key]), str(value))
    console.print(table)


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.replay")
