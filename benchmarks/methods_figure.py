"""The picture of ``benchmarks/methods.py``: accuracy by width, and accuracy against size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ajpq.reporting.style import BLUE, GREY, ORANGE, RED

Looks = Mapping[str, Mapping[str, Any]]
"""Method -> colour and marker."""

WIDTHS = ("W4A4", "W3A3", "W2A2")
NEAR = 0.2, 0.15  # as a share of the size, and in points
MARKERS = "os^"  # where colours begin again
COLORS = (BLUE, ORANGE, RED, "#3f8f5f", "#7a5aa8", "#8c6d46", "#2f9aa0")


def methods_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Two panels of the rows on ResNet-20."""
    own = [row for row in rows if row["network"] == "resnet20"]
    methods = list(dict.fromkeys(row["method"] for row in own))
    looks = {
        name: {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place // len(COLORS)]}
        for place, name in enumerate(methods)
    }
    figure = Figure(figsize=(12, 4.6), dpi=140, layout="constrained")
    widths, sizes = figure.subplots(1, 2)
    _by_width(widths, own, looks)
    _by_size(sizes, own, looks)
    for panel in (widths, sizes):
        for top1 in {row["baseline_top1_test"] for row in own}:
            panel.axhline(top1, color=GREY, linestyle=":", linewidth=1)
        panel.set_ylabel("top-1 on test images, %")
        panel.grid(color="#e4e8ec", linewidth=0.6)
        panel.legend(frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return path


def _by_width(axes: Axes, rows: Sequence[Mapping[str, Any]], looks: Looks) -> None:
    for name, look in looks.items():
        found = {row["bits"]: row["top1_test"] for row in rows if row["method"] == name}
        own = [bits for bits in WIDTHS if bits in found]
        if own:
            places = [WIDTHS.index(bits) for bits in own]
            axes.plot(places, [found[b] for b in own], "-", label=name, markersize=4, **look)
    axes.set_xticks(range(len(WIDTHS)), WIDTHS)
    axes.set_xlabel("bits of weights and activations; dotted: the checkpoint")


def _by_size(axes: Axes, rows: Sequence[Mapping[str, Any]], looks: Looks) -> None:
    for name, look in looks.items():
        own = [row for row in rows if row["method"] == name]
        points = [(row["times_smaller"], row["top1_test"]) for row in own]
        axes.plot(*zip(*points, strict=True), linestyle="", label=name, **look)
    for label, point in _labels(rows):
        axes.annotate(label, point, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 6, 8)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("times smaller on disk than float32")


def _labels(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[float, float]]]:
    """Widths and where to write them: of neighbours with the same ones only at the best."""
    found: list[tuple[str, tuple[float, float]]] = []
    for row in sorted(rows, key=lambda own: -own["top1_test"]):
        label, size = row["bits"], row["times_smaller"]
        top1, (near, points) = row["top1_test"], NEAR
        if not any(
            own == label and abs(at[0] - size) < near * size and at[1] - top1 < points
            for own, at in found
        ):
            found.append((label, (size, top1)))
    return found
