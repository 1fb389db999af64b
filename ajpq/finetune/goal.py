"""What a stage trains towards, and what a method may ask between two epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ajpq.compressed import State
from ajpq.graph.execute import Hook
from ajpq.graph.structure import Graph
from ajpq.quantizers import Quantizer
from hw_models.network import Edge


@dataclass(frozen=True, eq=False)
class Goal:
    """What ``psg`` and ``straight_through`` stages train towards.

    Attributes:
        bits: layer name -> ``[O]`` widths.
        grids: edge name -> its width and sign, and the step that calibration found.
    """

    bits: Mapping[str, Tensor]
    quantizer: Quantizer
    grids: Mapping[str, Edge]


@dataclass(frozen=True, eq=False)
class Moment:
    """A training at the start of an epoch, for methods that fit something anew then.

    Attributes:
        epoch: from 0.
        progress: share of the training that is done.
        state: the present parameters and buffers, the method's own among them; without gradients.
        owners: edge on a grid of the method's -> under whose name its parameters are, and its
            width and sign.
        hook: puts the edges on their grids, as the training does.
        loss: of given layer weights (by layer name, pruned channels as they are) and a hook on
            every edge: the stage's loss on the first images of the epoch, in float32, not compiled,
            differentiable twice. It changes nothing.
    """

    epoch: int
    progress: float
    graph: Graph
    goal: Goal
    state: State
    owners: Mapping[str, tuple[str, Edge]]
    hook: Hook
    loss: Callable[[Mapping[str, Tensor], Hook], Tensor]
