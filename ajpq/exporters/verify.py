"""Run exported files, to check them against the reference."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hw_models.errors import AjpqError


def run_onnx(path: Path, batches: Iterable[np.ndarray], threads: int = 1) -> np.ndarray:
    """Logits of an ONNX file in ONNX Runtime on the processor.

    Args:
        batches: float32 ``[N, C, H, W]``, normalised; batch sizes may differ.
        threads: within one operator.

    Returns:
        ``[sum of N, classes]`` float32.

    Raises:
        AjpqError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise AjpqError(
            "running an ONNX file needs the package onnxruntime: pip install 'ajpq[export]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"input": batch})[0] for batch in batches])
