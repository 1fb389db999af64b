"""BatchNorm statistics of a few batches, nearly as exact as those of many.

Which images a batch happens to hold moves the statistics of a compressed network as it moves those
of the uncompressed one. What the same few batches say of the latter, next to what many say of it,
tells by how much: the method of control variates (Hammersley and Handscomb, Monte Carlo Methods,
1964, chapter 5). The many are shown once, to one network; the few to every candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ajpq.compressed import State
from ajpq.graph.structure import Graph
from ajpq.simulation.calibration import recalibrate_batchnorm


@dataclass(frozen=True, eq=False)
class Control:
    """BatchNorm statistics of the uncompressed network, by state-dict name.

    Attributes:
        few: averaged over the batches that compressed networks are shown.
        many: averaged over more of the same kind.
    """

    few: Mapping[str, Tensor]
    many: Mapping[str, Tensor]


def measured_control(
    graph: Graph, state: State, few: Sequence[Tensor], many: Sequence[Tensor]
) -> Control:
    """What the uncompressed network says of both.

    Args:
        state: its parameters and buffers, by state-dict name.
        few, many: images ``[N, C, H, W]``, augmented as in training.
    """

    def statistics(batches: Sequence[Tensor]) -> dict[str, Tensor]:
        return recalibrate_batchnorm(graph, state, batches, lambda edge, values: values)

    return Control(statistics(few), statistics(many))


def corrected(graph: Graph, statistics: State, control: Control) -> dict[str, Tensor]:
    """``statistics`` over the few batches, moved to where they would be over the many.

    Variances by the same factor as those of the uncompressed network, means by as many standard
    deviations.

    Args:
        statistics: running means and variances of a compressed network, by state-dict name.
    """
    found = dict(statistics)
    for node in graph.nodes:
        if node.kind == "batchnorm":
            eps = node.attributes[
                "eps"
            ]  # channels that the few batches leave dead are not blown up
            mean, variance = node.parameters["running_mean"], node.parameters["running_var"]
            few, many = control.few[variance] + eps, control.many[variance] + eps
            own = statistics[variance] + eps
            deviations = (control.many[mean] - control.few[mean]) / few.sqrt()
            found[mean] = statistics[mean] + deviations * own.sqrt()
            found[variance] = (own * many / few - eps).clamp(min=0.0)
    return found
