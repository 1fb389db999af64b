"""How many bytes of activations are alive at once."""

from __future__ import annotations

import numpy as np

from hw_models.network import Edge, Network


def edge_bytes(edge: Edge) -> int:
    """Bytes of an edge's codes, packed to their width."""
    return -(-int(np.prod(edge.shape, dtype=np.int64)) * edge.bits // 8)


def peak_activation_bytes(network: Network) -> int:
    """The largest sum of live edges, operators run in the order of the network.

    An edge lives from the operator that makes it through the last one that reads it; the input
    from the start, the output to the end. While an operator runs, its inputs and its output are
    alive. Flattening moves nothing: its output is its input under another name.
    """
    storage = {name: name for name in network.edges}
    last: dict[str, int] = {}
    for step, operator in enumerate(network.operators):
        for name in operator.inputs:
            last[storage[name]] = step
        if operator.kind == "flatten":
            storage[operator.output] = storage[operator.inputs[0]]
    last[storage[network.output]] = len(network.operators)
    live = {network.input}
    peak = edge_bytes(network.edges[network.input])
    for step, operator in enumerate(network.operators):
        live.add(storage[operator.output])
        peak = max(peak, sum(edge_bytes(network.edges[name]) for name in live))
        live = {name for name in live if last.get(name, step) > step}
    return peak
