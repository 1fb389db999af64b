"""Operators that move and pick codes."""

from __future__ import annotations

import numpy as np

from hw_models.tflite import layers
from hw_models.tflite.program import Program, Site
from hw_models.tflite.windows import pad


def concat(site: Site) -> None:
    """``concat``; channels are the last axis."""
    fields = {"Axis": len(site.program.shape(site.out)) - 1}
    site.program.emit("CONCATENATION", site.sources, site.out, "ConcatenationOptions", fields)


def select(site: Site) -> None:
    """``select``: one run of channels, zeros around it, is cut and padded; others are multiplied.

    A product with a matrix of zeros and ones costs a device less than many slices do.
    """
    program = site.program
    index = np.asarray(site.operator.attributes["index"], np.int64)
    live = np.flatnonzero(index >= 0)
    if len(live) and np.array_equal(index[live[0] : live[-1] + 1], index[live[0]] + _count(live)):
        _cut(site, int(index[live[0]]), len(live), int(live[0]))
        return
    rows = layers.selection_rows(index, program.shape(site.source)[-1])
    if len(program.shape(site.out)) == 4:
        layers.convolve(program, rows, site.source, site.out)
    else:
        layers.multiply(program, layers.flat(rows), site.source, site.out)


def _count(live: np.ndarray) -> np.ndarray:
    return np.arange(live[-1] - live[0] + 1)


def _cut(site: Site, first: int, count: int, before: int) -> None:
    """Channels ``first`` to ``first + count``, with zero channels around them."""
    program = site.program
    shape = program.shape(site.source)
    after = program.shape(site.out)[-1] - before - count
    padded = bool(before or after)
    part = site.source
    if count < shape[-1]:
        part = _slice(program, part, first, count, None if padded else site.out)
    if padded or part == site.source:
        around = ((0, 0),) * (len(shape) - 1) + ((before, after),)
        pad(program, part, around, output=site.out)


def _slice(program: Program, source: int, first: int, count: int, out: int | None) -> int:
    *outer, _ = program.shape(source)
    if out is None:
        name = f"{program.owner}/slice"
        out = program.activation(name, (*outer, count), program.grid(source))
    begin = program.integers(f"{program.owner}/begin", (*(0 for _ in outer), first))
    size = program.integers(f"{program.owner}/size", (*outer, count))
    return program.emit("SLICE", (source, begin, size), out, "SliceOptions")


def border(site: Site) -> None:
    """``pad``."""
    left, right, top, bottom = site.operator.attributes["padding"]
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    pad(site.program, site.source, around, output=site.out)


def flatten(site: Site) -> None:
    """``flatten``; transposed first if a reader cannot take channels-last order."""
    program, source = site.program, site.source
    shape = site.network.edges[site.operator.inputs[0]].shape
    keeps_order = len(shape) == 1 or shape[1:] == (1, 1)
    if not keeps_order and layers.columns(site.network, site.operator.output) is None:
        order = program.integers(f"{program.owner}/order", (0, 3, 1, 2))
        turned = program.activation(f"{program.owner}/turned", (1, *shape), program.grid(source))
        source = program.emit("TRANSPOSE", (source, order), turned, "TransposeOptions")
    layers.reshape(program, source, site.out)
