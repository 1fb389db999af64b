"""Format ``policy``: the policy as JSON."""

from __future__ import annotations

from pathlib import Path

from ajpq.exporters.expected import Expected, Verdict
from ajpq.policy import CompressionPolicy, load_policy
from hw_models.errors import AjpqError
from hw_models.network import Network

FILE = "policy.json"


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
    policy.save(folder / FILE)
    return folder / FILE


def verify_policy(path: Path, expected: Expected) -> Verdict:
    """Read it and compare its hash; there is nothing to run."""
    if expected.policy is None:
        return Verdict(False, "a packed file holds no policy to compare it with")
    found = load_policy(path).hash
    return Verdict(found == expected.policy.hash, f"hash {found}")
