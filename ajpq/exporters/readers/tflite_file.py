"""What a TensorFlow Lite file holds, compiled for an Ethos-U or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from tflite.BuiltinOperator import BuiltinOperator
from tflite.TensorType import TensorType

from ajpq.exporters.readers.content import Content, Tally, plain, product
from ajpq.exporters.readers.flatbuffer import Table, root
from hw_models.errors import AjpqError

METADATA_NAME = b"ajpq"
BUFFERS, METADATA, SLOTS = 4, 6, 8
"""Slots of the table ``Model``, and their number."""
_ETHOS_U = "ethos-u"
_OFFSET_BYTES = 4


def read_tflite(data: bytes) -> Content:
    """Read a ``.tflite`` file.

    Raises:
        AjpqError: damaged, or not understood.
    """
    model = root(data)
    buffers = model.tables(BUFFERS)
    codes = [_code(code) for code in model.tables(1)]
    graphs = model.tables(2)
    if not graphs:
        raise AjpqError("it is no TensorFlow Lite file: it holds no graph")
    tallies = _tallies(graphs, codes, [_stored(buffer) for buffer in buffers], len(data))
    compiled = any(_ETHOS_U in tally.kinds for tally in tallies)
    return Content(
        "TensorFlow Lite, compiled for an Ethos-U" if compiled else "TensorFlow Lite",
        {
            "description": model.text(3),
            "inputs": _ends(graphs[0], 1, len(data)),
            "outputs": _ends(graphs[0], 2, len(data)),
            "metadata": ", ".join(entry.text(0) for entry in model.tables(METADATA)),
        },
        tuple(tally.part for tally in tallies),
        _statement(model, buffers),
    )


def _statement(model: Table, buffers: list[Table]) -> bytes | None:
    for entry in model.tables(METADATA):
        if entry.blob(0) == METADATA_NAME:
            return bytes(_at(buffers, entry.number(1), "buffer").blob(0))
    return None


def _at(tables: list[Table], index: int, what: str) -> Table:
    if not 0 <= index < len(tables):
        raise AjpqError(f"it has no {what} {index}")
    return tables[index]


@cache
def _names(schema: type) -> dict[int, str]:
    return {number: name for name, number in vars(schema).items() if name.isupper()}


def _code(code: Table) -> str:
    """The operator that a code stands for; a custom one goes by the name that the file gives."""
    number = max(code.number(0, "<b"), code.number(3, "<i"))
    return code.text(1) or _names(BuiltinOperator).get(number, f"operator {number}")


def _stored(buffer: Table) -> int:
    if buffer.number(1, "<Q") > 1:
        raise AjpqError("it keeps constants outside of its tables, which is not supported")
    return len(buffer.blob(0))


def _dtype(tensor: Table) -> str:
    number = tensor.number(1, "<b")
    return _names(TensorType).get(number, f"type {number}").lower()


def _ends(graph: Table, slot: int, file_bytes: int) -> str:
    tensors, shown = graph.tables(0), []
    for index in graph.integers(slot)[:16].tolist():
        tensor = _at(tensors, index, "tensor")
        shape = ", ".join(map(str, tensor.integers(0)[:16].tolist()))
        shown.append(f"{tensor.text(3)} {_dtype(tensor)} [{shape}]")
    return ", ".join(shown)


def _tallies(
    graphs: list[Table], codes: list[str], stored: list[int], file_bytes: int
) -> list[Tally]:
    """One per operator, each constant with its first user."""
    found: list[Tally] = []
    left = {number: size for number, size in enumerate(stored) if size}
    work = _Work(file_bytes // _OFFSET_BYTES)
    for graph in graphs:
        tensors, operators = graph.tables(0), graph.tables(3)
        work.spend(len(tensors), [graph, *operators])
        for operator in operators:
            inputs, outputs = operator.integers(1), operator.integers(2)
            work.spend(len(inputs) + len(outputs))
            name = _at(tensors, int(outputs[0]), "tensor").text(3) if len(outputs) else ""
            found.append(Tally(name, [_kind(codes, operator.number(0))]))
            _take(
                [_at(tensors, i, "tensor") for i in inputs[inputs >= 0].tolist()], left, found[-1]
            )
    return found


@dataclass
class _Work:
    """How many tensors, operators and references to them there may be in all: an honest file spends
    four bytes on each, and has a graph or an operator only once."""

    left: int
    seen: set[int] = field(default_factory=set)

    def spend(self, count: int, tables: Sequence[Table] = ()) -> None:
        """Take account of tables that must be new, and of so many other things.

        Raises:
            AjpqError: there are too many for the size of the file.
        """
        places = {table.place for table in tables}
        self.left -= count + len(tables)
        if self.left < 0 or len(places) < len(tables) or not self.seen.isdisjoint(places):
            raise AjpqError("its operators share lists or tables, which is not supported")
        self.seen |= places


def _take(tensors: list[Table], left: dict[int, int], tally: Tally) -> None:
    """Count the constants among the tensors whose buffers are ``left``: number -> bytes."""
    for tensor in tensors:
        size = left.pop(tensor.number(2), 0)
        if size:
            tally.add(_dtype(tensor), product(tensor.integers(0)[:17].tolist(), 8 * size), size)


def _kind(codes: list[str], index: int) -> str:
    if index >= len(codes):
        raise AjpqError(f"it has no operator code {index}")
    return plain(codes[index])
