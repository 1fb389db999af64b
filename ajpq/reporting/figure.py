"""One picture of a search for a README or a paper."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ajpq.policy import CompressionPolicy
from ajpq.reporting.record import RunRecord, read_run, width_counts
from ajpq.reporting.style import BLUE, GREY, ORANGE, RED, WIDTH_COLORS, width_name


def search_figure(run_dir: Path, path: Path | None = None) -> Path:
    """Two panels: accuracy against bytes, and the bit-width map.

    Args:
        path: PNG file to write; default ``search.png`` in the run folder.

    Raises:
        AjpqError: no such folder, or a damaged file in it.
    """
    run = read_run(run_dir)
    path = path or run_dir / "search.png"
    figure = Figure(figsize=(11, 4.6), dpi=160, layout="constrained")  # no global pyplot state
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    _draw_trade_off(left, run)
    if run.policy is not None:
        _draw_widths(right, run.policy)
    figure.savefig(path)
    return path


def _draw_trade_off(axes: Axes, run: RunRecord) -> None:
    known = [p for p in run.points if p.packed_bytes is not None]
    for on_front, color, size, name in ((False, GREY, 12, "candidate"), (True, BLUE, 30, "front")):
        points = [p for p in known if p.on_front == on_front]
        if not points:
            continue
        x = [(p.packed_bytes or 0) / 1e3 for p in points]
        y = [p.top1_val for p in points]
        axes.scatter(x, y, s=size, color=color, label=name, linewidths=0)
    for side, color, marker in (("baseline", ORANGE, "D"), ("found", RED, "*")):
        stored, top1 = run.metric(side, "packed_bytes"), run.metric(side, "top1_val")
        if stored is not None and top1 is not None:
            area = 60 if marker == "D" else 180
            axes.scatter([stored / 1e3], [top1], s=area, color=color, marker=marker, label=side)
    if axes.collections:  # an empty panel has no logarithms
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend(frameon=False)
    axes.set(xlabel="packed file, kB", ylabel="top-1 on validation images, %")
    axes.grid(color="#e4e8ec", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_widths(axes: Axes, policy: CompressionPolicy) -> None:
    names = list(policy.layers)
    start = [0] * len(names)
    for bits, counts in width_counts(policy).items():
        axes.barh(names, counts, left=start, color=WIDTH_COLORS[bits], label=width_name(bits))
        start = [a + b for a, b in zip(start, counts, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("output channels")
    axes.tick_params(axis="y", labelsize=max(4, min(9, 180 // len(names))), length=0)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a layer's name is not a formula
    axes.legend(frameon=False, fontsize=8, loc="best")
