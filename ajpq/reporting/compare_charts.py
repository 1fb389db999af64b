"""Charts of a comparison: for every searcher a median over seeds, and a band to both extremes."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ajpq.comparing.staircases import Step, band, corners
from ajpq.comparing.standings import Comparison, front
from ajpq.reporting.charts import empty_figure
from ajpq.reporting.style import SERIES

COST = "mean ratio of the bounded costs"
TOP1 = "top-1 on the validation split, %"
IMAGES = "images spent"
REWARD = "best reward so far, mean over budgets"


@dataclass(frozen=True, eq=False)
class Series:
    """One searcher's staircases: least, median and largest on a common grid.

    Attributes:
        x: ``[n]``, where every seed has begun.
        low, middle, high: ``[n]``.
        points: the steps of all seeds.
    """

    name: str
    color: str
    dash: str
    x: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray
    points: tuple[Step, ...]


def front_series(comparison: Comparison) -> list[Series]:
    """Top-1 against cost ratio, up to the dearest policy that any searcher has measured."""
    found = {name: [front(each) for each in own] for name, own in comparison.by_agent.items()}
    ratios = [policy.ratio for outcome in comparison.searches for policy in outcome.measured]
    return _all_series(found, max(ratios, default=1.0))


def reward_series(comparison: Comparison) -> list[Series]:
    """Best reward so far against images."""
    found = {name: [each.curve for each in own] for name, own in comparison.by_agent.items()}
    most = max(outcome.images for outcome in comparison.searches)
    return _all_series(found, most)


def _all_series(found: Mapping[str, Sequence[Sequence[Step]]], end: float) -> list[Series]:
    return [_series(number, name, own, end) for number, (name, own) in enumerate(found.items())]


def _series(number: int, name: str, own: Sequence[Sequence[Step]], end: float) -> Series:
    grid = corners(own, end)
    values = band(own, grid)
    begun = ~np.isnan(values).any(0)
    low, middle, high = values[:, begun]
    points = tuple(step for steps in own for step in steps)
    color, dash = SERIES[number % len(SERIES)], ("solid", "dash")[number // len(SERIES) % 2]
    return Series(name, color, dash, grid[begun], low, middle, high, points)


def plotly_chart(
    series: Sequence[Series], x_title: str, y_title: str, *, points: bool = False
) -> go.Figure:
    """Lines and bands; with ``points`` the steps of single seeds too."""
    figure = empty_figure(x_title, y_title, height=480)
    for each in series:
        name = html.escape(each.name)
        own = {"legendgroup": name, "hoverinfo": "skip", "showlegend": False, "mode": "lines"}
        edge = {"width": 0, "shape": "hv", "color": each.color}
        figure.add_trace(go.Scatter(x=each.x, y=each.low, line=edge, **own))
        fill = {"fill": "tonexty", "fillcolor": _faint(each.color)}
        figure.add_trace(go.Scatter(x=each.x, y=each.high, line=edge, **fill, **own))
        line = {"color": each.color, "width": 2.5, "shape": "hv", "dash": each.dash}
        figure.add_trace(
            go.Scatter(
                x=each.x,
                y=each.middle,
                mode="lines",
                line=line,
                name=name,
                legendgroup=name,
                hovertemplate=f"{name}<br>%{{y:.5~g}} at %{{x:.5~g}}<extra></extra>",
            )
        )
        if points and each.points:
            x, y = zip(*each.points, strict=True)
            marker = {"color": each.color, "size": 5, "opacity": 0.6}
            own["mode"] = "markers"
            figure.add_trace(go.Scatter(x=x, y=y, marker=marker, **own))
    return figure


def _faint(color: str) -> str:
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def comparison_figure(comparison: Comparison, file: BinaryIO) -> None:
    """Two panels as a PNG file: fronts, and rewards against images."""
    figure = Figure(figsize=(11, 4.6), dpi=160, layout="constrained")  # no global pyplot state
    left, right = figure.subplots(1, 2)
    _draw(left, front_series(comparison), COST, TOP1, points=True)
    _draw(right, reward_series(comparison), IMAGES, REWARD, points=False)
    figure.savefig(file, format="png")


def _draw(axes: Axes, series: Sequence[Series], x: str, y: str, *, points: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    for each in series:
        style = {"solid": "-", "dash": "--"}[each.dash]
        axes.step(each.x, each.middle, style, where="post", color=each.color, label=each.name)
        axes.fill_between(
            each.x, each.low, each.high, step="post", color=each.color, alpha=0.15, linewidth=0
        )
        if points and each.points:
            across, up = zip(*each.points, strict=True)
            axes.scatter(across, up, s=10, color=each.color, linewidths=0)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(color="#e4e8ec", linewidth=0.6)
    axes.set_axisbelow(True)
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)  # a searcher's name is not a formula
