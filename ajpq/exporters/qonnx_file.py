"""Format ``qonnx``: arbitrary widths for compilers to FPGAs, see :mod:`hw_models.onnx.qonnx`.

Input and output as those of format ``onnx``. The widths are written down, the weights are stored
as float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ajpq.exporters.expected import Expected, Verdict
from ajpq.exporters.packages import optional
from ajpq.policy import CompressionPolicy
from hw_models.network import Network

FILE = "model_qonnx.onnx"


def export_qonnx(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``model_qonnx.onnx``; the package qonnx is not needed for it.

    Raises:
        AjpqError: the package onnx is not installed.
    """
    onnx = optional("onnx", "format 'qonnx'", "onnx")
    from hw_models.onnx.qonnx import build_qonnx

    onnx.save(build_qonnx(network), folder / FILE)
    return folder / FILE


def verify_qonnx(path: Path, expected: Expected) -> Verdict:
    """Run it in the executor of the package qonnx, which calls ONNX Runtime node by node.

    Raises:
        AjpqError: the package qonnx is not installed.
    """
    logits = run_qonnx(path, expected.images())
    return expected.within_rounding(logits, f"qonnx {version('qonnx')}")


def run_qonnx(path: Path, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Logits ``[sum of N, classes]`` float32; large batches are faster.

    Args:
        batches: float32 ``[N, C, H, W]``, normalised; batch sizes may differ.

    Raises:
        AjpqError: the package qonnx is not installed.
    """
    core = optional("qonnx.core.modelwrapper", "running a QONNX file", "qonnx")
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.change_batchsize import ChangeBatchSize
    from qonnx.transformation.infer_shapes import InferShapes

    model, size = core.ModelWrapper(str(path)), None
    logits = []
    for images in batches:
        if len(images) != size:  # the executor wants every shape beforehand
            size = len(images)
            model = model.transform(ChangeBatchSize(size)).transform(InferShapes())
        logits.append(execute_onnx(model, {"input": images})["logits"])
    return np.concatenate(logits)
