"""What an ONNX file holds: operators, constants and their widths.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx, Apache-2.0). The package onnx
is not needed. A file that keeps tensors in other files is refused: nothing else is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ajpq.exporters.readers.content import Content, Tally, plain, product
from ajpq.exporters.readers.protobuf import Message, parse
from hw_models.errors import AjpqError

METADATA_FIELD, METADATA_KEY = 14, b"ajpq"
_OWNED = "::"  # ajpq names a node after the operator that it belongs to: "conv1::Conv_7"
_DEEPEST = 8  # graphs within graphs
_EXTERNAL = "it keeps tensors in other files, which are not opened"
_UNUSED = "(used by no operator)"
_TYPES = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    16: ("bfloat16", 16),
    21: ("uint4", 4),
    22: ("int4", 4),
    25: ("uint2", 2),
    26: ("int2", 2),
}


def read_onnx(data: bytes) -> Content:
    """Read an ONNX file.

    Raises:
        AjpqError: damaged, no ONNX file, or with tensors in other files.
    """
    model = parse(memoryview(data))
    graphs = list(model.messages(7))
    if len(graphs) != 1:
        raise AjpqError(f"it is no ONNX file: expected one graph, found {len(graphs)}")
    (graph,) = graphs
    if not model.integer(1) or not graph.blobs(1):
        raise AjpqError("it is no ONNX file: it has no version or no operators")
    _refuse_external(model)
    opsets = [f"{m.text(1) or 'ai.onnx'} {m.integer(2)}" for m in model.messages(8)]
    return Content(
        "ONNX",
        {
            "producer": " ".join(filter(None, [model.text(2), model.text(3)])),
            "graph": graph.text(2),
            "operator sets": ", ".join(opsets),
            "inputs": ", ".join(map(_end, graph.messages(11))),
            "outputs": ", ".join(map(_end, graph.messages(12))),
        },
        tuple(tally.part for tally in _tallies(graph, len(data))),
        _statement(model),
    )


def _statement(model: Message) -> bytes | None:
    for entry in model.messages(METADATA_FIELD):
        if entry.keys(1) == [METADATA_KEY]:
            return bytes((entry.blobs(2) or [memoryview(b"")])[-1])
    return None


def _end(value: Message) -> str:
    """An input or output as ``name float32 [N, 3, 32, 32]``."""
    tensors = [tensor for kind in value.messages(2) for tensor in kind.messages(1)]
    if not tensors:
        return value.text(1)
    dims = [dim for shape in tensors[0].messages(2) for dim in shape.messages(1)]
    sizes = ", ".join(dim.text(2) or str(dim.integer(1)) for dim in dims)
    return f"{value.text(1)} {_type(tensors[0].integer(1))[0]} [{sizes}]"


def _type(number: int) -> tuple[str, int]:
    return _TYPES.get(number, (f"type {number}", 0))


def _tallies(graph: Message, file_bytes: int) -> list[Tally]:
    """The nodes by their operator, each constant with its first user."""
    constants = {b"".join(tensor.keys(8)): tensor for tensor in graph.messages(5)}
    found: dict[str, Tally] = {}
    for place, node in enumerate(graph.messages(1)):
        owner = node.text(3).partition(_OWNED)[0] or f"node {place}"
        tally = found.setdefault(owner, Tally(owner))
        tally.kinds.append(".".join(filter(None, [node.text(7), node.text(4)])))
        used = [constants.pop(name) for name in node.keys(1) if name in constants]
        for tensor in [*used, *_of_attributes(node)]:
            tally.add(*_measured(tensor, file_bytes))
    rest = Tally(_UNUSED)
    for tensor in constants.values():
        rest.add(*_measured(tensor, file_bytes))
    return [*found.values(), *([rest] if constants else [])]


def _of_attributes(node: Message) -> Iterator[Message]:
    """Tensors that are attributes of a node, those of graphs within it included."""
    return _node_tensors([node], 0)


def _measured(tensor: Message, file_bytes: int) -> tuple[str, int, int]:
    """Type, number of values, bytes in the file.

    Raises:
        AjpqError: the shape does not fit the bytes.
    """
    name, bits = _type(tensor.integer(2))
    values = product(tensor.integers(1), 8 * file_bytes)
    raw = tensor.blobs(9)
    stored = sum(
        _length(v) for field in (4, 5, 6, 7, 9, 10, 11) for v in tensor.fields.get(field, ())
    )
    if raw and bits and len(raw[-1]) != -(-values * bits // 8):
        label = plain(tensor.text(8))
        raise AjpqError(f"tensor {label!r}: {len(raw[-1])} bytes for {values} values of {name}")
    return name, values, stored


def _length(value: int | memoryview) -> int:
    return 8 if isinstance(value, int) else len(value)


def _refuse_external(model: Message) -> None:
    """No tensor anywhere may point to another file."""
    graphs = [*model.messages(7)]
    for training in model.messages(20):
        graphs += [*training.messages(1), *training.messages(2)]
    nodes = [node for function in model.messages(25) for node in function.messages(7)]
    for tensors in (*(_graph_tensors(graph, 0) for graph in graphs), _node_tensors(nodes, 0)):
        for tensor in tensors:
            if 13 in tensor.fields or tensor.integer(14):
                raise AjpqError(_EXTERNAL)


def _graph_tensors(graph: Message, depth: int) -> Iterator[Message]:
    if depth > _DEEPEST:
        raise AjpqError(f"its graphs are nested more than {_DEEPEST} deep")
    yield from graph.messages(5)
    yield from _sparse(graph.messages(15))
    yield from _node_tensors(graph.messages(1), depth)


def _node_tensors(nodes: Iterable[Message], depth: int) -> Iterator[Message]:
    for node in nodes:
        for attribute in node.messages(5):
            yield from attribute.messages(5)
            yield from attribute.messages(10)
            yield from _sparse([*attribute.messages(22), *attribute.messages(23)])
            for graph in [*attribute.messages(6), *attribute.messages(11)]:
                yield from _graph_tensors(graph, depth + 1)


def _sparse(tensors: Iterable[Message]) -> Iterator[Message]:
    for tensor in tensors:
        yield from tensor.messages(1)
        yield from tensor.messages(2)
