"""The model card of an export, in the Hugging Face convention: front matter, then text.

Fields of the front matter: https://huggingface.co/docs/hub/model-cards. Every figure comes from
``result.json`` of the run or from a cost model; nothing is measured for a card.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ajpq.config.schema import ProblemConfig
from ajpq.exporters.carried import FILES_FOLLOW, MADE_BY, beginning, with_license
from ajpq.exporters.pricing import Price
from ajpq.exporters.readers.content import plain
from ajpq.exporters.rendering import code, rendered
from ajpq.exporters.source import CONVENTIONS, WITH_RANGE, Source, shareable
from ajpq.files import write_atomically
from ajpq.policy import CompressionPolicy
from ajpq.reporting.style import duration, percent, quantity, width_name
from hw_models.errors import AjpqError

UNKNOWN_LICENSE = "unknown"


def check_card_place(folder: Path) -> None:
    """May ``README.md`` of this folder be written?

    Raises:
        AjpqError: there is one that someone else has written.
    """
    path = folder / "README.md"
    if path.exists() and MADE_BY not in beginning(path):
        raise AjpqError(f"{path} is no model card of ours; choose another folder: --out DIR")


def write_card(
    folder: Path,
    source: Source,
    files: Mapping[str, Path],
    prices: Sequence[Price],
    license: str | None = None,
) -> Path:
    """Write ``README.md``; a card that came with a packed file is taken along.

    Args:
        files: format -> exported file.
        prices: of the network on targets.
        license: of the checkpoint; unknown unless someone states it.
    """
    path = folder / "README.md"
    carried = with_license(source.card, license) if source.card else ""
    text = carried or model_card(source, prices, license)
    write_atomically(path, (text + _files(source, files)).encode())
    return path


def model_card(source: Source, prices: Sequence[Price], license: str | None) -> str:
    """Front matter and text, up to the list of files."""
    front = yaml.safe_dump(front_matter(source, license), sort_keys=False, allow_unicode=True)
    config, result = source.config, source.result
    text = rendered(
        "card.md.j2",
        made_by=MADE_BY,
        name=_name(source),
        network=source.network,
        source=source,
        config=config,
        data=shareable(config.data) if config else "",
        target=shareable(config.target) if config else "",
        checkpoint=_checkpoint(config) if config else "",
        recipe=_recipe(config.full_recipe.model_dump(mode="json", exclude_defaults=True))
        if config
        else "",
        methods=", ".join(config.full_recipe.methods) if config else "",
        accuracies=_accuracies(result),
        costs=_costs(result),
        prices=_prices(prices, config.target if config else ""),
        layers=_layers(source.policy),
        widths=_width_summary(source.policy),
        license=license,
        version=importlib.metadata.version("ajpq"),
        versions=result.get("versions") or {},
        result=result,
    )
    return f"---\n{front}---\n\n{text.rstrip()}\n"


def front_matter(source: Source, license: str | None) -> dict[str, Any]:
    """The fields of the convention, and ``model-index`` with the results where there are any."""
    config = source.config
    fields: dict[str, Any] = {
        "license": license or UNKNOWN_LICENSE,
        "library_name": "ajpq",
        "pipeline_tag": "image-classification",
        "tags": ["ajpq", "quantization", "pruning", "edge"],
    }
    if config is not None:
        fields["tags"].append(shareable(config.target).partition(",")[0])
        fields["datasets"] = [shareable(config.data)]
    fields["metrics"] = ["accuracy"]
    if config is not None and source.result:
        fields["model-index"] = [{"name": _name(source), "results": [_results(source, config)]}]
    return fields


def _results(source: Source, config: ProblemConfig) -> dict[str, Any]:
    data = shareable(config.data)
    named = {"top-1, compressed (%)": source.result["found"].get("top1_test")}
    full = source.result["found"].get("top1_test_full_precision")
    if full is not None:
        named["top-1, same weights at full precision (%)"] = full
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": data, "name": data, "split": "test"},
        "metrics": [
            {"type": "accuracy", "name": name, "value": round(float(value), 4)}
            for name, value in named.items()
            if value is not None
        ],
    }


def _name(source: Source) -> str:
    name = shareable(source.config.model) if source.config else source.network.name
    return plain(name or "network")


def _checkpoint(config: ProblemConfig) -> str:
    if config.checkpoint is None:
        return f"was trained with the recipe `{code(config.base.name)}` in the same run"
    return f"is the checkpoint `{code(shareable(config.checkpoint))}`"


def _recipe(recipe: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(recipe), sort_keys=False).strip().replace("```", "'''")


def _accuracies(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What, of the original, of the compressed network."""
    if not result:
        return []
    before, after = result["baseline"], result["found"]
    rows = [
        ("top-1, test images", percent(before["top1_test"]), percent(after["top1_test"])),
        ("top-1, validation images", percent(before["top1_val"]), percent(after["top1_val"])),
    ]
    full = after.get("top1_test_full_precision")
    if full is not None:
        rows.insert(1, ("top-1, test images, same weights at full precision", "", percent(full)))
    return rows


def _costs(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The same of the costs on the run's target."""
    if not result:
        return []
    before, after = result["baseline"], result["found"]

    def row(label: str, key: str, unit: str) -> tuple[str, str, str]:
        return label, quantity(before.get(key), unit), quantity(after.get(key), unit)

    bops = [
        (f"BOPs, {label}", quantity(before["bops"][key], ""), quantity(after["bops"][key], ""))
        for key, label in CONVENTIONS.items()
    ]
    latency = ("latency", duration(before.get("latency_s")), duration(after.get("latency_s")))
    rows = [
        latency,
        row("packed file (original: float32 weights)", "packed_bytes", "B"),
        row("flash", "flash_bytes", "B"),
        row("peak of activations", "peak_activation_bytes", "B"),
        ("energy", _energy(before.get("energy_j")), _energy(after.get("energy_j"))),
        row("MACs", "macs", ""),
        *bops,
    ]
    return [line for line in rows if line[2] != "n/a"]


def _energy(joules: float | None) -> str:
    return "n/a" if joules is None else f"{1e6 * joules:.4g} µJ"


def _prices(prices: Sequence[Price], own_target: str) -> list[tuple[str, ...]]:
    """Costs on the targets that the run is not about."""
    return [
        (
            price.target,
            duration(price.found.latency_s),
            duration(price.baseline.latency_s if price.baseline else None),
            quantity(price.found.flash_bytes, "B"),
            quantity(price.found.peak_activation_bytes, "B"),
            _energy(price.found.energy_j),
        )
        for price in prices
        if price.target != own_target
    ]


def _layers(policy: CompressionPolicy | None) -> list[tuple[str, ...]]:
    """Name, channels, share pruned, mean width of the others, widths, width of the input."""
    if policy is None:
        return []
    rows: list[tuple[str, ...]] = []
    for name, layer in policy.layers.items():
        live = layer.bits[layer.bits > 0]
        mean = f"{live.mean():.2f}" if len(live) else "none"
        counts = Counter(layer.weight_bits)
        widths = ", ".join(f"{counts[bits]} x {width_name(bits)}" for bits in sorted(counts))
        sparsity = f"{100 * layer.sparsity:.0f} %"
        channels, activation = str(len(layer.weight_bits)), str(layer.activation_bits)
        rows.append((name, channels, sparsity, mean, widths, activation))
    return rows


def _width_summary(policy: CompressionPolicy | None) -> str:
    if policy is None:
        return ""
    counts = Counter(bits for layer in policy.layers.values() for bits in layer.weight_bits)
    return ", ".join(f"{counts[bits]} {width_name(bits)}" for bits in sorted(counts))


def _files(source: Source, files: Mapping[str, Path]) -> str:
    shown = {
        name: (path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for name, path in files.items()
    }
    guessed = WITH_RANGE if source.output_range is None else frozenset()
    return FILES_FOLLOW + rendered("card_files.md.j2", files=shown, guessed=guessed)
