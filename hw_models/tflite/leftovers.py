"""What a compiled ``.tflite`` file leaves to the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tflite.BuiltinOperator import BuiltinOperator
from tflite.Model import Model

DELEGATED = b"ethos-u"


def cpu_operators(compiled: bytes) -> tuple[str, ...]:
    """``KIND name`` of every operator that the accelerator does not run."""
    names = {value: name for name, value in vars(BuiltinOperator).items() if name.isupper()}
    return tuple(
        f"{names[code.BuiltinCode()]} {output.Name().decode()}"
        for code, output in _operators(compiled)
        if code.CustomCode() != DELEGATED
    )


def accelerated_operators(compiled: bytes) -> int:
    """How many stretches of the network the accelerator runs."""
    return sum(code.CustomCode() == DELEGATED for code, _ in _operators(compiled))


def _operators(compiled: bytes) -> Iterator[tuple[Any, Any]]:
    """Operator code and first output tensor of every operator."""
    model = Model.GetRootAs(compiled, 0)
    graph = model.Subgraphs(0)
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        yield model.OperatorCodes(operator.OpcodeIndex()), graph.Tensors(operator.Outputs(0))
