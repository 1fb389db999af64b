"""From a module to a :class:`Graph`, through ``torch.export``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ajpq.graph.aten import convert, is_supported, operation_name
from ajpq.graph.execute import execute
from ajpq.graph.structure import Graph
from ajpq.graph.tracer import Tracer, Value, unsupported
from hw_models.errors import UnsupportedModuleError

_BATCH = 2  # export specialises a batch of 1
_TOLERANCE = 1e-3  # of the largest output; float32 convolutions differ by their summation order


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Graph:
    """Trace a module in evaluation mode; the module is left as it was.

    Args:
        model: any module that ``torch.export`` accepts, with one image tensor as its input and
            one ``[N, classes]`` tensor as its output.
        input_shape: ``(C, H, W)``.

    Returns:
        The graph; executing it has been checked to give what the module gives. It ends with the
        logits: a softmax at the end of the module is left out, because it ranks no class anew and
        belongs to whoever reads the result.

    Raises:
        UnsupportedModuleError: naming the module path, its class and the operation.
    """
    images = _random_images(model, input_shape)
    with _evaluation_mode(model), torch.no_grad():
        program = _export(model, images)
        probabilities = _final_softmax(program)
        graph = _convert(program, probabilities, type(model).__name__, input_shape)
        finish = _PROBABILITIES[operation_name(probabilities)] if probabilities else _logits
        _check(graph, model, images, finish)
    return graph


def _random_images(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(_BATCH, *shape, generator=generator)
    first = next(iter(model.parameters()), images)
    return images.to(first.device, first.dtype)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


def _export(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(model, (images,), strict=False)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedModuleError(
            f"{type(model).__name__} cannot be traced on images of shape "
            f"{tuple(images.shape[1:])}: {reason}"
        ) from error


def _final_softmax(program: torch.export.ExportedProgram) -> Any | None:
    """The node that turns the logits into probabilities at the very end, if there is one."""
    output = next(node for node in program.graph.nodes if node.op == "output")
    last = output.args[0][0] if len(output.args[0]) == 1 else None
    if last is None or last.op != "call_function" or len(last.users) > 1:
        return None
    over_classes = len(last.args) > 1 and last.args[1] in (1, -1)
    return last if operation_name(last) in _PROBABILITIES and over_classes else None


def _logits(values: Tensor) -> Tensor:
    return values


_PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(1),
    "log_softmax": lambda logits: logits.log_softmax(1),
}


def _convert(
    program: torch.export.ExportedProgram,
    probabilities: Any | None,
    name: str,
    input_shape: tuple[int, ...],
) -> Graph:
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = [node for node in program.graph.nodes if node is not probabilities]
    calls = [node for node in nodes if node.op == "call_function"]
    _check_supported(calls)
    tracer = Tracer(input_shape, _BATCH, stored)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in signature.user_inputs:
            tracer.values[node] = Value.of_edge("input", input_shape)
        constant = signature.inputs_to_lifted_tensor_constants.get(str(node.target))
        if constant is not None:
            tracer.constants[node] = program.constants[constant].numpy()
    for node in calls:
        convert(tracer, node)
    if probabilities is not None:
        tracer.values[probabilities] = tracer.values[probabilities.args[0]]
    output = _output_edge(tracer, next(node for node in nodes if node.op == "output"))
    return _without_dead_nodes(tracer, name, output)


def _check_supported(calls: list[Any]) -> None:
    unknown = [node for node in calls if not is_supported(node)]
    if unknown:
        # a torch.nn module says more than the reshaping around it, work more than constants
        named = [
            node
            for node in unknown
            if node.all_input_nodes and _innermost_class(node).startswith("torch.nn")
        ]
        raise unsupported((named or unknown)[0], "is not supported")


def _innermost_class(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][1]) if stack else ""


def _output_edge(tracer: Tracer, output: Any) -> str:
    results = output.args[0]
    if len(results) != 1 or results[0] not in tracer.values:
        raise UnsupportedModuleError(
            f"the network returns {len(results)} values, expected one tensor of logits"
        )
    edge = tracer.edge(results[0])
    if len(tracer.shapes[edge]) != 1:
        raise UnsupportedModuleError(
            f"the network returns shape {tracer.shapes[edge]} per image, expected (classes,)"
        )
    return edge


def _without_dead_nodes(tracer: Tracer, name: str, output: str) -> Graph:
    live = {output}
    kept = []
    for node in reversed(tracer.nodes):
        if node.output in live:
            live.update(node.inputs)
            kept.append(node)
    shapes = {edge: shape for edge, shape in tracer.shapes.items() if edge in live | {"input"}}
    return Graph(name, "input", output, shapes, tuple(reversed(kept)))


def _check(
    graph: Graph, model: nn.Module, images: Tensor, finish: Callable[[Tensor], Tensor]
) -> None:
    """A wrong trace would silently compress another network, so it is compared once."""
    expected = model(images)
    actual = finish(execute(graph, model.state_dict(), images))
    atol = _TOLERANCE * float(expected.abs().max().nan_to_num())
    if not torch.allclose(actual, expected, rtol=0, atol=atol, equal_nan=True):
        raise UnsupportedModuleError(
            f"{graph.name} computes something that its traced operators do not (an in-place "
            "operation on a view?)"
        )
