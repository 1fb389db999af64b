"""Format ``policy``: the policy as JSON."""

from __future__ import annotations

from pathlib import Path

from ajpq.policy import CompressionPolicy
from hw_models.network import Network


def export_policy(network: Network, policy: CompressionPolicy, folder: Path) -> Path:
    """Write ``policy.json``."""
    path = folder / "policy.json"
    policy.save(path)
    return path
