"""``python -m ajpq.replay``: prove a run's result, or carry its policy elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from ajpq import api, cli
from ajpq.cli import option
from ajpq.policy import load_policy
from ajpq.progress import ConsoleProgress
from ajpq.replaying import carried
from ajpq.runs.finished import load_finished
from hw_models.errors import AjpqError

Original = option("NAME", "default: the run's")


def main(
    run: Annotated[Path, tyro.conf.Positional],
    retrain: bool = False,
    policy: Annotated[Path | None, option("FILE", "default: the run's")] = None,
    model: Annotated[str | None, Original] = None,
    checkpoint: Annotated[Path | None, option("FILE", "default: the run's")] = None,
    target: Annotated[str | None, Original] = None,
    data: Annotated[str | None, Original] = None,
    run_dir: Annotated[Path | None, option("DIR", "")] = None,
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Rebuild the compressed network of a run and measure it again.

    Fails if a recorded metric does not come back. With another target alone it prices the same
    network there and looks at no image. With another policy, model or checkpoint there is nothing
    to compare with: the policy is put on the uncompressed weights, and a run folder of its own
    tells what came out.

    Args:
        run: the run folder.
        retrain: repeat the fine-tuning instead of loading the weights; with another policy, model
            or checkpoint fine-tune as the run did instead of only calibrating.
        policy: another policy.
        model: another network with the same layers; without a checkpoint it is trained first.
        checkpoint: other weights of the same architecture.
        target: another device.
        data: where the run's images lie on this machine.
        run_dir: where a new run goes; default runs/<model>-<time>.
        resume: continue the new run in --run-dir after an interruption.
    """
    changes = cli.given(model=model, checkpoint=checkpoint and str(checkpoint), target=target)
    console = Console()
    if policy is not None or changes.keys() - {"target"} or (changes and retrain):
        _carry(console, run, policy, changes, retrain, data, run_dir, resume)
    elif run_dir is not None or resume:
        raise AjpqError("--run-dir and --resume are for another policy, model or checkpoint")
    elif target is not None:
        costs = api.reprice(run, target, data=data, progress=ConsoleProgress(console))
        _print(console, f"{run} on {target}", costs)
    else:
        _prove(console, run, retrain, data)


def _prove(console: Console, run: Path, retrain: bool, data: str | None) -> None:
    outcome = api.replay(run, retrain=retrain, data=data, progress=ConsoleProgress(console))
    changed = outcome.pop("changed")
    _print(console, f"{run} {'was retrained' if changed else 'replays'}", outcome)
    if changed:
        text = f"the retrained weights differ, as they may elsewhere: {'; '.join(changed)}"
        console.print(text, markup=False, highlight=False)


def _carry(
    console: Console,
    run_dir: Path,
    policy: Path | None,
    changes: dict[str, Any],
    retrain: bool,
    data: str | None,
    new_dir: Path | None,
    resume: bool,
) -> None:
    if resume and new_dir is None:
        raise AjpqError("--resume needs --run-dir, the folder to continue in")
    run = load_finished(run_dir, data=data, note=ConsoleProgress(console).note)
    own = run.asked if retrain else run.policy
    wanted = own if policy is None else load_policy(policy)
    if retrain:
        changes["recipe"] = run.config.full_recipe
    work = functools.partial(api.carry, policy=wanted)
    cli.perform(work, carried(run, wanted, **changes), new_dir, resume)


def _print(console: Console, title: str, columns: dict[str, dict[str, Any]]) -> None:
    table = Table("metric", *columns, title=title)
    for key in next(iter(columns.values())):
        table.add_row(key, *(str(values[key]) for values in columns.values()))
    console.print(table)


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.replay")
