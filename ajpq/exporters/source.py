"""What an export starts from, and what the exported files say of it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ajpq.config.schema import RunConfig
from ajpq.policy import CompressionPolicy
from hw_models.errors import AjpqError
from hw_models.network import Network
from hw_models.plain import shown

PACKED_FILE = "model.ajpq"
CARD_FILE = "README.md"
WITH_RANGE = frozenset(["tflite", "vela"])
"""Formats whose logits have 8 bits, so that a range for them must be known or guessed."""
CONVENTIONS = {"fl32": "outer layers ≥ 32 bit", "fl8": "outer layers ≥ 8 bit", "all": "as is"}
"""Of counting bit operations, as ``result.json`` names them."""


@dataclass(frozen=True, eq=False)
class Source:
    """A compressed network and what is known of it; a packed file knows the network only.

    Attributes:
        baseline: the int8 form of the uncompressed network.
        result: content of ``result.json``.
        mean, std: per channel, of pixel values in 0..1: how images are normalised.
        card: the text of the model card that came with a packed file, up to its list of files.
        output_range: of the logits, see :func:`ajpq.exporters.tflite_file.logit_range`.
    """

    network: Network
    policy: CompressionPolicy | None = None
    baseline: Network | None = None
    config: RunConfig | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    card: str = ""
    output_range: tuple[float, float] | None = None


def packed_file(path: Path) -> Path | None:
    """The packed file that a path names, itself or as a folder that is no run; else None."""
    if path.is_file():
        return path
    inside = path / PACKED_FILE
    return inside if inside.is_file() and not (path / "config.yaml").exists() else None


def check_result(result: Mapping[str, Any]) -> None:
    """Does the result of a run have what a card and a statement tell of it?

    Raises:
        AjpqError: naming the first entry that is missing or of the wrong type.
    """
    for part in ("baseline", "found"):
        own = result.get(part)
        if not isinstance(own, Mapping):
            raise AjpqError(f"result.json has no entry {part!r}: got {shown(own)}")
        for key in ("top1_test", "top1_val"):
            _check_number(f"{part}.{key}", own.get(key))
        bops = own.get("bops")
        for key in CONVENTIONS:
            _check_number(f"{part}.bops.{key}", bops.get(key) if isinstance(bops, dict) else None)


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AjpqError(f"result.json: expected a number as {name}, got {shown(value)}")


def statement(source: Source) -> dict[str, Any]:
    """What a sealed file says of itself; None where it is not known. Plain JSON, no paths."""
    network, result = source.network, source.result
    return {
        "ajpq": importlib.metadata.version("ajpq"),
        "network": network.name,
        "policy": source.policy.hash if source.policy else None,
        "input": {
            "shape": list(network.edges[network.input].shape),
            "mean": source.mean,
            "std": source.std,
        },
        "output": {"shape": list(network.edges[network.output].shape)},
        "data": shareable(source.config.data) if source.config else None,
        "target": shareable(source.config.target) if source.config else None,
        "top1_test": result["found"].get("top1_test") if result else None,
    }


def shareable(spec: str) -> str:
    """A name from a configuration without the folders of the machine it was used on."""
    return spec.rstrip("/").rpartition("/")[2] or spec
