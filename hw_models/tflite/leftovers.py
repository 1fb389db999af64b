"""What a compiled ``.tflite`` file leaves to the CPU."""

from __future__ import annotations

from tflite.BuiltinOperator import BuiltinOperator
from tflite.Model import Model

DELEGATED = b"ethos-u"


def cpu_operators(compiled: bytes) -> tuple[str, ...]:
    """``KIND name`` of every operator that the accelerator does not run."""
    model = Model.GetRootAs(compiled, 0)
    graph = model.Subgraphs(0)
    names = {value: name for name, value in vars(BuiltinOperator).items() if name.isupper()}
    found = []
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        if code.CustomCode() != DELEGATED:
            tensor = graph.Tensors(operator.Outputs(0))
            found.append(f"{names[code.BuiltinCode()]} {tensor.Name().decode()}")
    return tuple(found)
