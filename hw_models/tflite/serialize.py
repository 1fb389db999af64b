"""From a :class:`Program` to the bytes of a ``.tflite`` file, with the schema's own builders."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flatbuffers
import numpy as np

from hw_models.tflite.program import Operation, Program, Tensor

SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # constants may be read in place
LAST_OLD_CODE = 127  # the operator code's first field was a byte; readers take the larger of both
PER_TENSOR_BYTES = 512
# the versions of the operators that know int8, grouped convolution and one scale per row
VERSIONS = {
    "CONV_2D": 6,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 12,
    "HARD_SWISH": 1,
    "RESHAPE": 1,
}
OTHER_VERSION = 2


def _table(name: str) -> Any:
    """The schema module that builds tables of this name."""
    return importlib.import_module(f"tflite.{name}")


def _fill(builder: flatbuffers.Builder, name: str, **fields: Any) -> int:
    """Write one table from scalars and offsets."""
    module = _table(name)
    getattr(module, f"{name}Start")(builder)
    for field, value in fields.items():
        getattr(module, f"{name}Add{field}")(builder, value)
    return getattr(module, f"{name}End")(builder)


def _offsets(
    builder: flatbuffers.Builder,
    start: Callable[[flatbuffers.Builder, int], Any],
    offsets: Sequence[int],
) -> int:
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _vector(builder: flatbuffers.Builder, values: Iterable[Any], dtype: Any) -> int:
    return builder.CreateNumpyVector(np.asarray(tuple(values), dtype))


def _buffer(builder: flatbuffers.Builder, data: np.ndarray | None) -> int:
    if data is None:
        return _fill(builder, "Buffer")
    raw = np.ascontiguousarray(data).tobytes()
    builder.Prep(ALIGNMENT, len(raw))
    return _fill(builder, "Buffer", Data=builder.CreateByteVector(raw))


def _quantization(builder: flatbuffers.Builder, tensor: Tensor) -> int:
    points = np.full(len(tensor.scales), tensor.zero_point, np.int64)
    return _fill(
        builder,
        "QuantizationParameters",
        Scale=_vector(builder, tensor.scales, np.float32),
        ZeroPoint=builder.CreateNumpyVector(points),
        QuantizedDimension=tensor.axis,
    )


def _tensor(builder: flatbuffers.Builder, tensor: Tensor, buffer: int) -> int:
    types = _table("TensorType").TensorType
    fields = {
        "Name": builder.CreateString(tensor.name),
        "Shape": _vector(builder, tensor.shape, np.int32),
        "Type": getattr(types, tensor.dtype.upper()),
        "Buffer": buffer,
    }
    if tensor.scales:
        fields["Quantization"] = _quantization(builder, tensor)
    return _fill(builder, "Tensor", **fields)


def _operation(builder: flatbuffers.Builder, operation: Operation, code: int) -> int:
    fields = {
        "OpcodeIndex": code,
        "Inputs": _vector(builder, operation.inputs, np.int32),
        "Outputs": _vector(builder, (operation.output,), np.int32),
    }
    if operation.table:
        options = _table("BuiltinOptions").BuiltinOptions
        fields["BuiltinOptionsType"] = getattr(options, operation.table)
        fields["BuiltinOptions"] = _fill(builder, operation.table, **operation.fields)
    return _fill(builder, "Operator", **fields)


def _operator_code(builder: flatbuffers.Builder, name: str) -> int:
    code = getattr(_table("BuiltinOperator").BuiltinOperator, name)
    return _fill(
        builder,
        "OperatorCode",
        DeprecatedBuiltinCode=min(code, LAST_OLD_CODE),
        BuiltinCode=code,
        Version=VERSIONS.get(name, OTHER_VERSION),
    )


def _subgraph(
    builder: flatbuffers.Builder,
    program: Program,
    codes: list[str],
    io: tuple[int, int],
) -> int:
    tables = _table("SubGraph")
    constants = (index for index, t in enumerate(program.tensors) if t.data is not None)
    buffers = {tensor: number for number, tensor in enumerate(constants, start=1)}
    tensors = [
        _tensor(builder, tensor, buffers.get(index, 0))
        for index, tensor in enumerate(program.tensors)
    ]
    operations = [_operation(builder, op, codes.index(op.code)) for op in program.operations]
    return _fill(
        builder,
        "SubGraph",
        Tensors=_offsets(builder, tables.SubGraphStartTensorsVector, tensors),
        Operators=_offsets(builder, tables.SubGraphStartOperatorsVector, operations),
        Inputs=_vector(builder, io[:1], np.int32),
        Outputs=_vector(builder, io[1:], np.int32),
        Name=builder.CreateString("main"),
    )


def serialize(program: Program, input_edge: str, output_edge: str) -> bytes:
    """Bytes of the file; equal programs give equal bytes."""
    constants = [t.data for t in program.tensors if t.data is not None]
    room = sum(data.nbytes for data in constants) + PER_TENSOR_BYTES * len(program.tensors)
    builder = flatbuffers.Builder(room)
    codes = list(dict.fromkeys(op.code for op in program.operations))
    io = (program.edges[input_edge], program.edges[output_edge])
    tables = _table("Model")
    buffers = [_buffer(builder, data) for data in (None, *constants)]
    subgraph = _subgraph(builder, program, codes, io)
    written = [_operator_code(builder, code) for code in codes]
    model = _fill(
        builder,
        "Model",
        Version=SCHEMA_VERSION,
        OperatorCodes=_offsets(builder, tables.ModelStartOperatorCodesVector, written),
        Subgraphs=_offsets(builder, tables.ModelStartSubgraphsVector, [subgraph]),
        Buffers=_offsets(builder, tables.ModelStartBuffersVector, buffers),
        Description=builder.CreateString("ajpq"),
    )
    builder.Finish(model, file_identifier=IDENTIFIER)
    return bytes(builder.Output())
