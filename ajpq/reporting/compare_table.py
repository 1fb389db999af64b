"""The standings of a comparison as text: cells, Markdown, and one CSV row per search."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ajpq.comparing.standings import Comparison, Spread, Standing, standings, volume_of
from ajpq.reporting.style import duration

_NOTHING = "none"


def budget_name(bounds: Mapping[str, float]) -> str:
    """``latency 0.7, size 0.1``."""
    return ", ".join(f"{cost} {bound:.3g}" for cost, bound in bounds.items())


def headings(comparison: Comparison) -> list[str]:
    """Of :func:`cells`."""
    best = [f"top-1 % at {budget_name(bounds)}" for bounds in comparison.budgets]
    return ["searcher", "candidates", "images", "hypervolume", *best, "time"]


def cells(comparison: Comparison) -> list[list[str]]:
    """One row per searcher: medians over seeds, with least and largest where they say most."""
    return [_row(standing) for standing in standings(comparison)]


def _row(standing: Standing) -> list[str]:
    volume = standing.hypervolume
    return [
        standing.agent,
        f"{standing.candidates:,.0f}",
        f"{standing.images:,.0f}",
        f"{_number(volume.median)} ({_number(volume.least)} to {_number(volume.most)})",
        *(_top1(spread) for spread in standing.best_top1),
        duration(standing.seconds),
    ]


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"


def _top1(spread: Spread) -> str:
    return _number(spread.median)


def note(comparison: Comparison) -> str:
    """What the numbers of the table are."""
    drop, ratio = comparison.reference
    seeds = len({outcome.seed for outcome in comparison.searches})
    return (
        f"Medians over {seeds} seeds of the searcher, of one that draws nothing its only search;"
        f" hypervolume with the least and the largest."
        f" Top-1 is that of the best policy within a budget, measured exactly on the whole"
        f" validation split, where the uncompressed network has {comparison.baseline_top1:.2f} %;"
        f" nothing was fine-tuned, and no test image looked at. Hypervolume is the area that the"
        f" measured policies are better than, in points of top-1 lost times cost ratio, up to"
        f" {drop:g} points and a ratio of {ratio:g}. Time is wall clock until the last candidate."
    )


def markdown(comparison: Comparison) -> str:
    """The table, and what it says."""
    titles = headings(comparison)
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *cells(comparison)]
    table = "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)
    return f"{table}\n\n{note(comparison)}\n"


def _plain(cell: str) -> str:
    """A file may have a name that a table cannot hold."""
    return cell.replace("\n", " ").replace("|", "\\|")


def csv(comparison: Comparison) -> str:
    """One row per search, with numbers as they are."""
    rows = [
        {
            "agent": outcome.agent,
            "seed": outcome.seed,
            "candidates": outcome.candidates,
            "images": outcome.images,
            "seconds": outcome.seconds,
            "hypervolume": volume_of(outcome, comparison.reference),
            **{
                f"best_top1 {budget_name(bounds)}": outcome.best_top1(number)
                for number, bounds in enumerate(comparison.budgets)
            },
        }
        for outcome in comparison.searches
    ]
    return str(pd.DataFrame(rows).to_csv(index=False))
