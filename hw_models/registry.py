"""Targets by name, by file, by class, and from installed packages."""

from __future__ import annotations

import importlib.metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hw_models.analytic.bismo import Bismo
from hw_models.analytic.bitfusion import BitFusion
from hw_models.analytic.mpic import Mpic
from hw_models.analytic.ne16 import Ne16
from hw_models.analytic.roofline import Roofline
from hw_models.base import Target
from hw_models.device_lut import DeviceLut
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.ethos_u import EthosU
from hw_models.host_cpu import HostCpu
from hw_models.plain import clipped, parsed_yaml, read_text, shown
from hw_models.plugins import is_object_spec, load_object
from hw_models.size_only import SizeOnly

ENTRY_POINTS = "ajpq.hw_models"
SUFFIXES = (".yaml", ".yml")
FAMILIES: dict[str, type[Target]] = {
    "bismo": Bismo,
    "bitfusion": BitFusion,
    "device-lut": DeviceLut,
    "ethos-u": EthosU,
    "host-cpu": HostCpu,
    "mpic": Mpic,
    "ne16": Ne16,
    "roofline": Roofline,
    "size-only": SizeOnly,
}


def target_names() -> tuple[str, ...]:
    """The names that need nothing else: shipped files and installed plug-ins, sorted."""
    return tuple(sorted({*_shipped(), *_installed()}))


def load_target(spec: str) -> Target:
    """The target that a user asked for.

    Args:
        spec: a name of :func:`target_names`, ``path/to/file.yaml``, ``layers.csv`` (measured
            layers, :class:`~hw_models.device_lut.DeviceLut`), ``module:Class`` or
            ``path.py:Class`` (the class is called without arguments; an instance is taken as it
            is). An installed plug-in does not hide a shipped name. A name or file may be followed
            by changes to its parameters: ``ethos-u55-128,memory_mode=Sram_Only``.

    Raises:
        UnknownNameError: no such name, or no such family in a file; with the nearest one.
        AjpqError: the file or the class is not what it should be.
    """
    base, *changes = spec.split(",")
    changed = _changes(spec, changes)
    if base in _shipped():
        return _from_text(_shipped()[base], spec, f"target {spec!r}", changed)
    if base.endswith(".csv"):
        name = ",".join([Path(base).stem, *changes])
        return _build(DeviceLut, {"name": name, "table": base, **changed}, base)
    if base.endswith(SUFFIXES):
        return _from_file(Path(base).expanduser(), spec, changed)
    if spec in _installed():
        return _from_entry_point(_installed()[spec])
    if is_object_spec(spec):
        return _as_target(load_object(spec, "target"), spec)
    if base.endswith(".py"):
        raise AjpqError(f"target {spec!r}: which class? Name it as {base}:MyDevice")
    raise UnknownNameError("target", base, target_names())


def _changes(spec: str, changes: list[str]) -> dict[str, Any]:
    """``key=value`` pairs; values are read as YAML, so numbers are numbers."""
    found = {}
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals:
            raise AjpqError(f"target {spec!r}: expected key=value behind a comma, got {text!r}")
        try:
            found[key.strip()] = parsed_yaml(value)
        except ValueError as error:
            raise AjpqError(f"target {spec!r}: {text!r} is not YAML: {error}") from error
    return found


def _shipped() -> dict[str, str]:
    """Name and text of the files in ``configs/targets``."""
    folder = files("configs") / "targets"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text()
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _from_entry_point(point: importlib.metadata.EntryPoint) -> Target:
    try:
        loaded = point.load()
    except Exception as error:  # whatever a package raises when it is imported
        raise AjpqError(f"target {point.name!r} ({point.value}): {_line(error)}") from error
    return _as_target(loaded, point.name)


def _from_file(path: Path, spec: str, changed: dict[str, Any]) -> Target:
    try:
        text = read_text(path)
    except OSError as error:
        raise AjpqError(f"cannot read the target {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AjpqError(f"the target {path} is not a text file") from error
    except ValueError as error:
        raise AjpqError(f"the target {path}: {error}") from error
    name = ",".join([path.stem, *spec.split(",")[1:]])
    return _from_text(text, name, f"target {path}", changed, path.parent)


def _from_text(
    text: str, name: str, label: str, changed: dict[str, Any], folder: Path | None = None
) -> Target:
    """``folder``: where the files are that the text names."""
    try:
        content = parsed_yaml(text)
    except ValueError as error:
        raise AjpqError(f"{label} is not YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("family"), str):
        raise AjpqError(f"{label}: expected a mapping with the key 'family'")
    family = content.pop("family")
    if family not in FAMILIES:
        raise UnknownNameError("target family", family, FAMILIES)
    if folder is not None and isinstance(content.get("table"), str):
        content["table"] = folder / Path(content["table"]).expanduser()
    return _build(FAMILIES[family], {"name": name, **content, **changed}, label)


def _build(family: type[Target], parameters: dict[Any, Any], label: str) -> Target:
    try:
        return family(**parameters)
    except ValidationError as error:
        first = error.errors()[0]
        where = clipped(".".join(map(str, first["loc"])))
        message = first["msg"].removeprefix("Value error, ")
        if not where:  # said by the family itself, of more than one parameter
            raise AjpqError(f"{label}: {message}") from error
        given = "" if first["type"] == "missing" else f", got {shown(first['input'])}"
        raise AjpqError(f"{label}: {where}: {message}{given}") from error
    except TypeError as error:
        raise AjpqError(f"{label}: {_line(error)}") from error


def _as_target(loaded: object, spec: str) -> Target:
    """An instance of whatever a plug-in offers."""
    label = f"target {spec!r}"
    if isinstance(loaded, type) and issubclass(loaded, Target):
        try:
            loaded = loaded()
        except Exception as error:  # the user's constructor
            raise AjpqError(f"{label}: {_line(error)}") from error
    if not isinstance(loaded, Target):
        raise AjpqError(f"{label} is not a subclass of hw_models.base.Target: {loaded!r}")
    if not isinstance(getattr(loaded, "name", None), str):
        raise AjpqError(f"{label} has no name; set the class attribute 'name'")
    for attribute in ("weight_bits", "activation_bits"):
        _check_widths(loaded, attribute, label)
    return loaded


def _check_widths(target: Target, attribute: str, label: str) -> None:
    widths = getattr(target, attribute)
    known = getattr(Target, attribute)
    if not isinstance(widths, tuple) or not widths or not set(widths) <= set(known):
        raise AjpqError(f"{label}: expected {attribute} as a tuple out of {known}, got {widths!r}")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
