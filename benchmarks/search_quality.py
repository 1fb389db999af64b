"""Does the search with two controllers find better policies than everything else at equal cost?

ResNet-20 of zoo/base, its validation images, two devices, three budgets each, all searchers with
every seed. What a search may cost is counted in images, as 300 plain candidates take: shown once,
trained on three times; sensitivities and warm starts included. No fine-tuning, no test images: the
best candidates of every search, within each budget and within three between one and the next that
no searcher is asked for, are measured by the exact reference on the whole validation split
(``python -m ajpq.compare``). Ours serves such budgets by itself. So that nobody takes a front for
better that others were only never asked for, two of the strongest others search once more, asked
for all of them at the same cost, and are compared to by a bar of their own.

    make bench NAME=search_quality
    python -m benchmarks.search_quality --data imagefolder:DIR
    python -m benchmarks.search_quality --data imagefolder:DIR --searchers ajpq

Several hours on two cores; started again, it goes on where it was stopped. With ``--searchers``
only those search, in a folder of their own, and the rows of the others stay as they are in the
result file.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from agents.front import load_front
from agents.searchers import WITHOUT_CHANCE
from ajpq import cli
from ajpq.checkpoints import load_tensors
from ajpq.comparing.comparison import compare
from ajpq.comparing.config import CompareConfig
from ajpq.comparing.standings import Comparison, Standing, standings
from ajpq.config.files import load_run
from ajpq.progress import ConsoleProgress
from benchmarks.harness import RESULTS, at_least, command_line, write_result
from hw_models.errors import AjpqError, UnknownNameError

Row = dict[str, Any]
"""One searcher on one device: medians over its seeds."""

NAME = "search_quality"
OURS = "ajpq"
OTHERS = (
    "td3",
    "sac",
    "ddpg",
    "ppo",
    "random",
    "tpe",
    "nsga2",
    "milp",
    "greedy",
    "evolution",
    "uniform",
)
# The tightest of three budgets on each device, which go up to half as much again.
TARGETS: dict[str, dict[str, float | None]] = {
    "edge-npu": {"latency_ratio": 0.6, "size_ratio": 0.06},
    "bitfusion": {"latency_ratio": 0.75, "size_ratio": 0.05},
}
BUDGET_RANGE = 1.5
# Asked for the budgets between as well, how many from one to the next.
ASKED_AGAIN, BETWEEN = ("milp", "td3"), 3
SEEDS = (0, 1, 2)
CANDIDATES = 300
# Of the reward, for all searchers. Nothing is trained here, and among candidates within one budget
# the divergence on a thousand images tells the accuracy on all better than that on a thousand does.
KL_WEIGHT = 3.0


def main(
    data: str = "cifar10",
    checkpoint: Path = Path("zoo/base/resnet20.safetensors"),
    searchers: tuple[str, ...] = (),
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Let all searchers compete, write benchmarks/results/search_quality.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: a network of zoo/base.
        searchers: who searches; the others' rows are those of the result file, which has to be of
            the same network and images. Default all.
        run_dir: the comparisons, one folder for each device; default runs/search_quality.
        quick: one device, two other searchers, two seeds, few candidates; all of them search.
    """
    command = command_line(NAME, quick, data=data, checkpoint=str(checkpoint))
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    rows: list[Row] = []
    if searchers:
        folder = folder / "-".join(searchers)
        rows = rows_of_others(json.loads((RESULTS / f"{NAME}.json").read_text()), command)
    targets = list(TARGETS)[1 if quick else 0 :]
    for target in targets:
        config = config_of(target, data, checkpoint, quick)
        rows = merged(rows, _rows_on(target, config, chosen(config.agents, searchers), folder))
        again = ASKED_AGAIN[:1] if quick else ASKED_AGAIN
        finer = config_of(
            target,
            data,
            checkpoint,
            quick,
            budgets=1 + (config.budgets - 1) * (BETWEEN + 1),
            between=0,
        )
        rows = merged(rows, _finer_rows_on(target, finer, chosen(again, searchers), folder))
    path = write_result(
        NAME,
        command=command,
        seed=SEEDS[0],
        rows=rows,
        bars={name: bar for target in targets for name, bar in bars_of(target, rows).items()},
        seconds=sum(row["seconds"] * searches_of(row["searcher"]) for row in rows),
        quick=quick,
    )
    print(path)


def _rows_on(
    target: str, config: CompareConfig, agents: tuple[str, ...], folder: Path
) -> list[Row]:
    """The rows of ``agents``, asked for the budgets of ``config``."""
    if not agents:
        return []
    found = _compared(config, agents, folder / target)
    seeds = config.seeds if OURS in agents else ()
    added = [learned(folder / target / f"{OURS}-{seed}" / "agent", found) for seed in seeds]
    return rows_of(target, standings(found), added)


def _finer_rows_on(
    target: str, config: CompareConfig, agents: tuple[str, ...], folder: Path
) -> list[Row]:
    """The rows of ``agents``, asked for the budgets between too."""
    if not agents:
        return []
    found = _compared(config, agents, folder / f"{target}-between")
    return rows_of(target, coarser(found, BETWEEN + 1), [])


def _compared(config: CompareConfig, agents: tuple[str, ...], folder: Path) -> Comparison:
    own = config.model_copy(update={"agents": agents})
    return compare(own, folder, resume=folder.exists(), progress=ConsoleProgress())


def chosen(agents: Sequence[str], searchers: Sequence[str]) -> tuple[str, ...]:
    """Those of ``agents`` that are to search, all where nobody is named.

    Raises:
        UnknownNameError: somebody is named who does not take part.
    """
    for name in searchers:
        if name not in (OURS, *OTHERS):
            raise UnknownNameError("searcher", name, (OURS, *OTHERS))
    return tuple(agent for agent in agents if not searchers or agent in searchers)


def rows_of_others(result: Mapping[str, Any], command: str) -> list[Row]:
    """The rows of a result file.

    Raises:
        AjpqError: it was written by another command, so that its rows are of other searches.
    """
    if result["command"] != command:
        raise AjpqError(f"the other searchers' rows are of {result['command']!r}, not {command!r}")
    rows: list[Row] = result["rows"]
    return rows


def searches_of(name: str) -> int:
    """How many searches are behind a row: those that draw nothing at random search once."""
    return 1 if name.split(",", maxsplit=1)[0] in WITHOUT_CHANCE else len(SEEDS)


def merged(known: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """``known`` rows, each replaced by the new one of its searcher and device, then all others."""
    left = {(row["target"], row["searcher"]): row for row in new}
    kept = [left.pop((row["target"], row["searcher"]), row) for row in known]
    return [*kept, *left.values()]


def coarser(finer: Comparison, step: int) -> list[Standing]:
    """Standings of searchers that were asked for more budgets, at every ``step``-th of them."""
    return [
        dataclasses.replace(
            standing,
            agent=f"{standing.agent}, asked for {len(finer.budgets)} budgets",
            best_top1=standing.best_top1[::step],
        )
        for standing in standings(finer)
    ]


def config_of(target: str, data: str, checkpoint: Path, quick: bool, **own: Any) -> CompareConfig:
    """The comparison on one device; ``own`` replaces any of its settings."""
    about = load_tensors(checkpoint)[1]
    others, seeds = (("random", "milp"), SEEDS[:2]) if quick else (OTHERS, SEEDS)
    settings = {
        "model": about["model"],
        "seed": int(about["seed"]),
        "checkpoint": str(checkpoint),
        "data": data,
        "target": target,
        "agents": (OURS, *others),
        "seeds": seeds,
        "budget_range": BUDGET_RANGE,
        "kl_weight": KL_WEIGHT,
        "budgets": 3,
        "between": BETWEEN,
        "candidates": 12 if quick else CANDIDATES,
        **TARGETS[target],
        **own,
    }
    return load_run(CompareConfig, "cifar10-resnet20", settings)


def learned(agent: Path, found: Comparison) -> list[float]:
    """How many hundredths of reward the controllers' own proposals added, by budget asked for.

    A hundredth is a point of top-1 on the search images, or a third of one of a nat.
    """
    return [
        100 * (point.reward - point.reward_warm)
        for point in load_front(agent)
        if point.bounds in found.budgets and point.reward_warm is not None
    ]


def rows_of(
    target: str, everybody: Sequence[Standing], added: Sequence[Sequence[float]]
) -> list[Row]:
    """One row per searcher: medians over seeds."""
    return [
        {
            "target": target,
            "searcher": standing.agent,
            "candidates": standing.candidates,
            "hypervolume": standing.hypervolume.median,
            "least": standing.hypervolume.least,
            "most": standing.hypervolume.most,
            **{
                f"top1_val_budget_{number}": best.median
                for number, best in enumerate(standing.best_top1, 1)
            },
            "hundredths_learned": _least_median(added) if standing.agent == OURS else None,
            "seconds": standing.seconds,
        }
        for standing in everybody
    ]


def _least_median(added: Sequence[Sequence[float]]) -> float:
    """The least over budgets of the median over seeds."""
    return min((statistics.median(own) for own in zip(*added, strict=False)), default=0.0)


def bars_of(target: str, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Hypervolume and accuracy against the best of the others, and what learning added."""
    others = {row["searcher"]: row for row in rows if row["target"] == target}
    ours = others.pop(OURS)
    alike = [row for name, row in others.items() if name in OTHERS]
    asked_more = [row for name, row in others.items() if name not in OTHERS]
    budgets = [column for column in ours if column.startswith("top1_val_budget_")]
    gaps = [_most([ours], column) - _most(others.values(), column) for column in budgets]
    over = {"other": alike, **({"asked_for_all_budgets": asked_more} if asked_more else {})}
    volume, added = _most([ours], "hypervolume"), ours["hundredths_learned"]
    return {
        **{
            f"{target}_hypervolume_over_the_best_{who}_at_least": at_least(
                volume / max(_most(those, "hypervolume"), 1e-12), 1.03
            )
            for who, those in over.items()
        },
        f"{target}_points_over_the_best_at_every_budget_at_least": at_least(min(gaps), 0.0),
        f"{target}_hundredths_of_reward_learned_beyond_the_warm_start_above": {
            **at_least(added, 0.0),
            "holds": added > 0,
        },
    }


def _most(rows: Iterable[Mapping[str, Any]], column: str) -> float:
    """The largest of a column; nothing found counts as none."""
    return max((row[column] or 0.0 for row in rows), default=0.0)


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
