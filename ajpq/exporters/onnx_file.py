"""Format ``onnx``: an int8 file for ONNX Runtime, and for anything else that reads QDQ.

Input ``input``: float32 ``[N, C, H, W]``, normalised. Output ``logits``: float32 ``[N, classes]``.
"""

from __future__ import annotations

from pathlib import Path

from ajpq.exporters.expected import Expected, Verdict
from ajpq.exporters.packages import optional
from ajpq.exporters.verify import described_onnxruntime, run_onnx
from ajpq.policy import CompressionPolicy
from hw_models.network import Network

FILE = "model.onnx"


def export_onnx(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``model.onnx``.

    Raises:
        AjpqError: the package onnx is not installed.
    """
    onnx = optional("onnx", "format 'onnx'", "onnx")
    from hw_models.onnx.lower import build_model

    onnx.save(build_model(network), folder / FILE)
    return folder / FILE


def verify_onnx(path: Path, expected: Expected) -> Verdict:
    """Run it in ONNX Runtime; rounding may differ from the reference in exact ties.

    Raises:
        AjpqError: the package onnxruntime is not installed.
    """
    logits = run_onnx(path, expected.images())
    return expected.within_rounding(logits, described_onnxruntime())
