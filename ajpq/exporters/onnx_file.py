"""Format ``onnx``: an int8 file for ONNX Runtime, and for anything else that reads QDQ.

Input ``input``: float32 ``[N, C, H, W]``, normalised. Output ``logits``: float32 ``[N, classes]``.
"""

from __future__ import annotations

from pathlib import Path

from ajpq.policy import CompressionPolicy
from hw_models.errors import AjpqError
from hw_models.network import Network


def export_onnx(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``model.onnx``.

    Raises:
        AjpqError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise AjpqError(
            "format 'onnx' needs the package onnx: pip install 'ajpq[export]'"
        ) from error
    from hw_models.onnx.lower import build_model

    path = folder / "model.onnx"
    onnx.save(build_model(network), path)
    return path
