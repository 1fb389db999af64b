"""The plotly charts of the report page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go

from ajpq.policy import CompressionPolicy
from ajpq.reporting.record import Point, RunRecord, width_counts
from ajpq.reporting.style import BLUE, GREY, ORANGE, RED, WIDTH_COLORS, width_name

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def empty_figure(x_title: str, y_title: str, height: int = 420) -> go.Figure:
    """A chart without traces, in the style of the page."""
    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 56, "r": 12, "t": 12, "b": 48},
        font={"family": FONT, "size": 13, "color": "#1f2933"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"font": {"family": FONT}},
        xaxis_title=x_title,
        yaxis_title=y_title,
    )
    return figure


def _scatter(points: Sequence[Point], x: Sequence[float], name: str, marker: dict) -> go.Scatter:
    return go.Scatter(
        x=list(x),
        y=[point.top1_val for point in points],
        mode="markers",
        name=name,
        marker=marker,
        customdata=[html.escape(point.hash) for point in points],
        hovertemplate="%{customdata}<br>%{y:.2f} %, %{x:.5~g}<extra></extra>",
    )


def _star(x: float | None, y: float | None, name: str, color: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=[x],
        y=[y],
        mode="markers",
        name=name,
        marker={"color": color, "size": 14, "symbol": symbol, "line": {"width": 1}},
        hovertemplate=f"{name}<br>%{{y:.2f}} %, %{{x:.5~g}}<extra></extra>",
    )


def trade_off_chart(run: RunRecord, axis: str, unit: str, factor: float) -> go.Figure | None:
    """Validation accuracy against a cost; None if no candidate has this cost.

    Args:
        axis: ``latency_s`` or ``packed_bytes``.
        unit: title of the axis.
        factor: what the stored values are multiplied with.
    """
    known = [p for p in run.points if getattr(p, axis) is not None]
    if not known:
        return None
    figure = empty_figure(unit, "top-1 on validation images, %")
    front = sorted((p for p in known if p.on_front), key=lambda p: getattr(p, axis))
    others = [p for p in known if not p.on_front]
    for points, name, color, size in ((others, "candidate", GREY, 6), (front, "front", BLUE, 9)):
        x = [factor * getattr(p, axis) for p in points]
        opacity = 0.55 if name == "candidate" else 1
        figure.add_trace(
            _scatter(points, x, name, {"color": color, "size": size, "opacity": opacity})
        )
    for side, name, color, symbol in (
        ("baseline", "baseline", ORANGE, "diamond"),
        ("found", "found", RED, "star"),
    ):
        x_value, y_value = run.metric(side, axis), run.metric(side, "top1_val")
        if x_value is not None and y_value is not None:
            figure.add_trace(_star(factor * x_value, y_value, name, color, symbol))
    if axis == "packed_bytes":
        ticks = [digit * 10.0**power for power in range(-3, 8) for digit in (1, 2, 5)]
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return figure


def latency_chart(run: RunRecord) -> go.Figure | None:
    """Two bars per operator, baseline and found; None if the target knows no layers."""
    sides = run.result.get("layer_latencies_s") or {}
    before, after = sides.get("baseline") or {}, sides.get("found") or {}
    if not before or not after:
        return None
    least = [sum(latencies.values()) / 100 for latencies in (before, after)]
    names = [
        name
        for name in before | after
        if before.get(name, 0) >= least[0] or after.get(name, 0) >= least[1]
    ]
    figure = empty_figure("latency, µs", "", height=120 + 30 * len(names))
    for latencies, side, color in ((before, "baseline", ORANGE), (after, "found", RED)):
        figure.add_trace(
            go.Bar(
                y=[html.escape(name) for name in names],
                x=[1e6 * latencies.get(name, 0) for name in names],
                orientation="h",
                name=side,
                marker={"color": color, "line": {"width": 0}},
                hovertemplate="%{y}<br>" + side + " %{x:.4~g} µs<extra></extra>",
            )
        )
    figure.update_layout(barmode="group")
    figure.update_yaxes(autorange="reversed")
    return figure


def width_chart(policy: CompressionPolicy) -> go.Figure:
    """One stacked bar per layer: how many channels have which width."""
    names = [html.escape(name) for name in policy.layers]
    figure = empty_figure("output channels", "", height=120 + 24 * len(names))
    activations = [layer.activation_bits for layer in policy.layers.values()]
    for bits, counts in width_counts(policy).items():
        figure.add_trace(
            go.Bar(
                y=names,
                x=counts,
                orientation="h",
                name=width_name(bits),
                marker={"color": WIDTH_COLORS[bits], "line": {"width": 0}},
                customdata=activations,
                hovertemplate="%{y}<br>%{x} channels: "
                + width_name(bits)
                + "<br>reads activations of %{customdata} bit<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", bargap=0.25, legend_traceorder="normal")
    figure.update_yaxes(autorange="reversed", automargin=True, ticksuffix=" ")
    return figure


def reward_chart(run: RunRecord) -> go.Figure | None:
    """Reward of every candidate and the best one so far; None without a journal."""
    rewards = [(e["index"], e["reward"]) for e in run.candidates if e.get("reward") is not None]
    if not rewards:
        return None
    index, reward = zip(*rewards, strict=True)
    figure = empty_figure("candidate", "reward", height=360)
    marker = {"color": GREY, "size": 5, "opacity": 0.6}
    figure.add_trace(go.Scatter(x=index, y=reward, mode="markers", name="candidate", marker=marker))
    best = list(accumulate(reward, max))
    line = {"color": BLUE, "width": 2.5, "shape": "hv"}
    figure.add_trace(go.Scatter(x=index, y=best, mode="lines", name="best so far", line=line))
    return figure


def seconds_chart(run: RunRecord) -> go.Figure | None:
    """Seconds that every candidate took; None without a journal."""
    known = [e for e in run.candidates if e.get("seconds") is not None]
    if not known:
        return None
    figure = empty_figure("candidate", "seconds", height=360)
    x, y = [e["index"] for e in known], [e["seconds"] for e in known]
    figure.add_trace(go.Bar(x=x, y=y, marker={"color": BLUE}, name="seconds"))
    return figure
