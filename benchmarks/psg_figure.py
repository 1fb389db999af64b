"""The picture of ``benchmarks/psg.py``: accuracy against bits and sparsity, and what weights do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ajpq.reporting.style import BLUE, GREY, ORANGE, RED

LINES = (
    ("checkpoint", "checkpoint", GREY, ":"),
    ("sgd", "SGD", ORANGE, "--"),
    ("psg", "PSG", BLUE, "-"),
    ("straight_through", "straight-through", RED, "-."),
    ("sgd_tuned", "SGD, the best decay for each", ORANGE, ":"),
    ("psg_tuned", "PSG, the best decay for each", BLUE, ":"),
)
PANELS = (
    ("bit per channel", "weight bits, a grid per channel"),
    ("bit per tensor", "weight bits, a grid per tensor"),
    ("of the weights pruned", "share of the weights pruned"),
    ("of the channels pruned", "share of the channels pruned"),
)


def psg_figure(
    rows: Sequence[Mapping[str, Any]],
    histograms: Mapping[str, tuple[Tensor, Tensor]],
    path: Path,
) -> Path:
    """Four panels of accuracy and one histogram for each of ``histograms`` (before, after)."""
    figure = Figure(figsize=(13, 7), dpi=140, layout="constrained")
    axes = figure.subplots(2, 3)
    places = [axes[0, 0], axes[0, 1], axes[1, 0], axes[1, 1]]
    for panel, (ending, label) in zip(places, PANELS, strict=True):
        _draw(panel, [row for row in rows if row["setting"].endswith(ending)], label)
    for panel, (title, (before, after)) in zip(axes[:, 2], histograms.items(), strict=False):
        _draw_histogram(panel, title, before, after)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return path


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], label: str) -> None:
    ticks = [str(row["setting"]).split()[0] for row in rows]
    for key, name, color, style in LINES:
        if all(key in row for row in rows):
            values = [row[key] for row in rows]
            axes.plot(ticks, values, style, color=color, label=name, marker="o", markersize=4)
    axes.set(xlabel=label, ylabel="top-1 on test images, %")
    axes.grid(color="#e4e8ec", linewidth=0.6)
    axes.legend(frameon=False)


def _draw_histogram(axes: Axes, title: str, before: Tensor, after: Tensor) -> None:
    reach = float(before.abs().quantile(0.995))
    for values, color, name in ((before, GREY, "before"), (after, BLUE, "after")):
        axes.hist(values.clamp(-reach, reach).numpy(), bins=151, color=color, alpha=0.6, label=name)
    axes.set(xlabel=title, ylabel="weights")
    axes.set_yticks([])
    axes.legend(frameon=False)
