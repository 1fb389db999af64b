"""The files that tell of a comparison: a table in two formats, a page, a picture."""

from __future__ import annotations

import io
from pathlib import Path

from ajpq.comparing.standings import Comparison
from ajpq.files import write_atomically
from ajpq.reporting.compare_charts import (
    COST,
    IMAGES,
    REWARD,
    TOP1,
    comparison_figure,
    front_series,
    plotly_chart,
    reward_series,
)
from ajpq.reporting.compare_table import cells, csv, headings, markdown, note
from ajpq.reporting.page import Section, figure_json, rendered


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write ``compare.csv``, ``compare.md``, ``compare.html`` and ``compare.png``."""
    picture = io.BytesIO()
    comparison_figure(comparison, picture)
    for name, content in (
        ("compare.csv", csv(comparison).encode()),
        ("compare.md", markdown(comparison).encode()),
        ("compare.html", _page(folder, comparison).encode()),
        ("compare.png", picture.getvalue()),
    ):
        write_atomically(folder / name, content)


def _page(folder: Path, comparison: Comparison) -> str:
    return rendered(
        "compare.html.j2",
        name=folder.resolve().name,
        facts=_facts(comparison),
        note=note(comparison),
        headings=headings(comparison),
        rows=cells(comparison),
        sections=_sections(comparison),
        command=_text(folder / "command.txt").strip(),
        config=_text(folder / "config.yaml"),
        versions=comparison.versions,
    )


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    seeds = dict.fromkeys(str(outcome.seed) for outcome in comparison.searches)
    return [
        ("model", comparison.model),
        ("data", comparison.data),
        ("target", comparison.target),
        ("images per search", f"{comparison.images:,}"),
        ("seeds", ", ".join(seeds)),
    ]


def _sections(comparison: Comparison) -> list[Section]:
    front = plotly_chart(front_series(comparison), COST, TOP1, points=True)
    reward = plotly_chart(reward_series(comparison), IMAGES, REWARD)
    return [
        Section(
            "front",
            "Accuracy against cost",
            "The best accuracy of a measured policy that costs no more. Line: median of the seeds;"
            " band: worst to best; it begins where every seed has a policy.",
            figure_json(front),
        ),
        Section(
            "rewards",
            "Reward against cost of the search",
            "The best reward so far on the search images, averaged over the budgets. Images are"
            " counted once when shown, three times when trained on, sensitivities included.",
            figure_json(reward),
        ),
    ]
