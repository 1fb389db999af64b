"""A fast stand-in for a slow target, fitted to its answers about one network.

A compiler takes a tenth of a second and a stopwatch minutes; a search that asks ten thousand
times needs an answer at once. What a search reports is never the stand-in's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.checks import checked_cost
from hw_models.errors import AjpqError
from hw_models.liveness import peak_activation_bytes
from hw_models.network import Network, Operator

# Below this many forms of a network there is nothing to learn from.
FEWEST = 10
_TREES = 50
# In which blocks channels are computed differs by device; trees find out which of these matter.
_ROW_BLOCK = 8
_COLUMN_BLOCKS = (1, 16, 32)
_CODES = 256

Latencies = Callable[[Network], dict[str, float]]


@dataclass(frozen=True)
class FitError:
    """How far a fit is off on networks that it has not seen.

    Attributes:
        spearman: rank correlation of the latencies.
        median, p95: of the relative errors.
    """

    spearman: float
    median: float
    p95: float


class Fitted(Target):
    """What :func:`fit` makes: latency and flash as fitted, other costs unknown."""

    def __init__(
        self, of: Target, latencies: Latencies, storage: np.ndarray | None, by_liveness: bool
    ) -> None:
        self.name = f"{of.name} (fitted)"
        self.weight_bits, self.activation_bits = of.weight_bits, of.activation_bits
        self.channel_granularity = of.channel_granularity
        self.width_granularity = of.width_granularity
        self._latencies, self._storage, self._by_liveness = latencies, storage, by_liveness

    def cost(self, network: Network) -> NetworkCost:
        """Latency as the sum over operators; flash from the entropy of the codes.

        Activations are known if the target itself counts them by liveness; energy is not.
        """
        latencies = self._latencies(network)
        flash = None
        if self._storage is not None:
            flash = max(0, round(float(_stored(network) @ self._storage)))
        layers = tuple(LayerCost(name, seconds) for name, seconds in latencies.items())
        return NetworkCost(
            latency_s=sum(latencies.values()),
            flash_bytes=flash,
            peak_activation_bytes=peak_activation_bytes(network) if self._by_liveness else None,
            per_layer=layers,
        )


def fit(target: Target, networks: Sequence[Network], seed: int = 0) -> Fitted:
    """Learn what ``target`` says about forms of one network.

    Where it tells the latency of every operator, trees learn it from the operator's shape and
    bytes; where it tells the whole only, each operator gets non-negative prices for its MACs and
    for what it reads and writes.

    Args:
        networks: random compressed forms of one network, a hundred or so.

    Raises:
        AjpqError: too few networks, or the target knows no latency.
    """
    return fit_to(target, networks, [checked_cost(target, network) for network in networks], seed)


def fit_to(
    target: Target, networks: Sequence[Network], costs: Sequence[NetworkCost], seed: int = 0
) -> Fitted:
    """:func:`fit` to answers that were collected before."""
    if len(networks) < FEWEST:
        raise AjpqError(f"expected at least {FEWEST} networks to fit to, got {len(networks)}")
    if any(cost.latency_s is None for cost in costs):
        raise AjpqError(f"target {target.name!r} knows no latency that could be fitted")
    known = all(layer.latency_s is not None for cost in costs for layer in cost.per_layer)
    by_layer = known and all(cost.per_layer for cost in costs)
    latencies = (_trees if by_layer else _prices)(networks, costs, seed)
    by_liveness = all(
        cost.peak_activation_bytes == peak_activation_bytes(network)
        for network, cost in zip(networks, costs, strict=True)
    )
    return Fitted(target, latencies, _fit_storage(networks, costs), by_liveness)


def fit_error(
    fitted: Target, networks: Sequence[Network], costs: Sequence[NetworkCost]
) -> FitError:
    """The error of a fit against what the device itself says of networks not fitted to."""
    true = np.array([cost.latency_s for cost in costs])
    found = np.array([fitted.cost(network).latency_s for network in networks])
    errors = np.abs(found / true - 1)
    return FitError(
        spearman=float(spearmanr(found, true).statistic),
        median=float(np.median(errors)),
        p95=float(np.quantile(errors, 0.95)),
    )


# ---- latency of every operator ------------------------------------------------------------------


def _trees(networks: Sequence[Network], costs: Sequence[NetworkCost], seed: int) -> Latencies:
    rows, microseconds = [], []
    elsewhere = 0.0
    for network, cost in zip(networks, costs, strict=True):
        told = {layer.name: layer.latency_s or 0.0 for layer in cost.per_layer}
        for operator in network.operators:
            rows.append(_features(network, operator))
            microseconds.append(1e6 * told.pop(operator.name, 0.0))
        by_layers = sum(layer.latency_s or 0.0 for layer in cost.per_layer)
        unnamed = max((cost.latency_s or 0.0) - by_layers, 0.0)
        elsewhere += (sum(told.values()) + unnamed) / len(costs)
    # Without bootstrap and with leaves of one, what was measured comes out as it was measured.
    model = ExtraTreesRegressor(_TREES, random_state=seed)
    model.fit(np.array(rows), np.array(microseconds))

    def latencies(network: Network) -> dict[str, float]:
        table = np.array([_features(network, operator) for operator in network.operators])
        found = 1e-6 * model.predict(table)
        named = {op.name: float(s) for op, s in zip(network.operators, found, strict=True)}
        return {**named, "": elsewhere} if elsewhere else named

    return latencies


def _features(network: Network, operator: Operator) -> list[float]:
    source, out = network.edges[operator.inputs[0]].shape, network.edges[operator.output].shape
    features: list[float] = [
        source[0],
        out[0],
        int(np.prod(source)),
        int(np.prod(out)),
        len(operator.inputs),
        operator.attributes.get("stride", (1, 1))[0],
        operator.attributes.get("groups", 1),
        *(0.0,) * (3 + len(_COLUMN_BLOCKS)),
    ]
    if operator.weights is None:
        return features
    codes = operator.weights.codes
    kernel = int(np.prod(codes.shape[2:]))
    work = kernel * int(np.prod(out[1:])) * _blocks(out[0], _ROW_BLOCK)
    columns = codes.shape[1]
    features[7:] = [
        kernel,
        codes.size,
        entropy_bytes(codes),
        *(work * _blocks(columns, block) for block in _COLUMN_BLOCKS),
    ]
    return features


def _blocks(count: int, size: int) -> int:
    """``count`` rounded up to whole blocks."""
    return -(-count // size) * size


def entropy_bytes(codes: np.ndarray) -> float:
    """Bytes of the codes at their own entropy, as an ideal coder of single codes needs them."""
    if codes.dtype != np.int8:
        return float(codes.nbytes)
    counts = np.bincount(codes.reshape(-1).view(np.uint8), minlength=_CODES)
    share = counts[counts > 0] / max(codes.size, 1)
    return float(-(share * np.log2(share)).sum()) * codes.size / 8


# ---- latency of the whole -----------------------------------------------------------------------


def _prices(networks: Sequence[Network], costs: Sequence[NetworkCost], seed: int) -> Latencies:
    """``seed`` is not needed: nothing here is random."""
    names = list(dict.fromkeys(op.name for network in networks for op in network.operators))
    places = {name: place for place, name in enumerate(names)}

    def amounts(network: Network) -> np.ndarray:
        """``[operators, 3]`` MACs, elements moved, and 1; zeros for what is gone."""
        table = np.zeros((len(names), 3))
        for operator in network.operators:
            if operator.name in places:
                table[places[operator.name]] = _amounts(network, operator)
        return table

    tables = np.stack([amounts(network) for network in networks])
    unit = np.maximum(tables.max(0), 1.0)
    true = np.array([cost.latency_s for cost in costs], dtype=float)
    design = (tables / unit).reshape(len(networks), -1) / true[:, None]  # relative errors count
    solved = nnls(design, np.ones(len(true)))[0].reshape(unit.shape)
    prices = solved / unit

    def latencies(network: Network) -> dict[str, float]:
        return dict(zip(names, (amounts(network) * prices).sum(1).tolist(), strict=True))

    return latencies


def _amounts(network: Network, operator: Operator) -> tuple[float, float, float]:
    edges = [network.edges[name].shape for name in (*operator.inputs, operator.output)]
    moved = sum(int(np.prod(shape)) for shape in edges)
    if operator.weights is None:
        return 0.0, moved, 1.0
    codes = operator.weights.codes
    rows = _blocks(len(codes), _ROW_BLOCK)
    positions = int(np.prod(edges[-1][1:]))
    return rows * int(np.prod(codes.shape[1:])) * positions, moved, 1.0


# ---- flash --------------------------------------------------------------------------------------


def _stored(network: Network) -> np.ndarray:
    """``[4]`` entropy of all codes in bytes, their number, the number of rows, 1."""
    found = [op.weights for op in network.operators if op.weights is not None]
    codes = sum(entropy_bytes(weights.codes) for weights in found)
    count = sum(weights.codes.size for weights in found)
    return np.array([codes, count, sum(len(weights.bits) for weights in found), 1.0])


def _fit_storage(networks: Sequence[Network], costs: Sequence[NetworkCost]) -> np.ndarray | None:
    if any(cost.flash_bytes is None for cost in costs):
        return None
    design = np.stack([_stored(network) for network in networks])
    stored = np.array([cost.flash_bytes for cost in costs], dtype=float)
    solved: np.ndarray = np.linalg.lstsq(design, stored, rcond=None)[0]
    return solved
