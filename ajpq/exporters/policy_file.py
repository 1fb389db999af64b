"""Format ``policy``: the policy as JSON."""

from __future__ import annotations

from pathlib import Path

from ajpq.policy import CompressionPolicy
from hw_models.errors import AjpqError
from hw_models.network import Network


def export_policy(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``policy.json``.

    Raises:
        AjpqError: there is no policy.
    """
    if policy is None:
        raise AjpqError(
            "format 'policy' needs the run: a packed file holds the network, whose pruned channels "
            "are gone, and not the policy"
        )
    path = folder / "policy.json"
    policy.save(path)
    return path
