"""Windows that slide over an image: how PyTorch's paddings become TensorFlow Lite's.

PyTorch pads both sides alike; TensorFlow Lite knows ``SAME``, which puts the odd row at the end,
and ``VALID``, which pads nothing. Where ``SAME`` gives other windows, rows are added explicitly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw_models.tflite.program import Program, Tensor

SAME, VALID = 0, 1


@dataclass(frozen=True)
class Window:
    """One axis: what slides, and the rows that are added before and after."""

    size: int
    stride: int
    before: int
    after: int
    length: int
    positions: int

    @property
    def same(self) -> bool:
        """Does ``SAME`` place the same windows?"""
        total = max((self.positions - 1) * self.stride + self.size - self.length, 0)
        covers = self.positions == -(-self.length // self.stride)
        return covers and self.before == total // 2


@dataclass(frozen=True)
class Sliding:
    """How a kernel moves: (rows, columns) each, as in the IR."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)


def windows(
    source: tuple[int, ...], result: tuple[int, ...], sliding: Sliding
) -> tuple[Window, Window]:
    """The windows of both axes between two NHWC shapes; rows that none reaches are not added."""
    rows, columns = (_window(source[axis + 1], result[axis + 1], sliding, axis) for axis in (0, 1))
    return rows, columns


def _window(length: int, positions: int, sliding: Sliding, axis: int) -> Window:
    size = (sliding.kernel[axis] - 1) * sliding.dilation[axis] + 1
    stride, before = sliding.stride[axis], sliding.padding[axis]
    after = max((positions - 1) * stride + size - length - before, 0)
    return Window(size, stride, before, after, length, positions)


def pad(
    program: Program,
    source: int,
    amounts: tuple[tuple[int, int], ...],
    lowest: int | None = None,
    output: int | None = None,
) -> int:
    """Add zeros around a tensor, or the code ``lowest``; ``amounts`` per axis, batch first."""
    name = program.tensors[source].name
    if output is None:
        shape = tuple(
            length + sum(sides)
            for length, sides in zip(program.shape(source), amounts, strict=True)
        )
        output = program.activation(f"{program.owner}/pad", shape, program.grid(source))
    table = program.integers(f"{program.owner}/{name}/paddings", amounts)
    if lowest is None:
        return program.emit("PAD", (source, table), output, "PadOptions")
    grid = program.grid(source)
    code = np.asarray(lowest, np.int8)
    value = program.add(
        Tensor(f"{program.owner}/value", (), "int8", (grid.scale,), grid.zero_point, data=code)
    )
    return program.emit("PADV2", (source, table, value), output, "PadV2Options")


def pad_windows(
    program: Program, source: int, both: tuple[Window, Window], lowest: int | None = None
) -> int:
    """Add the rows and columns that the windows of an image reach beyond it."""
    rows, columns = both
    around = ((0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0))
    return pad(program, source, around, lowest)


def place(
    program: Program, source: int, both: tuple[Window, Window], lowest: int | None = None
) -> tuple[int, int]:
    """Pad where ``SAME`` will not do; returns the tensor to read and the padding to state."""
    if not any(axis.before or axis.after for axis in both):
        return source, VALID
    if all(axis.same for axis in both):
        return source, SAME
    return pad_windows(program, source, both, lowest), VALID
