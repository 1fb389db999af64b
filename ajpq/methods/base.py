"""What a method is: how layers and activations become quantized ones that can be trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ajpq.compressed import State, edge_owner, own_name, own_of, step_name, width_name
from ajpq.finetune.goal import Goal, Moment
from ajpq.graph.structure import Graph, layers
from ajpq.methods.activations import learned_edge, mse_step
from ajpq.quantizers import Quantizer
from hw_models.network import Edge

STORED = 8
"""Width of the codes of a row whose levels are not multiples of one step."""

Own = Mapping[str, Tensor]
"""Role, such as ``step`` -> what a method holds for one layer or one edge under that role."""


def is_narrow(bits: Tensor) -> Tensor:
    """``[O]`` bool: rows of less than 8 bits that are not pruned."""
    return (bits > 0) & (bits < STORED)


class Group(BaseModel):
    """How parameters of a method's own are trained.

    Attributes:
        learning_rate: at the start of a stage, whose schedule they follow; None: the stage's own.
        weight_decay: pulls them to zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, eq=False)
class Settled:
    """What a training leaves of one layer.

    Attributes:
        weight: ``[O, ...]`` real weights, which the policy's quantizer puts on codes.
        steps: ``[O]`` the grids that it shall use; None: fitted to ``weight``.
        bits: ``[O]`` widths that the method chose; None: those of the policy.
    """

    weight: Tensor
    steps: Tensor | None = None
    bits: Tensor | None = None


class Method(BaseModel, ABC):
    """A way to train a quantized network; its fields are its settings, all with defaults.

    A method that only says how weights are quantized overrides :meth:`quantized`; one that learns
    something declares a role for it in ``layer_roles``, gives its start in :meth:`start` and its
    training in :attr:`groups`. What has a role but no group is not trained and changes in
    :meth:`refreshed` only. All that is kept lies in the state under ``LAYER.ROLE`` or
    ``edge.EDGE.ROLE`` and survives an interruption.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def keeping_widths(self) -> Method | None:
        """What trains the finalists of a search: by default the method itself.

        Its rows end with the levels of the widths that the policy gave them, or fewer; they may be
        stored as wider codes. None where there is no such variant of the method.
        """
        return self

    layer_roles: ClassVar[tuple[str, ...]] = ()
    edge_roles: ClassVar[tuple[str, ...]] = ("step",)
    narrow_only: ClassVar[bool] = False
    """Are rows of 8 bits left to the quantizer, so that there must be narrower ones?"""
    undone_by_others: ClassVar[bool] = False
    """Would training by another method lose what is more than grids, such as zeros or blocks?"""

    # --- weights ---

    @property
    def groups(self) -> Mapping[str, Group]:
        """Roles of layers that are trained."""
        return {}

    def start(self, weight: Tensor, bits: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
        """What every role of a layer starts with.

        Args:
            weight: ``[O, ...]`` float32, without a gradient.
            bits: ``[O]`` int64; 0 is pruned, 32 is untouched.
        """
        return {}

    @abstractmethod
    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """Quantized weights ``[O, ...]`` through which gradients reach ``weight`` and ``own``.

        Rows of 0 bits are zero, rows of 32 bits the weights themselves.
        """

    def living(self, bits: Tensor, made: Tensor) -> Tensor:
        """``bits [O]``, 0 for the channels that ``made``, the quantized weights, shows as pruned.

        Their BatchNorm offset is zero too, in training as in the end.
        """
        return bits

    def settled(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Settled:
        """What is left of a layer when training ends; by default its learned steps, if any."""
        return Settled(weight, own.get("step"))

    # --- activations ---

    @property
    def edge_groups(self) -> Mapping[str, Group]:
        """Roles of edges that are trained; by default LSQ's step."""
        return {"step": Group()}

    def start_edge(self, values: Tensor, edge: Edge) -> dict[str, Tensor]:
        """What every role of an edge starts with, given its ``values [N, C, ...]`` of one batch."""
        return {"step": mse_step(values, edge)}

    def quantized_edge(self, values: Tensor, edge: Edge, own: Own) -> Tensor:
        """``values`` on codes; gradients reach them and ``own``. Compiled along with the network.

        Of ``edge`` only width and sign count.
        """
        return learned_edge(values, edge, own["step"])

    def edge_step(self, edge: Edge, own: Own) -> Tensor:
        """The step ``[]`` of an edge's grid when training ends."""
        return own["step"]

    # --- the whole network ---

    def refreshed(self, moment: Moment) -> dict[str, Tensor]:
        """State-dict name -> new value of what is fitted anew at the start of an epoch.

        A pure function of ``moment``, so that a resumed training ends alike.
        """
        return {}

    def finished(self, graph: Graph, goal: Goal, state: State) -> dict[str, Tensor]:
        """The state that a stage ends with: every layer settled, every edge with its step.

        Steps lie in it under ``LAYER.step`` and ``edge.EDGE.step``, chosen widths under
        ``LAYER.width``.
        """
        done = dict(state)
        for layer in layers(graph):
            name, own = layer.node.parameters["weight"], own_of(state, layer.name, self.layer_roles)
            found = self.settled(state[name], goal.bits[layer.name], own, goal.quantizer)
            done[name] = found.weight
            done.pop(step_name(layer.name), None)
            if found.steps is not None:
                done[step_name(layer.name)] = found.steps
            if found.bits is not None:
                done[width_name(layer.name)] = found.bits.float()
            elif width_name(layer.name) in done:  # which an earlier stage chose
                done[width_name(layer.name)] = goal.bits[layer.name].float()
        for edge, grid in goal.grids.items():
            if own := own_of(state, edge_owner(edge), self.edge_roles):
                done[own_name(edge_owner(edge), "step")] = self.edge_step(grid, own)
        return done
