"""Format ``packed``: the smallest file, see :mod:`ajpq.packed`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ajpq import packed
from ajpq.exporters.expected import Expected, Verdict
from ajpq.policy import CompressionPolicy
from ajpq.reference import prepare
from hw_models.network import Network

FILE = "model.ajpq"


def export_packed(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``model.ajpq``."""
    return packed.save(network, folder / FILE)


def verify_packed(path: Path, expected: Expected) -> Verdict:
    """Load it and run it in the reference: every bit must be equal."""
    run = prepare(packed.load(path))
    answers = [run(torch.from_numpy(images)).numpy() for images in expected.images()]
    return expected.bit_equal(np.concatenate(answers), "the reference")
