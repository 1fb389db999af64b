"""What the layers of a network ask of a device, for one network or many at once.

Analytic cost models price this table instead of the network itself, so that thousands of policies
are priced by a few array operations. Axes: ``P`` policies, ``L`` layers, ``W`` the widths of
:data:`WIDTHS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw_models.errors import AjpqError
from hw_models.liveness import edge_bytes, peak_activation_bytes
from hw_models.network import Network, Operator
from hw_models.size_only import stored_bytes

WIDTHS = (0, 2, 3, 4, 5, 6, 7, 8, 32)
BITS = np.array(WIDTHS)


@dataclass(frozen=True, eq=False)
class Geometry:
    """What no policy changes, ``[L]`` each; a linear layer is a 1 x 1 convolution of one position.

    Attributes:
        height, width: positions of the output.
        kernel_height, kernel_width: positions of the kernel.
    """

    names: tuple[str, ...]
    height: np.ndarray
    width: np.ndarray
    kernel_height: np.ndarray
    kernel_width: np.ndarray

    @property
    def positions(self) -> np.ndarray:
        """``[L]`` output positions."""
        return self.height * self.width

    @property
    def kernel(self) -> np.ndarray:
        """``[L]`` positions of the kernel: 9 for 3 x 3."""
        return self.kernel_height * self.kernel_width


@dataclass(frozen=True, eq=False)
class Work:
    """Policies of one network in the terms of hardware.

    A layer that a policy has removed altogether has zeros everywhere.

    Attributes:
        rows: ``[P, L, W]`` output channels stored at each width; those of width 0 are there but
            zero, because something coupled to them lives.
        active: ``[P, L, W]`` groups of the convolution that hold a row of this width.
        inputs: ``[P, L]`` input channels that one output channel reads.
        groups: ``[P, L]`` of the convolution.
        input_bits: ``[P, L]`` width of the codes that the layer reads.
        input_bytes, output_bytes: ``[P, L]`` of the activations that it reads and writes.
        stored_bytes: ``[P, L]`` of packed codes, widths, scales and biases.
        other_bytes: ``[P]`` that operators which are no layers store.
        peak_activation_bytes: ``[P]`` the largest sum of live activations.
    """

    geometry: Geometry
    rows: np.ndarray
    active: np.ndarray
    inputs: np.ndarray
    groups: np.ndarray
    input_bits: np.ndarray
    input_bytes: np.ndarray
    output_bytes: np.ndarray
    stored_bytes: np.ndarray
    other_bytes: np.ndarray
    peak_activation_bytes: np.ndarray

    @property
    def row_macs(self) -> np.ndarray:
        """``[P, L]`` multiply-accumulates of one output channel."""
        return self.geometry.positions * self.geometry.kernel * self.inputs

    @property
    def weight_bits(self) -> np.ndarray:
        """``[P, L]`` bits of all weights of the layer."""
        return (self.rows * BITS).sum(-1) * self.geometry.kernel * self.inputs

    def tiles(self, rows_per_tile: int) -> np.ndarray:
        """``[P, L, W]`` tiles of output channels of equal width, each group on its own."""
        groups = np.maximum(self.active, 1)
        return self.active * -(-self.rows // (groups * rows_per_tile)) * (BITS > 0)


def work_of(network: Network) -> Work:
    """The table of one network: ``P`` is 1."""
    return joined([network])


def joined(forms: Sequence[Network]) -> Work:
    """The table of several compressed forms of the same network, one row each.

    Raises:
        AjpqError: there are none, or they are not forms of the same network.
    """
    if not forms:
        raise AjpqError("expected at least one network, got none")
    geometry, order = _geometry(forms)
    columns = [_columns(network, order) for network in forms]
    return Work(
        geometry=geometry,
        other_bytes=np.array([_other_bytes(network) for network in forms]),
        peak_activation_bytes=np.array([peak_activation_bytes(network) for network in forms]),
        **{name: np.stack([column[name] for column in columns]) for name in columns[0]},
    )


def _geometry(forms: Sequence[Network]) -> tuple[Geometry, dict[str, int]]:
    """Of the layers that any form still has, and the place of each."""
    found: dict[str, tuple[int, ...]] = {}
    for network in forms:
        for op in network.layers:
            height, width = (*network.edges[op.output].shape[1:], 1, 1)[:2]
            own = (height, width, *(*_codes(op).shape[2:], 1, 1)[:2])
            if found.setdefault(op.name, own) != own:
                raise AjpqError(
                    f"layer {op.name!r} is {own} in one network, {found[op.name]} in another"
                )
    table = np.array(list(found.values())).reshape(len(found), 4)
    return Geometry(tuple(found), *table.T), {name: index for index, name in enumerate(found)}


def _columns(network: Network, order: dict[str, int]) -> dict[str, np.ndarray]:
    per_layer = ("inputs", "groups", "input_bits", "input_bytes", "output_bytes", "stored_bytes")
    columns: dict[str, Any] = {name: np.zeros(len(order), np.int64) for name in per_layer}
    columns |= {name: np.zeros((len(order), len(WIDTHS)), np.int64) for name in ("rows", "active")}
    for op in network.layers:
        index, read = order[op.name], network.edges[op.inputs[0]]
        columns["rows"][index], columns["active"][index] = _rows_and_groups(op)
        columns["inputs"][index] = _codes(op).shape[1]
        columns["groups"][index] = _groups(op)
        columns["input_bits"][index] = read.bits
        columns["input_bytes"][index] = edge_bytes(read)
        columns["output_bytes"][index] = edge_bytes(network.edges[op.output])
        columns["stored_bytes"][index] = stored_bytes(op)
    return columns


def _groups(op: Operator) -> int:
    return max(int(op.attributes.get("groups", 1)), 1)


def _codes(op: Operator) -> np.ndarray:
    assert op.weights is not None
    return op.weights.codes


def _rows_and_groups(op: Operator) -> tuple[list[int], list[int]]:
    """Rows of each width, and groups of the convolution that have one."""
    assert op.weights is not None
    by_group = op.weights.bits.reshape(_groups(op), -1)
    rows = [int((by_group == width).sum()) for width in WIDTHS]
    if sum(rows) != by_group.size:
        wrong = sorted(set(by_group.flat) - set(WIDTHS))
        raise AjpqError(f"layer {op.name!r} has rows of {wrong[0]} bits, expected one of {WIDTHS}")
    return rows, [int((by_group == width).any(1).sum()) for width in WIDTHS]


def _other_bytes(network: Network) -> int:
    layers = {op.name for op in network.layers}
    return sum(stored_bytes(op) for op in network.operators if op.name not in layers)
