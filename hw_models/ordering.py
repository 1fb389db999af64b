"""The same network with its channels in another order: equal widths side by side.

Hardware that loads weights in blocks of output channels, each entropy-coded on its own, stores a
block of equal widths in fewer bytes than a mixed one. No value changes but for its position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hw_models.network import Network, Operator, Weights

_CHANNELWISE = frozenset(
    [
        "affine",
        "activation",
        "requantize",
        "add",
        "mul",
        "subsample",
        "pad",
        "maxpool",
        "avgpool",
        "globalavgpool",
        "flatten",
    ]
)


def by_width(network: Network) -> Network:
    """``network`` with the channels of every edge ordered by width, the widest first.

    Edges whose channels are added, multiplied or pooled keep one common order, the order of the
    widths that all their layers give a channel together. Left as they are: the input, the output,
    and what is concatenated, selected, convolved in groups or flattened from a plane, because
    there positions mean something.
    """
    orders = _orders(network)
    operators = tuple(_reordered(network, operator, orders) for operator in network.operators)
    return replace(network, operators=operators)


def _orders(network: Network) -> dict[str, np.ndarray]:
    """Edge -> which old channel stands at each position."""
    names = list(network.edges)
    number = _common_order(network, names)
    fixed = {number[edge] for edge in _fixed(network)}
    widths: dict[int, np.ndarray] = {}
    for operator in network.operators:
        if operator.weights is not None and operator.kind != "affine":
            bits = operator.weights.bits.astype(np.int64)
            widths[number[operator.output]] = widths.get(number[operator.output], 0) + bits
    return {
        edge: np.argsort(-widths[number[edge]], kind="stable")
        if number[edge] in widths and number[edge] not in fixed
        else np.arange(network.edges[edge].shape[0])
        for edge in names
    }


def _common_order(network: Network, names: list[str]) -> dict[str, int]:
    """Edge -> number of the set of edges that share one order."""
    position = {edge: index for index, edge in enumerate(names)}
    ends = [
        (position[edge], position[operator.output])
        for operator in network.operators
        if operator.kind in _CHANNELWISE or _depthwise(network, operator)
        for edge in operator.inputs
    ]
    rows, columns = np.asarray(ends, dtype=np.int64).reshape(-1, 2).T
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    return dict(zip(names, connected_components(links, directed=False)[1].tolist(), strict=True))


def _fixed(network: Network) -> Iterator[str]:
    yield network.input
    yield network.output
    for operator in network.operators:
        grouped = operator.attributes.get("groups", 1) > 1 and not _depthwise(network, operator)
        sizes = {network.edges[edge].shape[0] for edge in (*operator.inputs, operator.output)}
        resized = operator.kind in _CHANNELWISE and len(sizes) > 1
        if operator.kind in ("concat", "select") or grouped or resized:
            yield from (*operator.inputs, operator.output)


def _depthwise(network: Network, operator: Operator) -> bool:
    groups = operator.attributes.get("groups", 1)
    edges = (operator.inputs[0], operator.output)
    return groups > 1 and all(network.edges[edge].shape[0] == groups for edge in edges)


def _reordered(network: Network, operator: Operator, orders: Mapping[str, np.ndarray]) -> Operator:
    weights = operator.weights
    if weights is None:
        return operator
    rows, codes = orders[operator.output], weights.codes
    if operator.kind in ("conv", "linear") and operator.attributes.get("groups", 1) == 1:
        codes = codes[:, orders[operator.inputs[0]]]
    ordered = Weights(codes[rows], weights.scales[rows], weights.bits[rows], weights.bias[rows])
    return replace(operator, weights=ordered)
