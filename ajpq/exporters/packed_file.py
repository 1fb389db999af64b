"""Format ``packed``: the smallest file, see :mod:`ajpq.packed`."""

from __future__ import annotations

from pathlib import Path

from ajpq import packed
from ajpq.policy import CompressionPolicy
from hw_models.network import Network


def export_packed(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``model.ajpq``."""
    return packed.save(network, folder / "model.ajpq")
