"""Colours and number formats. The colours stay apart for colour-blind readers and in grey."""

from __future__ import annotations

BLUE, ORANGE, RED, GREY = "#0072b2", "#e69f00", "#d55e00", "#9aa5b1"
SERIES = (BLUE, ORANGE, "#009e73", "#cc79a7", RED, "#56b4e9", "#16161d", "#8c6d31")
"""For lines that have to be told apart; after Okabe and Ito."""

WIDTH_COLORS = {
    0: "#d5d9de",
    2: "#fde725",
    3: "#a0da39",
    4: "#4ac16d",
    5: "#1fa187",
    6: "#277f8e",
    7: "#365c8d",
    8: "#46327e",
    32: "#16161d",
}
"""Grey for pruned, then viridis from light (few bits) to dark, black for float."""


def width_name(bits: int) -> str:
    """How a legend calls a width."""
    return {0: "pruned", 32: "32 bit (float)"}.get(bits, f"{bits} bit")


def quantity(value: float | None, unit: str) -> str:
    """Three or four digits with a decimal prefix: ``26.3 kB``, ``412 µs``."""
    if value is None:
        return "n/a"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}".rstrip()


def duration(seconds: float | None) -> str:
    """``412 µs``, ``1.53 ms``, ``2.1 s``, ``5 min 3 s``."""
    if seconds is None:
        return "n/a"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.4g} {unit}"
    return f"{seconds:.3g} s"


def percent(value: float | None) -> str:
    """``91.42 %``."""
    return "n/a" if value is None else f"{value:.2f} %"


def ratio(before: float | None, after: float | None) -> str:
    """How many times less: ``10.4x less``."""
    if not before or not after:
        return "n/a"
    times = before / after
    return f"{times:.3g}x less" if times >= 1 else f"{1 / times:.3g}x more"


def points_change(before: float | None, after: float | None) -> str:
    """Change of an accuracy in percent points: ``-0.36 points``."""
    if before is None or after is None:
        return "n/a"
    change = round(after - before, 2)
    return f"{change:+.2f} points"
