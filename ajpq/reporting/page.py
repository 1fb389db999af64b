"""The report page: one HTML file that needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ajpq.files import write_atomically
from ajpq.reporting.charts import (
    latency_chart,
    reward_chart,
    seconds_chart,
    trade_off_chart,
    width_chart,
)
from ajpq.reporting.record import RunRecord, read_run
from ajpq.reporting.style import duration, percent, points_change, quantity, ratio

_CONVENTIONS = (
    ("fl32", "BOPs, first and last layer at 32 bit"),
    ("fl8", "BOPs, first and last layer at 8 bit"),
    ("all", "BOPs, as quantized"),
)


@dataclass(frozen=True)
class Row:
    """One line of the headline table, ready to print."""

    label: str
    baseline: str
    found: str
    change: str


@dataclass(frozen=True)
class Section:
    """One chart of the page; ``figure`` is JSON that is safe inside a script element."""

    name: str
    title: str
    note: str
    figure: str


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder, finished or not.

    Raises:
        AjpqError: no such folder, or a damaged file in it.
    """
    run = read_run(run_dir)
    path = run_dir / "report.html"
    write_atomically(path, _render(run).encode())
    return path


def _render(run: RunRecord) -> str:
    return rendered(
        "report.html.j2",
        run=run,
        rows=headline(run),
        facts=_facts(run),
        sections=_sections(run),
        versions=dict(run.result.get("versions") or {}),
    )


def rendered(template: str, **content: Any) -> str:
    """A page that needs no network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ajpq", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(plotly=get_plotlyjs(), **content)


def headline(run: RunRecord) -> list[Row]:
    """Baseline against found; empty while the run has no result."""
    if not run.result:
        return []
    rows = [_accuracy("Top-1, test images", run, "top1_test")]
    if run.metric("found", "top1_test_full_precision") is not None:
        full = run.metric("found", "top1_test_full_precision")
        before = run.metric("baseline", "top1_test")
        label = "… same weights at full precision"
        rows.append(Row(label, percent(before), percent(full), points_change(before, full)))
    rows.append(_accuracy("Top-1, validation images", run, "top1_val"))
    before, after = run.metric("baseline", "latency_s"), run.metric("found", "latency_s")
    latency = ratio(before, after)
    rows.append(Row("Latency on the device", duration(before), duration(after), latency))
    rows.append(_cost("Packed file", run, "B", "packed_bytes"))
    rows.append(_cost("Flash on the device", run, "B", "flash_bytes"))
    if run.metric("found", "peak_activation_bytes") is not None:
        rows.append(_cost("SRAM for activations", run, "B", "peak_activation_bytes"))
    if run.metric("found", "energy_j") is not None:
        rows.append(_cost("Energy per image", run, "J", "energy_j"))
    rows += [_cost(label, run, "", "bops", key) for key, label in _CONVENTIONS]
    return [*rows, _cost("MACs", run, "", "macs")]


def _accuracy(label: str, run: RunRecord, key: str) -> Row:
    before, after = run.metric("baseline", key), run.metric("found", key)
    return Row(label, percent(before), percent(after), points_change(before, after))


def _cost(label: str, run: RunRecord, unit: str, *path: str) -> Row:
    before, after = run.metric("baseline", *path), run.metric("found", *path)
    return Row(label, quantity(before, unit), quantity(after, unit), ratio(before, after))


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    """Short facts under the title."""
    seconds = run.result.get("seconds")
    facts = [
        ("target", run.result.get("target")),
        ("candidates", len(run.candidates) or len(run.points) or None),
        ("recipe", run.recipe),
        ("seed", run.result.get("seed")),
        ("took", duration(seconds) if seconds is not None else None),
        ("policy", run.policy.hash if run.policy else None),
    ]
    return [(label, str(value)) for label, value in facts if value is not None]


def _sections(run: RunRecord) -> list[Section]:
    candidates = [
        (
            "size",
            "Accuracy against size",
            "Every candidate of the search. The front holds those that no other beats in accuracy,"
            " latency and size at once. Hover to see the hash of a policy.",
            trade_off_chart(run, "packed_bytes", "packed file, kB", 1e-3),
        ),
        (
            "latency",
            "Accuracy against latency",
            "Latency of one image as the target's cost model gives it; the baseline is the unpruned"
            " int8 network.",
            trade_off_chart(run, "latency_s", "latency, ms", 1e3),
        ),
        (
            "widths",
            "Bit-widths per layer",
            "How many output channels of every layer are stored at which width; grey ones are"
            " pruned.",
            width_chart(run.policy) if run.policy else None,
        ),
        (
            "layers",
            "Latency per layer",
            "Where the time goes on the device, before and after; only what takes a hundredth of"
            " either network or more.",
            latency_chart(run),
        ),
        (
            "reward",
            "Reward",
            "What the agent was given for every candidate.",
            reward_chart(run),
        ),
        ("seconds", "Time per candidate", "Seconds of wall clock.", seconds_chart(run)),
    ]
    return [
        Section(name, title, note, figure_json(figure))
        for name, title, note, figure in candidates
        if figure is not None
    ]


def figure_json(figure: go.Figure) -> str:
    """JSON that cannot end the script element it stands in."""
    text: str = figure.to_json()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
