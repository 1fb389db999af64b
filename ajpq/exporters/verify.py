"""Run exported files, to check them against the reference."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ajpq.exporters.packages import optional


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
    onnxruntime = optional("onnxruntime", "running an ONNX file", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"input": batch})[0] for batch in batches])


def described_onnxruntime() -> str:
    """Name and version."""
    return f"ONNX Runtime {version('onnxruntime')}"


def run_tflite(path: Path, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Logits of an int8 TensorFlow Lite file in LiteRT on the processor, one image at a time.

    Args:
        batches: float32 ``[N, C, H, W]``, normalised.

    Returns:
        ``[sum of N, classes]`` float32.

    Raises:
        AjpqError: ai-edge-litert is not installed.
    """
    litert = optional(
        "ai_edge_litert.interpreter",
        "running a TensorFlow Lite file",
        "ai-edge-litert",
        "ai-edge-litert",
    )
    interpreter = litert.Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = source["quantization"]
    logits = []
    for image in (image for batch in batches for image in batch):
        codes = np.clip(np.rint(image.transpose(1, 2, 0) / scale) + zero, -128, 127)
        interpreter.set_tensor(source["index"], codes[None].astype(np.int8))
        interpreter.invoke()
        logits.append(interpreter.get_tensor(result["index"])[0])
    scale, zero = result["quantization"]
    real: np.ndarray = (np.array(logits, dtype=np.float32) - zero) * np.float32(scale)
    return real
