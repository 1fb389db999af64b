"""BatchNorm statistics of a few batches, nearly as exact as those of many.

Which images a batch happens to hold moves the statistics of a compressed network as it moves those
of the uncompressed one. What the same few batches say of the latter, next to what many say of it,
tells by how much: the method of control variates (Hammersley and Handscomb, Monte Carlo Methods,
1964, chapter 5). The many are shown once, to one network; the few to every candidate. The nearer a
network still is to the uncompressed one, the more it helps: with activations of two or three bits
deep layers scatter by themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from ajpq.compressed import State
from ajpq.graph.structure import Graph
from ajpq.simulation.calibration import recalibrate_batchnorm

# A channel that is dead in the few batches and not in the many is no measure of anything.
_MOST, _MOST_DEVIATIONS = 2.0, 0.5


@dataclass(frozen=True, eq=False)
class Control:
    """BatchNorm statistics of the uncompressed network, by state-dict name.

    Attributes:
        few: averaged over the batches that compressed networks are shown.
        many: averaged over more of the same kind.
    """

    few: Mapping[str, Tensor]
    many: Mapping[str, Tensor]


def measured_control(graph: Graph, state: State, batches: Iterable[Tensor], few: int) -> Control:
    """What the uncompressed network says of the first ``few`` batches and of all.

    Args:
        state: its parameters and buffers, by state-dict name.
        batches: images ``[N, C, H, W]``, augmented as in training; seen one at a time.
    """
    stream, count = iter(batches), 0

    def others() -> Iterator[Tensor]:
        nonlocal count
        for images in stream:
            count += 1
            yield images

    def statistics(shown: Iterable[Tensor]) -> dict[str, Tensor]:
        return recalibrate_batchnorm(graph, state, shown, lambda edge, values: values)

    first, rest = statistics(itertools.islice(stream, few)), statistics(others())
    share = count / (few + count)
    return Control(
        first, {name: own.lerp(rest.get(name, own), share) for name, own in first.items()}
    )


def corrected(graph: Graph, statistics: State, control: Control) -> dict[str, Tensor]:
    """``statistics`` over the few batches, moved to where they would be over the many.

    Variances by the same factor as those of the uncompressed network, means by as many standard
    deviations; by no more than a few batches may be wrong about a channel that is alive in them.
    Channels that a compressed network has no more are moved too; nothing reads them.

    Args:
        statistics: running means and variances of a compressed network, by state-dict name.
    """
    found = dict(statistics)
    for node in graph.nodes:
        if node.kind == "batchnorm":
            eps = node.attributes["eps"]
            mean, variance = node.parameters["running_mean"], node.parameters["running_var"]
            few, many = control.few[variance] + eps, control.many[variance] + eps
            deviations = (control.many[mean] - control.few[mean]) / few.sqrt()
            step = deviations.clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)
            found[mean] = statistics[mean] + step * statistics[variance].sqrt()
            found[variance] = statistics[variance] * (many / few).clamp(1 / _MOST, _MOST)
    return found
