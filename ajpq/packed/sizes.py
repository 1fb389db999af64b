"""Bytes of the packed file under a policy, without a network IR for every question.

A search asks how large the uncompressed weights are under thousands of policies that differ in a
few layers. The codes of a layer depend on its own widths and on which of its inputs survive, and
everything else in the file on what is pruned; both are remembered. The answers are those of
:func:`ajpq.packed.estimated_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from ajpq.apply import outline
from ajpq.graph.channels import Masks
from ajpq.graph.structure import Layer, layers
from ajpq.packed import Frame, frame_of, smallest_bits
from ajpq.packed.codes import Group
from ajpq.packed.layers import weighted
from ajpq.packed.row_sizes import RowTable, all_rows, row_table
from ajpq.packed.rows import class_counts, number_bits
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.selection.remembered import remembered_by_structure
from hw_models.network import FLOAT_BITS, Network

_ANY_WIDTH = 8  # asked of the quantizer for rows whose codes are not used
_LAYERS, _FRAMES = 1 << 15, 256

CodeBits = Callable[[CompressionPolicy], Mapping[str, float]]
_Asked = tuple[str, bytes, bytes, bytes]
"""A layer, its ``[O]`` widths, and ``[O]`` and ``[I]`` bool: the rows and input channels left."""


@dataclass(frozen=True, eq=False)
class _Outside:
    """What the widths of a network's live rows leave as it is.

    Attributes:
        operators: names of the operators with weights, in execution order.
        fixed: the row widths of those among them that are no layers.
        bits: of their codes.
        counts: of the classes of their scales and biases.
        rows: the classes of those of the layers.
    """

    frame: Frame
    operators: tuple[str, ...]
    fixed: dict[str, bytes]
    bits: float
    counts: np.ndarray
    rows: RowTable


def code_bits(problem: Problem) -> CodeBits:
    """A function of a policy: layer name -> bits that its codes and their histograms take.

    Layers that the policy removes from the network take none, nor do 32-bit rows.
    """
    graph = problem.graph
    known: dict[_Asked, float] = {}

    def bits_of(policy: CompressionPolicy) -> dict[str, float]:
        kept, available = outline(graph, policy)
        asked = {
            layer.name: _asked(layer, policy, kept)
            for layer in layers(graph)
            if _made_by(layer) in available
        }
        missing = [own for own in asked.values() if own not in known]
        known.update(zip(missing, _bits(problem, missing), strict=True))
        found = {name: known[own] for name, own in asked.items()}
        while len(known) > _LAYERS:
            del known[next(iter(known))]
        return found

    return bits_of


def _made_by(layer: Layer) -> str:
    """The edge that the operator of a layer makes."""
    return (layer.activation or layer.batchnorm or layer.node).output


def _asked(layer: Layer, policy: CompressionPolicy, kept: Masks) -> _Asked:
    rows, columns = kept[layer.node.output], kept[layer.node.inputs[0]]
    widths = bytes(policy.layers[layer.name].weight_bits)
    return layer.name, widths, rows.tobytes(), columns.tobytes()


def _bits(problem: Problem, asked: Sequence[_Asked]) -> list[float]:
    """Bits of the codes of every layer that is asked for; all are fitted together."""
    own = {layer.name: layer for layer in layers(problem.graph)}
    groups = [list(_groups(problem, own[name], *rest)) for name, *rest in asked]
    bits = smallest_bits(group for layer in groups for group in layer)
    ends = np.cumsum([0, *map(len, groups)]).tolist()
    return [float(bits[first:last].sum()) for first, last in pairwise(ends)]


def _groups(
    problem: Problem, layer: Layer, widths: bytes, rows: bytes, columns: bytes
) -> Iterator[Group]:
    """The codes of one layer by width."""
    bits = np.frombuffer(widths, np.uint8).astype(np.int64)
    coded = (bits > 0) & (bits < FLOAT_BITS) & np.frombuffer(rows, bool)
    weight = problem.state[layer.node.parameters["weight"]]
    asked = torch.from_numpy(np.where(coded, bits, _ANY_WIDTH))
    codes = problem.codes(weight, asked)[0].numpy()
    if layer.node.attributes.get("groups", 1) == 1:
        codes = codes[:, np.frombuffer(columns, bool)]
    for width in np.unique(bits[coded]).tolist():
        yield width, codes[coded & (bits == width)]


def packed_sizes(problem: Problem, bits_of: CodeBits) -> Callable[[CompressionPolicy], int]:
    """A function of policies of the problem's quantizer: bytes of the uncompressed weights.

    Equal to ``estimated_bytes`` of the network that the policy makes of them.

    Args:
        bits_of: :func:`code_bits` of the same problem.
    """
    direct, own = direct_weights(problem), {layer.name: layer for layer in layers(problem.graph)}
    known = {name: all_rows(problem, layer) for name, layer in own.items()}

    def describe(policy: CompressionPolicy) -> _Outside:
        network, kept = network_of(problem, policy, direct), outline(problem.graph, policy)[0]
        sources = {op.name: network.edges[op.inputs[0]] for op in network.layers}
        named = [own[name] for name in sources]
        return _outside(network, row_table(named, known, kept, sources))

    outside = remembered_by_structure(describe, _FRAMES)

    def size(policy: CompressionPolicy) -> int:
        kept, other = outline(problem.graph, policy)[0], outside(policy)
        named = [own[name] for name in other.operators if name in own]
        bits = sum(bits_of(policy).values())
        widths = {layer.name: _kept_widths(layer, policy, kept) for layer in named}
        row_widths = b"".join(
            other.fixed[name] if name in other.fixed else widths[name].tobytes()
            for name in other.operators
        )
        reals = sum(_reals(problem, layer, widths[layer.name], kept) for layer in named)
        live = np.concatenate([np.zeros(0, np.uint8), *widths.values()])
        bits += number_bits(other.counts + other.rows.counts(live))
        return other.frame.size(row_widths, reals, other.bits + bits)

    return size


def _outside(network: Network, rows: RowTable) -> _Outside:
    layer_names = {op.name for op in network.layers}
    operators = weighted(network)
    others = [(op, weights) for op, weights in operators if op.name not in layer_names]
    groups = [(int(weights.bits[0]), weights.codes) for _, weights in others]
    return _Outside(
        frame_of(network),
        tuple(op.name for op, _ in operators),
        {op.name: weights.bits.astype(np.uint8).tobytes() for op, weights in others},
        float(smallest_bits(groups).sum()),
        class_counts(replace(network, operators=tuple(op for op, _ in others))),
        rows,
    )


def _kept_widths(layer: Layer, policy: CompressionPolicy, kept: Masks) -> np.ndarray:
    bits = np.frombuffer(bytes(policy.layers[layer.name].weight_bits), np.uint8)
    return bits[kept[layer.node.output]]


def _reals(problem: Problem, layer: Layer, widths: np.ndarray, kept: Masks) -> int:
    """Weights that stay real values."""
    if FLOAT_BITS not in widths:
        return 0
    shape = problem.state[layer.node.parameters["weight"]].shape
    grouped = layer.node.attributes.get("groups", 1) > 1
    columns = shape[1] if grouped else int(kept[layer.node.inputs[0]].sum())
    return int((widths == FLOAT_BITS).sum()) * columns * int(np.prod(shape[2:], dtype=np.int64))
