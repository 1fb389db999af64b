"""What the first operators answered is remembered for the next network that begins alike.

Candidates that differ in late layers only, as those of a local search do, share the early ones. At
every point where a single edge is alive, such as between the blocks of a ResNet, its values are
kept under a hash of everything that they were computed from, if a network that was prepared before
has the same hash there. (To keep those of networks that nothing else begins like takes 8 % of a
candidate's time: memory that is never the same again.)
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hw_models.network import Network, Operator

_MOST_HASHES = 1 << 16


@dataclass(frozen=True, eq=False)
class Prefix:
    """Where a run can go on.

    Attributes:
        edge, values: what is alive, as the kernels keep it.
        noted: whatever the run noted on the way.
        images: that it began with; held so that no others take their place in memory.
    """

    edge: str
    values: Tensor
    noted: Any
    images: Tensor


class Prefixes:
    """The most recently used prefixes, up to ``most_bytes`` of values."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._kept: OrderedDict[tuple[bytes, int, int], Prefix] = OrderedDict()
        self._met: OrderedDict[bytes, None] = OrderedDict()

    def repeated(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Which of a network's keys one before it had too: their prefixes are worth keeping."""
        known = frozenset(key for key in keys if key in self._met)
        for key in keys:
            self._met[key] = None
            self._met.move_to_end(key)
        while len(self._met) > _MOST_HASHES:
            self._met.popitem(last=False)
        return known

    def longest(self, keys: Sequence[bytes], images: Tensor) -> tuple[int, Prefix] | None:
        """Number of operators that need not run for these images, and where to go on.

        Args:
            keys: as of :func:`prefix_keys`.
        """
        for count in reversed(range(len(keys))):
            place = _place(keys[count], images)
            if place in self._kept:
                self._kept.move_to_end(place)
                return count, self._kept[place]
        return None

    def keep(self, key: bytes, prefix: Prefix) -> None:
        """Remember, and forget what has not been used for the longest time."""
        place = _place(key, prefix.images)
        if place not in self._kept:
            self._bytes += prefix.values.nbytes
        self._kept[place] = prefix
        while self._bytes > self._most:
            self._bytes -= self._kept.popitem(last=False)[1].values.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of all values that are kept."""
        return self._bytes


def _place(key: bytes, images: Tensor) -> tuple[bytes, int, int]:
    return key, images.data_ptr(), len(images)


def prefix_keys(network: Network, more: Mapping[str, bytes]) -> list[bytes]:
    """A hash of the input's grid, and for every operator one of all that its output depends on but
    the images.

    Args:
        more: operator name -> what the network does not say of it.
    """
    digest = hashlib.sha256(repr(network.edges[network.input]).encode())
    keys = [digest.digest()]
    for op in network.operators:
        digest.update(_description(network, op) + more.get(op.name, b""))
        if op.weights is not None:
            for part in (op.weights.codes, op.weights.scales, op.weights.bias, op.weights.bits):
                digest.update(part.tobytes())
        keys.append(digest.digest())
    return keys


def _description(network: Network, op: Operator) -> bytes:
    edges = [network.edges[edge] for edge in (*op.inputs, op.output)]
    shape = None if op.weights is None else op.weights.codes.shape
    return repr((op.kind, edges, sorted(op.attributes.items()), op.activation, shape)).encode()
