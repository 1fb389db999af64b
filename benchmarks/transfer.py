"""An agent that has learned on ResNet-20 starts on ResNet-56; neither has a warm start.

Two controllers learn the middle budget of :mod:`benchmarks.search_quality` on edge-npu for the
public ResNet-20, at the cost of 300 plain candidates, from nothing. For the public ResNet-56 one
search starts from their agents and may cost 50, one starts from nothing and may cost 300, and one
from nothing has 50 as well. Both checkpoints have seen the validation images, so rewards count
divergence too. No fine-tuning, no test images.

    make bench NAME=transfer
    python -m benchmarks.transfer --data imagefolder:DIR --small FILE --large FILE
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import cli
from ajpq.comparing.config import CompareConfig
from ajpq.comparing.standings import Comparison
from ajpq.config.files import load_run
from benchmarks.harness import at_least, command_line, write_result
from benchmarks.search_quality import BUDGET_RANGE, KL_WEIGHT, SEEDS, TARGETS
from benchmarks.unseen_budgets import searched

NAME = "transfer"
TARGET = "edge-npu"
COLD = Path(__file__).parent / "agents" / "from_nothing.yaml"
FRESH, STARTED = 300, 50


def main(
    data: str = "cifar10",
    small: str = "public",
    large: str = "public",
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Learn on one network, go on with another, write benchmarks/results/transfer.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        small, large: public, or the files that torch.hub would download for ResNet-20 and -56.
        run_dir: the searches; default runs/transfer.
        quick: few candidates, two seeds.
    """
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    models = {"resnet20": small, "resnet56": large}

    def search(name: str, model: str, candidates: int, **own: Any) -> Comparison:
        few = min(candidates, 8) if quick else candidates
        settings = {"model": model, "checkpoint": models[model], "data": data, **own}
        return searched(config_of(settings, few, quick), folder / name)

    learned = search("learned", "resnet20", FRESH)
    origin = folder / "learned" / f"{COLD.stem}-{learned.searches[0].seed}"
    found = {
        "from ResNet-20's agents": search(
            "started", "resnet56", STARTED, agent_from=str(origin.absolute())
        ),
        "from nothing": search("fresh", "resnet56", FRESH),
        "from nothing, at the same cost": search("short", "resnet56", STARTED),
    }
    rows = [row_of(way, comparison) for way, comparison in found.items()]
    path = write_result(
        NAME,
        command=command_line(NAME, quick, data=data, small=small, large=large),
        seed=SEEDS[0],
        rows=rows,
        bars=bars_of(rows),
        seconds=sum(
            outcome.seconds for own in (learned, *found.values()) for outcome in own.searches
        ),
        quick=quick,
    )
    print(path)


def config_of(settings: dict[str, Any], candidates: int, quick: bool) -> CompareConfig:
    """One budget, one searcher without a warm start."""
    middle = {
        name: None if ratio is None else ratio * BUDGET_RANGE**0.5
        for name, ratio in TARGETS[TARGET].items()
    }
    return load_run(
        CompareConfig,
        "cifar10-resnet20",
        {
            "target": TARGET,
            "kl_weight": KL_WEIGHT,
            "agents": (str(COLD),),
            "seeds": SEEDS[:2] if quick else SEEDS,
            "candidates": candidates,
            **middle,
            **settings,
        },
    )


def row_of(way: str, found: Comparison) -> dict[str, Any]:
    """Medians over seeds."""
    best = [outcome.curve[-1][1] if outcome.curve else -1.0 for outcome in found.searches]
    return {
        "search": way,
        "reward": statistics.median(best),
        "least": min(best),
        "most": max(best),
        "images": found.images,
        "candidates": statistics.median(outcome.candidates for outcome in found.searches),
    }


def bars_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The first row against the second."""
    started, fresh, *_ = (row["reward"] for row in rows)
    return {"reward_beyond_a_fresh_agent_at_least": at_least(started - fresh, 0.0)}


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
