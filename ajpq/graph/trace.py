"""From a module to a :class:`Graph`, through ``torch.export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ajpq.graph.aten import convert, is_supported
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
        The graph; executing it has been checked to give what the module gives.

    Raises:
        UnsupportedModuleError: naming the module path, its class and the operation.
    """
    images = _random_images(model, input_shape)
    with _evaluation_mode(model), torch.no_grad():
        program = _export(model, images)
        graph = _convert(program, type(model).__name__, input_shape)
        _check(graph, model, images)
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


def _convert(
    program: torch.export.ExportedProgram, name: str, input_shape: tuple[int, ...]
) -> Graph:
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    _check_supported(calls)
    tracer = Tracer(input_shape, _BATCH, stored)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in signature.user_inputs:
            tracer.values[node] = Value.of_edge("input", input_shape)
    for node in calls:
        convert(tracer, node)
    output = _output_edge(tracer, next(n for n in program.graph.nodes if n.op == "output"))
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


def _check(graph: Graph, model: nn.Module, images: Tensor) -> None:
    """A wrong trace would silently compress another network, so it is compared once."""
    expected = model(images)
    actual = execute(graph, model.state_dict(), images)
    atol = _TOLERANCE * float(expected.abs().max().nan_to_num())
    if not torch.allclose(actual, expected, rtol=0, atol=atol, equal_nan=True):
        raise UnsupportedModuleError(
            f"{graph.name} computes something that its traced operators do not (an in-place "
            "operation on a view?)"
        )
