"""A finished run, read from its folder and checked: what replay, export and shrink start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ajpq.compressed import CompressedWeights, with_widths
from ajpq.config.paths import with_full_path
from ajpq.config.schema import RunConfig
from ajpq.graph.structure import Graph, layers
from ajpq.policy import CompressionPolicy, load_policy
from ajpq.runs.folder import load_config, load_weights
from ajpq.runs.seal import BASE_WEIGHTS, POLICY, WEIGHTS, load_sealed
from hw_models.errors import AjpqError
from hw_models.plain import shown


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """The content of a run folder.

    Attributes:
        config: with the uncompressed weights that the run kept, so that it needs no other file.
        stored: the configuration that the run was started with, which tells where those came from.
        result: ``result.json`` without the checksums.
    """

    folder: Path
    config: RunConfig
    result: Mapping[str, Any]
    policy: CompressionPolicy
    weights: CompressedWeights
    stored: RunConfig

    @property
    def asked(self) -> CompressionPolicy:
        """The policy that training began with, before its method chose other widths."""
        return with_widths(self.policy, self.weights.asked)


def load_finished(
    run_dir: Path, *, data: str | None = None, note: Callable[[str], None] = lambda text: None
) -> FinishedRun:
    """Read a finished run; its files are what it has left, or this fails.

    Args:
        data: where its data lie on this machine, if not where they did.
        note: told if the run is older than checksums.

    Raises:
        AjpqError: no run, an unfinished one, or a file that is damaged or was changed.
    """
    config = load_config(run_dir)
    result, sealed = load_sealed(run_dir)
    if not sealed:
        note(f"{run_dir} has no checksums: it was made before runs had any")
    policy = load_policy(run_dir / POLICY)
    if result.get("policy", policy.hash) != policy.hash:
        raise AjpqError(
            f"{run_dir / POLICY} is not the policy of this run: its hash is {policy.hash}, "
            f"the result is of {shown(result['policy'])}"
        )
    base = run_dir / BASE_WEIGHTS
    changes = {"checkpoint": str(base.absolute())} if base.exists() else {}
    if data is not None:
        changes["data"] = with_full_path(data)
    weights = load_weights(run_dir / WEIGHTS)
    usable = config.model_copy(update=changes)
    return FinishedRun(run_dir, usable, result, policy, weights, stored=config)


def check_weights(weights: CompressedWeights, graph: Graph, state: Mapping[str, Tensor]) -> None:
    """Are these weights of the network with this graph and these uncompressed weights?

    Raises:
        AjpqError: naming the first tensor that is missing, unexpected or of another shape.
    """
    channels = {layer.name: (layer.channels,) for layer in layers(graph)}
    normalised = [node for node in graph.nodes if node.kind == "batchnorm"]
    buffers = [n.parameters[role] for n in normalised for role in ("running_mean", "running_var")]
    _check_shapes("weight", weights.latent, {n: tuple(v.shape) for n, v in state.items()})
    _check_shapes("statistic", weights.buffers, {n: tuple(state[n].shape) for n in buffers})
    known = {name: channels[name] for name in weights.scales if name in channels}
    _check_shapes("steps of layer", weights.scales, known)
    for found in (weights.widths, weights.asked):
        chosen = {name: channels[name] for name in found if name in channels}
        _check_shapes("widths of layer", found, chosen)
    for edge in sorted(graph.code_edges - weights.ranges.keys()):  # older runs have no entries
        raise AjpqError(f"the run's weights lack the range of activations {edge!r}")


def check_widths(weights: CompressedWeights, policy: CompressionPolicy) -> None:
    """Are the widths that training chose, of layers of right shapes, those that the policy tells?

    Raises:
        AjpqError: naming the first layer and width that are not.
    """
    for name, own in weights.widths.items():
        for found, told in zip(own.tolist(), policy.layers[name].weight_bits, strict=True):
            if found != told:
                raise AjpqError(
                    f"the run's weights have a channel of {found:g} bits in layer {name!r}, "
                    f"which has {told} in its policy"
                )


def _check_shapes(
    what: str, found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    for name in [*wanted, *found]:
        if name not in found or name not in wanted:
            side = "lack" if name in wanted else "have an unexpected"
            raise AjpqError(f"the run's weights {side} {what} {name!r}")
        if tuple(found[name].shape) != wanted[name]:
            raise AjpqError(
                f"the run's weights have {what} {name!r} of shape {tuple(found[name].shape)}, "
                f"the network wants {wanted[name]}"
            )
