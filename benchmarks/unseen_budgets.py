"""One agent for every budget: what it proposes for budgets that it has not seen.

ResNet-20 of zoo/base on edge-npu and the budgets of :mod:`benchmarks.search_quality`. One search
with two controllers serves three budgets and some between; for the two furthest from all of those
its agents propose three dozen candidates each (as ``python -m ajpq.decode`` does). Beside them a
search dedicated to such a budget alone, at the cost of a hundred plain candidates, its third of
what the first one cost for three. No fine-tuning; the best of each are measured by the exact
reference on the whole validation split.

    make bench NAME=unseen_budgets
    python -m benchmarks.unseen_budgets --data imagefolder:DIR
"""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import cli
from ajpq.comparing.comparison import compare
from ajpq.comparing.config import CompareConfig
from ajpq.comparing.standings import Comparison
from ajpq.progress import ConsoleProgress
from benchmarks.harness import at_most, command_line, write_result
from benchmarks.search_quality import OURS, SEEDS, config_of

NAME = "unseen_budgets"
TARGET = "edge-npu"
LEARNED, DECODED, DEDICATED = 300, 36, 100


def main(
    data: str = "cifar10",
    checkpoint: Path = Path("zoo/base/resnet20.safetensors"),
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Learn three budgets, decode two others, write benchmarks/results/unseen_budgets.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: a network of zoo/base.
        run_dir: the searches; default runs/unseen_budgets.
        quick: few candidates, two seeds.
    """
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    learned = searched(
        config_of(TARGET, data, checkpoint, quick, agents=(OURS,), candidates=_few(LEARNED, quick)),
        folder / "learned",
    )
    origin = folder / "learned" / f"{OURS}-{learned.searches[0].seed}"
    rows, seconds = [], _seconds(learned)
    for number, bounds in enumerate(unseen(learned.budgets)):
        alone: dict[str, Any] = {
            "agents": (OURS,),
            "budget_range": 1.0,
            **{f"{cost}_ratio": ratio for cost, ratio in bounds.items()},
        }
        ways: dict[str, dict[str, Any]] = {
            "decoded": {"candidates": _few(DECODED, quick), "agent_from": str(origin)},
            "dedicated": {"candidates": _few(DEDICATED, quick)},
        }
        for way, own in ways.items():
            config = config_of(TARGET, data, checkpoint, quick, **alone, **own)
            found = searched(config, folder / f"{way}-{number}")
            rows.append(row_of(found, way))
            seconds += _seconds(found)
    path = write_result(
        NAME,
        command=command_line(NAME, quick, data=data, checkpoint=str(checkpoint)),
        seed=SEEDS[0],
        rows=rows,
        bars=bars_of(rows),
        seconds=seconds,
        quick=quick,
    )
    print(path)


def _few(candidates: int, quick: bool) -> int:
    return 16 if quick else candidates


def searched(config: CompareConfig, folder: Path) -> Comparison:
    """The searches of ``config``, from the folder as far as they have been done before."""
    return compare(config, folder, resume=folder.exists(), progress=ConsoleProgress())


def unseen(budgets: tuple[dict[str, float], ...]) -> list[dict[str, float]]:
    """One budget between each and the next, which lies between those that a search serves too.

    That is every quarter of the way, in factors; three eighths is as far as can be from them.
    """
    return [
        {cost: low[cost] ** (5 / 8) * high[cost] ** (3 / 8) for cost in low}
        for low, high in itertools.pairwise(budgets)
    ]


def row_of(found: Comparison, way: str) -> dict[str, Any]:
    """Medians over seeds."""
    best = [outcome.best_top1(0) or 0.0 for outcome in found.searches]
    return {
        **{f"{cost}_ratio": round(ratio, 4) for cost, ratio in found.budgets[0].items()},
        "search": way,
        "top1_val": statistics.median(best),
        "least": min(best),
        "most": max(best),
        "candidates": statistics.median(outcome.candidates for outcome in found.searches),
    }


def bars_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each budget's two rows against each other."""
    by_way = {
        way: [row["top1_val"] for row in rows if row["search"] == way]
        for way in ("decoded", "dedicated")
    }
    lost = [b - a for a, b in zip(by_way["decoded"], by_way["dedicated"], strict=True)]
    return {"points_below_a_dedicated_search_at_most": at_most(max(lost), 0.3)}


def _seconds(found: Comparison) -> float:
    return sum(outcome.seconds for outcome in found.searches)


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
