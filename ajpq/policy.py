"""The policy: what a search finds, as plain validated data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, field_validator

from ajpq.files import write_atomically
from hw_models.base import Target
from hw_models.errors import AjpqError
from hw_models.plain import clipped, read_json, shown

WEIGHT_BITS = (0, 2, 3, 4, 5, 6, 7, 8, 32)
ACTIVATION_BITS = (2, 3, 4, 5, 6, 7, 8, 32)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __deepcopy__(self, memo: object = None) -> Self:
        """Nobody changes one; environments of Stable-Baselines3 copy all that they tell."""
        return self


class LayerPolicy(_Frozen):
    """Widths of one layer.

    Attributes:
        weight_bits: one width per output channel; 0 is pruned, 32 is untouched.
        activation_bits: width of the codes that the layer reads.
    """

    weight_bits: Annotated[tuple[int, ...], FailFast()] = Field(min_length=1)
    activation_bits: int = 8

    @field_validator("weight_bits")
    @classmethod
    def _known_widths(cls, bits: tuple[int, ...]) -> tuple[int, ...]:
        wrong = sorted(set(bits) - set(WEIGHT_BITS))
        if wrong:
            raise ValueError(f"expected widths in {WEIGHT_BITS}, got {wrong[0]}")
        return bits

    @field_validator("activation_bits")
    @classmethod
    def _known_activation(cls, bits: int) -> int:
        if bits not in ACTIVATION_BITS:
            raise ValueError(f"expected a width in {ACTIVATION_BITS}, got {bits}")
        return bits

    @property
    def bits(self) -> np.ndarray:
        """``[O]`` int64."""
        return np.asarray(self.weight_bits, dtype=np.int64)

    @property
    def sparsity(self) -> float:
        """Share of the output channels that are pruned."""
        return float((self.bits == 0).mean())


class QuantizerSpec(_Frozen):
    """Which quantizer turns the weights into codes, so that a policy replays years later."""

    name: str = "uniform"
    version: int = 1
    params: dict[str, Any] = Field(default_factory=dict)


class CompressionPolicy(_Frozen):
    """Per layer one bit-width per output channel and one activation width, and the quantizer."""

    schema_version: Literal[1] = 1
    layers: dict[str, LayerPolicy] = Field(min_length=1)
    quantizer: QuantizerSpec = QuantizerSpec()

    @property
    def hash(self) -> str:
        """Hex sha256 (first 16 digits) of the canonical JSON: equal policies, equal hashes."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write JSON with the hash beside the content, atomically."""
        content = {"hash": self.hash, **self.model_dump(mode="json")}
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def load_policy(path: Path) -> CompressionPolicy:
    """Read and verify a policy.

    A file without a hash, written by hand for example, is taken as it is.

    Raises:
        AjpqError: the file is missing, is no policy, or its hash does not match its content.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        hashed, stated = "hash" in content, content.pop("hash", None)
        policy = CompressionPolicy.model_validate(content)
    except OSError as error:
        raise AjpqError(f"cannot read the policy {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = clipped(".".join(map(str, first["loc"])))
        raise AjpqError(f"{path} is not a valid policy: {where}: {first['msg']}") from error
    except ValueError as error:
        raise AjpqError(f"{path} is not a policy: {error}") from error
    if hashed and stated != policy.hash:
        raise AjpqError(
            f"{path} was altered: its content hashes to {policy.hash}, it says {shown(stated)}"
        )
    return policy


def uniform_policy(
    channels: dict[str, int],
    weight_bits: int,
    activation_bits: int = 8,
    outer_bits: int | None = None,
) -> CompressionPolicy:
    """The same width everywhere, but for the outer layers if ``outer_bits`` is given.

    Args:
        channels: layer name -> number of output channels, in execution order.
        outer_bits: width of the first and the last layer's weights, and the least width of the
            activations that these read.
    """
    outer = {next(iter(channels)), next(reversed(channels))} if outer_bits is not None else set()
    layers = {}
    for name, count in channels.items():
        width, activation = weight_bits, activation_bits
        if outer_bits is not None and name in outer:
            width, activation = outer_bits, max(activation_bits, outer_bits)
        layers[name] = LayerPolicy(weight_bits=(width,) * count, activation_bits=activation)
    return CompressionPolicy(layers=layers)


def check_policy(policy: CompressionPolicy, channels: dict[str, int], target: Target) -> None:
    """Does the policy fit this network and this target?

    Raises:
        AjpqError: naming the layer and the value that does not fit.
    """
    for name in [*policy.layers, *channels]:
        if name in policy.layers and name in channels:
            continue
        side = "the network has no such layer" if name in policy.layers else "the policy lacks it"
        raise AjpqError(f"policy and network differ at layer {name!r}: {side}")
    for name, layer in policy.layers.items():
        if len(layer.weight_bits) != channels[name]:
            raise AjpqError(
                f"policy has {len(layer.weight_bits)} widths for layer {name!r}, "
                f"which has {channels[name]} output channels"
            )
        wrong = sorted(set(layer.weight_bits) - set(target.weight_bits))
        if wrong:
            raise AjpqError(
                f"target {target.name!r} stores weights of {target.weight_bits} bits, "
                f"layer {name!r} has {wrong[0]}"
            )
        if layer.activation_bits not in target.activation_bits:
            raise AjpqError(
                f"target {target.name!r} has activations of {target.activation_bits} bits, "
                f"layer {name!r} has {layer.activation_bits}"
            )
