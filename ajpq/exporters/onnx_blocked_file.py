"""Format ``onnx-blocked``: the small ONNX file, weights as INT2, INT4 and INT8 blocks.

Input and output as those of format ``onnx``. It computes with real numbers: a file to store and to
send, not the fast one. Opset 25; see :mod:`hw_models.onnx.blocked`.
"""

from __future__ import annotations

from pathlib import Path

from ajpq.exporters.expected import Expected, Verdict
from ajpq.exporters.packages import optional
from ajpq.exporters.verify import described_onnxruntime, run_onnx
from ajpq.policy import CompressionPolicy
from hw_models.network import Network

FILE = "model_blocked.onnx"


def export_onnx_blocked(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``model_blocked.onnx``.

    Raises:
        AjpqError: the package onnx is not installed.
    """
    onnx = optional("onnx", "format 'onnx-blocked'", "onnx")
    from hw_models.onnx.blocked import build_blocked

    onnx.save(build_blocked(network), folder / FILE)
    return folder / FILE


def verify_onnx_blocked(path: Path, expected: Expected) -> Verdict:
    """Run it in ONNX Runtime; sums of real numbers are rounded, the reference's are exact.

    Raises:
        AjpqError: the package onnxruntime is not installed.
    """
    logits = run_onnx(path, expected.images())
    return expected.within_rounding(logits, described_onnxruntime())
