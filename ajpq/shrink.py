"""From a traced network, its tensors and a policy to an ordinary module without pruned channels.

For whoever wants to go on training or exporting in plain PyTorch: the module is made of
``nn.Conv2d``, ``nn.Linear``, ``nn.BatchNorm2d`` and functions of torch, and needs nothing of this
package. Its shapes are those of the network IR.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ajpq.apply import outline
from ajpq.graph.channels import Masks
from ajpq.graph.execute import ACTIVATIONS, MOST_SLICES, runs_of
from ajpq.graph.structure import LAYER_KINDS, Fusion, Graph, Node, layers
from ajpq.policy import CompressionPolicy

Tensors = Mapping[str, Tensor]


def shrink(graph: Graph, tensors: Tensors, policy: CompressionPolicy) -> fx.GraphModule:
    """A module without the channels that ``policy`` removes.

    Only the pruning of the policy is applied: weights and activations keep the values that they
    have. Give quantized weights (:func:`ajpq.compressed.compressed_view`) to get a quantized
    network. What removes channels is as in :func:`ajpq.apply.apply_policy`: a pruned channel inside
    a living residual stream stays, with zero weights and a zero factor and offset in BatchNorm;
    training may bring its offset back to life.

    Args:
        graph: of the network before any pruning.
        tensors: named as in its ``state_dict()``; they are copied.

    Returns:
        A module in evaluation mode that maps images to logits. Submodules have the paths of the
        original; a dropout or a softmax at the end is not in it, because the graph holds neither.

    Raises:
        AjpqError: the policy does not fit the network, or empties a layer that no residual
            addition bypasses.
    """
    kept, computed = outline(graph, policy)
    work = _Work(graph, tensors, kept, _living_rows(graph, policy), computed)
    module, program = fx.GraphModule(nn.Module(), fx.Graph(), graph.name), fx.Graph()
    values = {graph.input: program.placeholder("images")}
    for fusion in graph.fusions:
        if fusion.output in computed:
            for node in _parts(fusion):
                values[node.output] = _emit(work, node, program, module, values)
    program.output(values[graph.output])
    module.graph = program
    return module.eval()


@dataclass(frozen=True)
class _Work:
    """What every operator is made from.

    Attributes:
        kept: edge name to ``[C]`` bool.
        living: name of a layer, or of what normalises it, to ``[O]`` bool: not pruned.
        computed: the edges that are still there.
    """

    graph: Graph
    tensors: Tensors
    kept: Masks
    living: Masks
    computed: frozenset[str]


def _living_rows(graph: Graph, policy: CompressionPolicy) -> Masks:
    living = {}
    for layer in layers(graph):
        for node in (layer.node, layer.batchnorm):
            if node is not None:
                living[node.name] = policy.layers[layer.name].bits != 0
    return living


def _parts(fusion: Fusion) -> list[Node]:
    return [node for node in (fusion.node, fusion.batchnorm, fusion.activation) if node is not None]


def _emit(
    work: _Work,
    node: Node,
    program: fx.Graph,
    module: fx.GraphModule,
    values: Mapping[str, fx.Node],
) -> fx.Node:
    """Append what one node becomes; an addition or a concatenation of one side becomes nothing."""
    inputs = [values[edge] for edge in node.inputs if edge in values]
    if node.kind in _MODULES:
        module.add_submodule(node.name, _MODULES[node.kind](work, node))
        return program.call_module(node.name, (inputs[0],))
    if node.kind in ("add", "concat") and len(inputs) == 1:
        return inputs[0]
    return _FUNCTIONS[node.kind](work, node, program, inputs)


# ---- modules ------------------------------------------------------------------------------------


def _filled(module: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A module that was made without memory, with ``values`` as its parameters and buffers."""
    module.load_state_dict(values, assign=True)
    return module


def _rows(work: _Work, node: Node, role: str) -> Tensor | None:
    """The tensor of a node for the rows that stay, zero where they are pruned."""
    name = node.parameters.get(role)
    if name is None:
        return None
    value = work.tensors[name].detach()
    living = torch.tensor(work.living.get(node.name, np.ones(len(value), bool)))
    masked = torch.where(living.view(-1, *[1] * (value.dim() - 1)), value, 0)
    return masked[torch.tensor(work.kept[node.output])]


def _weights(work: _Work, node: Node) -> dict[str, Tensor]:
    """Weight and, where there is one, bias of a layer; read channels alone in the weight."""
    found = {role: _rows(work, node, role) for role in ("weight", "bias")}
    weight = found["weight"]
    assert weight is not None
    if node.attributes.get("groups", 1) == 1:
        found["weight"] = weight[:, torch.tensor(work.kept[node.inputs[0]])]
    return {role: value for role, value in found.items() if value is not None}


def _conv(work: _Work, node: Node) -> nn.Module:
    values, a = _weights(work, node), node.attributes
    groups = int(work.kept[node.output].reshape(a["groups"], -1).any(1).sum())
    rows, columns = values["weight"].shape[:2]
    geometry = (a["kernel"], a["stride"], a["padding"], a["dilation"])
    module = nn.Conv2d(columns * groups, rows, *geometry, groups, "bias" in values, device="meta")
    return _filled(module, values)


def _linear(work: _Work, node: Node) -> nn.Module:
    values = _weights(work, node)
    rows, columns = values["weight"].shape
    return _filled(nn.Linear(columns, rows, "bias" in values, device="meta"), values)


def _batchnorm(work: _Work, node: Node) -> nn.Module:
    """Factor and offset are made where the original has none and a pruned row has to be zero."""
    kept = torch.tensor(work.kept[node.output])
    mean, variance = (
        work.tensors[node.parameters[role]].detach()[kept]
        for role in ("running_mean", "running_var")
    )
    factor, offset = (_rows(work, node, role) for role in ("weight", "bias"))
    living = torch.tensor(work.living.get(node.name, np.ones(len(kept), bool)))[kept]
    values = {"running_mean": mean, "running_var": variance, "num_batches_tracked": torch.tensor(0)}
    affine = factor is not None or offset is not None or not bool(living.all())
    if affine:
        values["weight"] = living.to(mean.dtype) if factor is None else factor
        values["bias"] = torch.zeros_like(mean) if offset is None else offset
    kind = nn.BatchNorm2d if len(work.graph.shapes[node.output]) == 3 else nn.BatchNorm1d
    a = node.attributes
    return _filled(kind(len(mean), a["eps"], a["momentum"], affine, device="meta"), values)


_MODULES: dict[str, Callable[[_Work, Node], nn.Module]] = {
    "conv": _conv,
    "linear": _linear,
    "batchnorm": _batchnorm,
}
assert _MODULES.keys() >= LAYER_KINDS


# ---- functions ----------------------------------------------------------------------------------

_ALL = slice(None)


def _mul(work: _Work, node: Node, program: fx.Graph, inputs: list[fx.Node]) -> fx.Node:
    value, gate = inputs
    if len(work.graph.shapes[node.inputs[1]]) < len(work.graph.shapes[node.inputs[0]]):
        gate = program.call_function(operator.getitem, (gate, (_ALL, _ALL, None, None)))
    return program.call_function(operator.mul, (value, gate))


def _select(work: _Work, node: Node, program: fx.Graph, inputs: list[fx.Node]) -> fx.Node:
    """Channels by index as slices, with zeros padded to them where the index is -1."""
    index = renumbered(work.kept, node)
    space = (0, 0) * (len(work.graph.shapes[node.output]) - 1)
    runs = runs_of(index)
    if len(runs) > MOST_SLICES:  # one gather is faster than many slices
        source = inputs[0]
        if -1 in index:
            source = program.call_function(F.pad, (source, (*space, 0, 1)))
        return program.call_function(operator.getitem, (source, (_ALL, list(index))))
    parts = [
        _slice(program, inputs[0], first, count, before, after, space)
        for first, count, before, after in padded_runs(runs)
    ]
    return parts[0] if len(parts) == 1 else program.call_function(torch.cat, (parts, 1))


def _slice(
    program: fx.Graph,
    source: fx.Node,
    first: int,
    count: int,
    before: int,
    after: int,
    space: tuple[int, ...],
) -> fx.Node:
    part = program.call_function(operator.getitem, (source, (_ALL, slice(first, first + count))))
    if not before and not after:
        return part
    return program.call_function(F.pad, (part, (*space, before, after)))


def padded_runs(runs: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """``(first, count, zeros before, zeros after)`` of :func:`ajpq.graph.execute.runs_of`.

    Zeros belong to the run before them, or to the first one; zeros alone to an empty run.
    """
    found: list[tuple[int, int, int, int]] = []
    leading = 0
    for first, count in runs:
        if first >= 0:
            found.append((first, count, leading, 0))
            leading = 0
        elif found:
            found[-1] = (*found[-1][:3], count)
        else:
            leading = count
    return found or [(0, 0, leading, 0)]


def renumbered(kept: Masks, node: Node) -> tuple[int, ...]:
    """The index of a ``select`` among the channels that stay."""
    index = np.asarray(node.attributes["index"])[kept[node.output]]
    position = np.cumsum(kept[node.inputs[0]]) - 1
    return tuple(np.where(index < 0, -1, position[index]).tolist())


def _subsample(work: _Work, node: Node, program: fx.Graph, inputs: list[fx.Node]) -> fx.Node:
    rows, columns = node.attributes["stride"]
    every = (_ALL, _ALL, slice(None, None, rows), slice(None, None, columns))
    return program.call_function(operator.getitem, (inputs[0], every))


def _maxpool(work: _Work, node: Node, program: fx.Graph, inputs: list[fx.Node]) -> fx.Node:
    a = node.attributes
    arguments = (inputs[0], a["kernel"], a["stride"], a["padding"])
    return program.call_function(F.max_pool2d, arguments, {"ceil_mode": a["ceil_mode"]})


def _avgpool(work: _Work, node: Node, program: fx.Graph, inputs: list[fx.Node]) -> fx.Node:
    a = node.attributes
    arguments = (inputs[0], a["kernel"], a["stride"], a["padding"], a["ceil_mode"])
    return program.call_function(F.avg_pool2d, (*arguments, a["count_include_pad"]))


_Function = Callable[[_Work, Node, fx.Graph, list[fx.Node]], fx.Node]
_FUNCTIONS: dict[str, _Function] = {
    "activation": lambda work, node, program, x: program.call_function(
        ACTIVATIONS[node.attributes["function"]], (x[0],)
    ),
    "add": lambda work, node, program, x: program.call_function(operator.add, (x[0], x[1])),
    "mul": _mul,
    "concat": lambda work, node, program, x: program.call_function(torch.cat, (x, 1)),
    "select": _select,
    "subsample": _subsample,
    "pad": lambda work, node, program, x: program.call_function(
        F.pad, (x[0], tuple(node.attributes["padding"]))
    ),
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "globalavgpool": lambda work, node, program, x: program.call_function(
        F.adaptive_avg_pool2d, (x[0], (1, 1))
    ),
    "flatten": lambda work, node, program, x: program.call_function(torch.flatten, (x[0], 1)),
}
