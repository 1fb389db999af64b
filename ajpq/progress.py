"""What a user sees while a search runs. The API is silent unless it is given one of these."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table

from ajpq.finetune.tuning import Watch
from ajpq.limits import METRICS

if TYPE_CHECKING:
    from envs.budget import Budget

# Without a terminal (a log file) one line a minute is enough.
_LOG_EVERY_S = 60.0


class Progress(Protocol):
    """Receives what happens during a search."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        """A part of the work, from enter to exit."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def base_step(self, step: int, total: int, loss: float) -> None:
        """One step of training the uncompressed network."""

    def candidate(self, done: int, total: int, best: dict[str, Any], budget: Budget) -> None:
        """One more candidate; ``best`` is the best journal entry so far."""

    def training_step(self, label: str, step: int, total: int, loss: float) -> None:
        """One step of fine-tuning."""

    def part(self, label: str, done: int, total: int) -> None:
        """``done`` of several equal parts are done; ``label`` says where the next one is."""

    def watch(self, label: str) -> Watch:
        """Reports a compression's steps under ``label``."""

    def result(self, result: dict[str, Any], budget: Budget | None) -> None:
        """The end, with the content of ``result.json`` and what was asked, if anything was."""


class SilentProgress:
    """Says nothing."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        """Nothing."""
        return contextlib.nullcontext()

    def note(self, text: str) -> None:
        """Nothing."""

    def base_step(self, step: int, total: int, loss: float) -> None:
        """Nothing."""

    def candidate(self, done: int, total: int, best: dict[str, Any], budget: Budget) -> None:
        """Nothing."""

    def training_step(self, label: str, step: int, total: int, loss: float) -> None:
        """Nothing."""

    def part(self, label: str, done: int, total: int) -> None:
        """Nothing."""

    def watch(self, label: str) -> Watch:
        """A watch that reports nothing."""
        return Watch()

    def result(self, result: dict[str, Any], budget: Budget | None) -> None:
        """Nothing."""


class ConsoleProgress:
    """Progress bars in a terminal, sparse lines in a log file."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bars: RichProgress | None = None
        self._tasks: dict[str, Any] = {}
        self._last_line = 0.0

    def note(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, markup=False, highlight=False)

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Announce the phase; bars inside it disappear at its end."""
        self.console.print(f"[bold]{title}[/bold]")
        self._bars = RichProgress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._tasks = {}
        with self._bars:
            yield
        self._bars = None

    def base_step(self, step: int, total: int, loss: float) -> None:
        """One step of training the uncompressed network."""
        self.training_step("training the network", step, total, loss)

    def training_step(self, label: str, step: int, total: int, loss: float) -> None:
        """One step of fine-tuning."""
        self._show(label, step, total, f"{label}  loss {loss:.3f}")

    def part(self, label: str, done: int, total: int) -> None:
        """One bar over all parts."""
        self._show("parts", done, total, label)

    def candidate(self, done: int, total: int, best: dict[str, Any], budget: Budget) -> None:
        """One more candidate, and the best so far."""
        from ajpq.evaluate import Metrics

        metrics = Metrics.model_validate(best["metrics"])
        ratios = ", ".join(f"{name} {value:.3f}" for name, value in budget.ratios(metrics).items())
        self._show(
            "candidates", done, total, f"best so far: top-1 {metrics.top1_val:.2f} %, {ratios}"
        )

    def watch(self, label: str) -> Watch:
        """Reports a compression's steps under ``label``."""
        return Watch(
            on_step=lambda _, step, total, loss: self.training_step(label, step, total, loss)
        )

    def _show(self, label: str, step: int, total: int, text: str) -> None:
        if self._bars is None:
            return
        if not self.console.is_terminal:
            self._log(text, step, total)
            return
        if label not in self._tasks:  # several may be under way at the same time
            self._tasks[label] = self._bars.add_task(text, total=total)
        self._bars.update(self._tasks[label], completed=step, description=text)

    def _log(self, text: str, step: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line >= _LOG_EVERY_S or step == total:
            self._last_line = now
            self.console.print(f"  {step}/{total}  {text}")

    def result(self, result: dict[str, Any], budget: Budget | None) -> None:
        """Baseline against found, and whether the budget holds."""
        self.console.print(result_table(result))
        for line in budget_lines(result, budget) if budget is not None else []:
            self.console.print(line)


def result_table(result: dict[str, Any]) -> Table:
    """Baseline against found; ratios say how many times smaller or faster."""
    table = Table(title=f"target {result['target']}, seed {result['seed']}")
    for heading in ("", "baseline", "found", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    base, found = result["baseline"], result["found"]
    for key, title in (("top1_test", "top-1 test %"), ("top1_val", "top-1 validation %")):
        table.add_row(
            title, f"{base[key]:.2f}", f"{found[key]:.2f}", f"{found[key] - base[key]:+.2f}"
        )
    if found.get("top1_test_full_precision") is not None:
        full = found["top1_test_full_precision"]
        table.add_row("  same weights, uncompressed", "", f"{full:.2f}", "")
    _ratio_row(table, "device latency ms", base["latency_s"], found["latency_s"], 1e3)
    _ratio_row(table, "packed file kB", base["packed_bytes"], found["packed_bytes"], 1e-3)
    _ratio_row(table, "device flash kB", base["flash_bytes"], found["flash_bytes"], 1e-3)
    sram = "peak_activation_bytes"
    _ratio_row(table, "device SRAM kB", base.get(sram), found.get(sram), 1e-3)
    _ratio_row(table, "device energy uJ", base.get("energy_j"), found.get("energy_j"), 1e6)
    for name in ("fl32", "fl8", "all"):
        _ratio_row(table, f"MBOPs ({name})", base["bops"][name], found["bops"][name], 1e-6)
    _ratio_row(table, "MMACs", base["macs"], found["macs"], 1e-6)
    return table


def _ratio_row(
    table: Table, title: str, base: float | None, found: float | None, unit: float
) -> None:
    if base is None or found is None:
        return
    table.add_row(
        title,
        f"{base * unit:,.3f}",
        f"{found * unit:,.3f}",
        f"{base / found:.2f}x" if found else "",
    )


def budget_lines(result: dict[str, Any], budget: Budget) -> list[str]:
    """One line per bound: what was asked, what was reached."""
    base, found = result["baseline"], result["found"]
    lines = []
    for name, bound in budget.bounds.items():
        reached = found[METRICS[name]] / budget.reference[name]
        verdict = "met" if reached <= bound else "[red]not met[/red]"
        lines.append(f"{name} ratio {reached:.4f}, bound {bound:.4g}: {verdict}")
    if budget.max_drop is not None:
        drop = base["top1_val"] - found["top1_val"]
        verdict = "met" if drop <= budget.max_drop else "[red]not met[/red]"
        lines.append(f"drop {drop:.2f} points on validation, bound {budget.max_drop:g}: {verdict}")
    return lines
