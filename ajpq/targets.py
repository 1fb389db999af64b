"""``python -m ajpq.targets``: which devices there are, what is assumed of them, do they work."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ajpq import cli
from ajpq.base import untrained_networks
from ajpq.files import write_atomically
from hw_models.base import Target
from hw_models.contract import findings
from hw_models.device_lut import DeviceLut, to_measure, unmatched
from hw_models.errors import AjpqError
from hw_models.registry import load_target, target_names
from hw_models.trials import forms_of, small_networks

# Shares of the channels that networks keep to see what a device says of pruned ones.
_KEPT = (1.0, 0.75, 0.5, 0.25, 0.0)

Name = Annotated[str, tyro.conf.Positional]


def list_targets() -> None:
    """The devices that need nothing else, shipped and installed."""
    table = Table("target", "weights, bits", "activations, bits", "what it is")
    for name in target_names():
        try:
            found = load_target(name)
        except AjpqError as error:  # one broken plug-in does not hide the others
            table.add_row(name, "", "", escape(str(error)))
            continue
        about = escape(_description(found).partition("\n")[0])
        table.add_row(name, _widths(found.weight_bits), _widths(found.activation_bits), about)
    Console().print(table)


def show(target: Name) -> None:
    """The parameters of a device with their sources.

    Args:
        target: a name, a YAML file, module:Class or path.py:Class.
    """
    found = load_target(target)
    table = Table("parameter", "value", "source", title=found.name)
    sources = getattr(found, "source", {})
    for name, value in _parameters(found).items():
        table.add_row(name, escape(_text(value)), escape(sources.get(name, "")))
    console = Console()
    console.print(table)
    console.print(_description(found), highlight=False, markup=False)


def check(target: Name, model: str | None = None, image_size: int = 32, classes: int = 10) -> None:
    """Try a device on small networks: is every promise of a cost model kept?

    Exits with code 1 if one is not.

    Args:
        target: a name, a YAML file, a table of layers, module:Class or path.py:Class.
        model: try it on this network instead, for a device that knows certain layers only.
        image_size: height and width of the images of that network.
        classes: its number of classes.
    """
    found = load_target(target)
    make, forms = small_networks, []
    if model is not None:
        forms = untrained_networks(model, image_size, classes, _KEPT)
        make = functools.partial(forms_of, forms)
    elif isinstance(found, DeviceLut):
        raise AjpqError(f"{target} knows the layers of its own network only; add --model NAME")
    console, failed = Console(), False
    for finding in findings(found, make):
        mark = "[green]ok[/green]    " if finding.passed else "[red]failed[/red]"
        console.print(f"{mark} {finding.check}: ", end="")
        console.print(finding.detail, markup=False, highlight=False, soft_wrap=True)
        failed |= not finding.passed
    if isinstance(found, DeviceLut):
        rows, free = unmatched(found, forms)
        for what, names in (("rows that nothing uses", rows), ("no row, costs nothing", free)):
            if names:
                console.print(f"[yellow]note[/yellow]   {what}: ", end="")
                console.print("; ".join(names), markup=False, highlight=False, soft_wrap=True)
    if failed:
        sys.exit(1)


def _description(target: Target) -> str:
    return inspect.cleandoc(type(target).__doc__ or "")


def _parameters(target: Target) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if dataclasses.is_dataclass(target):
        own = {field.name: getattr(target, field.name) for field in dataclasses.fields(target)}
    return {
        **{name: value for name, value in own.items() if name not in ("name", "source")},
        "weight_bits": target.weight_bits,
        "activation_bits": target.activation_bits,
        "channel_granularity": target.channel_granularity,
        "width_granularity": target.width_granularity,
        "monotone": target.monotone or "not declared",
        "measured": target.measured,
        "time_limit_s": target.time_limit_s,
    }


def _widths(widths: tuple[int, ...]) -> str:
    return " ".join(map(str, widths))


def _text(value: Any) -> str:
    return f"{value:,g}" if isinstance(value, float) else str(value)


def table(
    model: Name,
    out: Path = Path("layers.csv"),
    image_size: int = 32,
    classes: int = 10,
    channels: int = 4,
    widths: tuple[int, ...] = (8,),
) -> None:
    """Write a CSV file of a network's layers to measure; filled in, it is a target.

    Measure every line on your board, write the microseconds into the last column, then search
    with ``--target layers.csv``.

    Args:
        model: any model name.
        out: the file; an existing one is kept.
        image_size: height and width of the images.
        classes: number of classes.
        channels: how many numbers of channels of each layer, in equal steps up to its own.
        widths: of the weights, where they make a difference.
    """
    if channels < 1 or any(width not in range(2, 9) for width in widths):
        raise AjpqError(f"expected channels >= 1 and widths in 2..8, got {channels=}, {widths=}")
    if out.exists():
        raise AjpqError(f"{out} exists; give another name: --out FILE")
    (whole,) = untrained_networks(model, image_size, classes)
    lines = to_measure(whole, channels, widths)
    write_atomically(out, ("\n".join(lines) + "\n").encode())
    Console().print(f"{out}: {len(lines) - 1} layers to measure", highlight=False, soft_wrap=True)


COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_targets,
    "show": show,
    "check": check,
    "table": table,
}

if __name__ == "__main__":
    cli.run_subcommand(COMMANDS, prog="python -m ajpq.targets")
