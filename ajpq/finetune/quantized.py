"""The quantized network that a ``straight_through`` stage trains, and how it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ajpq.compressed import (
    State,
    edge_owner,
    grid_number,
    own_name,
    own_of,
    step_name,
    width_name,
    with_weights,
)
from ajpq.finetune.goal import Goal
from ajpq.finetune.recipe import Stage
from ajpq.graph.execute import Hook, batch_statistics, channels_last, execute
from ajpq.graph.structure import GRID_PRESERVING, Graph, layers, quantized_edges
from ajpq.methods import EDGE_ROLES, ROLES, Group, Method
from ajpq.simulation.grids import fake_quantize
from hw_models.network import FLOAT_BITS, Edge

NARROW = 8
"""Activations of fewer bits are never left unrounded, and their steps can be learned."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """A network whose layers and edges go through a method.

    Attributes:
        fixed: edges on the grids that calibration found.
        learned: edges whose grids the method holds, each with the edge whose name they are under.
    """

    graph: Graph
    goal: Goal
    method: Method
    fixed: Mapping[str, Edge] = field(default_factory=dict)
    learned: Mapping[str, tuple[str, Edge]] = field(default_factory=dict)

    def weights(self, state: State) -> dict[str, Tensor]:
        """Layer name -> its quantized weights."""
        roles, goal = self.method.layer_roles, self.goal
        return {
            layer.name: self.method.quantized(
                state[layer.node.parameters["weight"]],
                goal.bits[layer.name],
                own_of(state, layer.name, roles),
                goal.quantizer,
            )
            for layer in layers(self.graph)
        }

    def view(self, state: State) -> dict[str, Tensor]:
        """``state`` with quantized weights, and pruned channels zero."""
        weights, bits = self.weights(state), self.goal.bits
        living = {name: self.method.living(bits[name], made) for name, made in weights.items()}
        return with_weights(self.graph, state, living, weights)

    def hook(self, state: State) -> Hook:
        """The ``edge`` hook of :func:`ajpq.graph.execute.execute`."""

        def quantize(edge: str, values: Tensor) -> Tensor:
            if edge in self.learned:
                owner, grid = self.learned[edge]
                own = own_of(state, edge_owner(owner), self.method.edge_roles)
                return self.method.quantized_edge(values, grid, own)
            if edge in self.fixed:
                grid = self.fixed[edge]
                return fake_quantize(values, grid.bits, grid.signed, grid.scale)
            return values

        return quantize

    @property
    def edges(self) -> dict[str, Edge]:
        """The edges under whose names the method holds grids."""
        return dict(self.learned.values())

    @property
    def groups(self) -> list[tuple[Group, list[str]]]:
        """What the method trains: how, and the state-dict names."""
        owners = [layer.name for layer in layers(self.graph)]
        edges = [edge_owner(edge) for edge in self.edges]
        return [
            (group, [own_name(owner, role) for owner in own])
            for own, groups in ((owners, self.method.groups), (edges, self.method.edge_groups))
            for role, group in groups.items()
            if own
        ]


def quantized_network(graph: Graph, goal: Goal, method: Method, stage: Stage) -> Quantized:
    """What a stage trains: which edges are rounded, and on whose grids."""
    narrow = {name: grid for name, grid in goal.grids.items() if grid.bits < NARROW}
    if stage.activations == "learned":
        return Quantized(graph, goal, method, learned=_owned(graph, narrow))
    if stage.activations == "real":
        return Quantized(graph, goal, method, fixed=narrow)
    fixed = {name: grid for name, grid in goal.grids.items() if grid.bits < FLOAT_BITS}
    return Quantized(graph, goal, method, fixed=fixed)


def _owned(graph: Graph, narrow: Mapping[str, Edge]) -> dict[str, tuple[str, Edge]]:
    """Edges to be rounded, each with the first of those that share its grid.

    What only moves codes about rounds nothing.
    """
    moved = {node.output for node in graph.nodes if node.kind in GRID_PRESERVING}
    first: dict[object, str] = {}
    for edge in narrow:
        first.setdefault(grid_number(graph, edge), edge)
    owners = {edge: first[grid_number(graph, edge)] for edge in narrow if edge not in moved}
    return {edge: (owner, narrow[owner]) for edge, owner in owners.items()}


def without_own(state: State, graph: Graph, kept: Method | None = None) -> dict[str, Tensor]:
    """``state`` without what methods hold; what ``kept`` knows stays, and widths that were chosen,
    because pruned channels stay pruned."""
    roles = ROLES - set(kept.layer_roles if kept else ())
    edge_roles = EDGE_ROLES - set(kept.edge_roles if kept else ())
    gone = {own_name(layer.name, role) for layer in layers(graph) for role in roles}
    gone |= {own_name(edge_owner(e), role) for e in quantized_edges(graph) for role in edge_roles}
    return {name: value for name, value in state.items() if name not in gone}


@torch.no_grad()
def started(network: Quantized, state: State, images: Callable[[], Tensor]) -> dict[str, Tensor]:
    """``state`` with a start for all that the method holds and an earlier stage has not left.

    Grids of another width than the goal's, which that stage ended with, are no start.

    Args:
        images: gives a training batch, with which edges are started, one after the other.
    """
    method, goal = network.method, network.goal
    found = without_own(state, network.graph, kept=method)
    for layer in layers(network.graph):
        weight = found[layer.node.parameters["weight"]].detach()
        own = method.start(weight, goal.bits[layer.name], goal.quantizer)
        step = step_name(layer.name)
        if step in found and width_name(layer.name) in found:
            same = found[width_name(layer.name)] == goal.bits[layer.name]
            found[step] = torch.where(same, found[step], own["step"])
        found = {**{own_name(layer.name, role): v for role, v in own.items()}, **found}
    if network.learned:
        found = {**_started_edges(network, found, images()), **found}
    return found


def _started_edges(network: Quantized, state: State, images: Tensor) -> dict[str, Tensor]:
    method, found = network.method, dict[str, Tensor]()

    def quantize(edge: str, values: Tensor) -> Tensor:
        if edge in network.learned:
            owner, grid = network.learned[edge]
            missing = method.start_edge(values, grid)
            for role, value in missing.items():
                found.setdefault(own_name(edge_owner(owner), role), value)
        return network.hook({**found, **state})(edge, values)

    view = {name: value.clone() for name, value in network.view(state).items()}  # statistics move
    execute(network.graph, view, channels_last(images), edge=quantize, batchnorm=batch_statistics)
    return found
