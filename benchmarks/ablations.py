"""What the parts of the search with two controllers are worth.

ResNet-20 of zoo/base on edge-npu, budgets and cost as in :mod:`benchmarks.search_quality`.
The whole searcher beside itself without a channel controller, with agents that observe
sensitivities, with slopes after the controllers' turns only, without slopes, without a warm start
(and slopes), without budgets between, and without the budget as a goal: one search for each budget,
at a third of the cost. On bitfusion, where widths go by blocks of channels, beside the first three
of these. No fine-tuning, no test images.

    make bench NAME=ablations
    python -m benchmarks.ablations --data imagefolder:DIR
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import cli
from ajpq.comparing.standings import Comparison, Spread, hypervolume, standings
from benchmarks.harness import command_line, write_result
from benchmarks.search_quality import CANDIDATES, OURS, SEEDS, config_of
from benchmarks.unseen_budgets import searched

NAME = "ablations"
TARGET, IN_BLOCKS = "edge-npu", "bitfusion"
SEEING, LAST = "with_sensitivities", "slopes_last"
ALTERED = (
    SEEING,
    LAST,
    "without_slopes",
    "from_nothing",
    "without_between",
)
LAYERS = "ajpq-layers"
ALONE = "one search for each budget"


def main(
    data: str = "cifar10",
    checkpoint: Path = Path("zoo/base/resnet20.safetensors"),
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Search with and without each part, write benchmarks/results/ablations.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: a network of zoo/base.
        run_dir: the searches; default runs/ablations.
        quick: few candidates, two seeds.
    """
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    agents = Path(__file__).parent / "agents"
    files = {name: str(agents / f"{name}.yaml") for name in ALTERED}
    specs = (OURS, LAYERS, *files.values())
    together = searched(config_of(TARGET, data, checkpoint, quick, agents=specs), folder / "all")
    few = (OURS, LAYERS, files[SEEING], files[LAST])
    in_blocks = searched(
        config_of(IN_BLOCKS, data, checkpoint, quick, agents=few), folder / IN_BLOCKS
    )
    alone = [
        searched(
            config_of(
                TARGET,
                data,
                checkpoint,
                quick,
                agents=(OURS,),
                budget_range=1.0,
                candidates=8 if quick else CANDIDATES // len(together.budgets),
                **{f"{cost}_ratio": ratio for cost, ratio in bounds.items()},
            ),
            folder / f"alone-{number}",
        )
        for number, bounds in enumerate(together.budgets)
    ]
    path = write_result(
        NAME,
        command=command_line(NAME, quick, data=data, checkpoint=str(checkpoint)),
        seed=SEEDS[0],
        rows=[
            *({"target": TARGET, **row} for row in rows_of(together, alone)),
            *({"target": IN_BLOCKS, **row} for row in rows_of(in_blocks, [])),
        ],
        bars={},
        seconds=sum(
            outcome.seconds for own in (together, in_blocks, *alone) for outcome in own.searches
        ),
        quick=quick,
    )
    print(path)


def rows_of(together: Comparison, alone: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Over seeds median hypervolume, and for each budget median and least top-1, of every way."""
    ways = {
        standing.agent: (standing.best_top1, standing.hypervolume.median)
        for standing in standings(together)
    }
    if alone:
        ways[ALONE] = (
            tuple(standings(own)[0].best_top1[0] for own in alone),
            statistics.median(_joint_volumes(alone)),
        )
    return [
        {"search": way, **_columns(best), "hypervolume": volume}
        for way, (best, volume) in ways.items()
    ]


def _joint_volumes(alone: Sequence[Comparison]) -> list[float]:
    """For each seed the hypervolume of what its searches for one budget each have found."""
    found = zip(*(own.searches for own in alone), strict=True)
    return [
        hypervolume(
            ((policy.drop, policy.ratio) for own in outcomes for policy in own.measured),
            alone[0].reference,
        )
        for outcomes in found
    ]


def _columns(best: Sequence[Spread]) -> dict[str, float | None]:
    medians = [spread.median for spread in best]
    known = [value for value in medians if value is not None]
    columns: dict[str, float | None] = {}
    for number, spread in enumerate(best, 1):
        columns[f"top1_val_budget_{number}"] = spread.median
        columns[f"least_{number}"] = spread.least
    return {**columns, "mean": statistics.fmean(known) if known else None}


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
