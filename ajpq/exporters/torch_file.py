"""Format ``torch``: a ``torch.export`` program of :func:`ajpq.modules.as_module`.

It takes normalised float32 images ``[N, C, H, W]`` and gives float32 logits ``[N, classes]`` for
any N. ``torch.export.load(path).module()`` needs PyTorch and nothing of this package. That call
unpickles: load such a file only from someone you trust.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ajpq.exporters.expected import Expected, Verdict
from ajpq.modules import as_module
from ajpq.policy import CompressionPolicy
from hw_models.network import Network

FILE = "model.pt2"


def export_torch(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``model.pt2``."""
    images = torch.zeros(2, *network.edges[network.input].shape)
    batch = {"images": {0: torch.export.Dim("batch")}}
    with torch.no_grad():
        program = torch.export.export(as_module(network), (images,), dynamic_shapes=batch)
    for node in program.graph.nodes:  # where the code lay on this machine is nobody's business
        node.meta.pop("stack_trace", None)
    with warnings.catch_warnings():
        # weights in channels-last layout are stored whole all the same
        warnings.filterwarnings("ignore", "No complete tensor found in the group")
        torch.export.save(program, folder / FILE)
    return folder / FILE


def verify_torch(path: Path, expected: Expected) -> Verdict:
    """Load it and run it: it is the reference's own arithmetic, so every bit must be equal."""
    logits = run_torch(path, expected.images())
    return expected.bit_equal(logits, f"PyTorch {torch.__version__}")


@torch.no_grad()
def run_torch(path: Path, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Logits ``[sum of N, classes]`` float32 of an exported program.

    Args:
        batches: float32 ``[N, C, H, W]``, normalised; batch sizes may differ.
    """
    module = torch.export.load(path).module()
    return np.concatenate([module(torch.from_numpy(images)).numpy() for images in batches])
