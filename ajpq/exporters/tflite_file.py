"""Format ``tflite``: the very int8 file that Arm's compiler is given for an Ethos-U.

Input int8 ``[1, H, W, C]``, normalised and divided by the scale that the file states; output int8
``[1, classes]``. Channels of equal width stand side by side.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from ajpq.exporters.expected import Expected, Verdict
from ajpq.exporters.verify import run_tflite
from ajpq.policy import CompressionPolicy
from hw_models.network import Network
from hw_models.ordering import by_width
from hw_models.tflite import write_tflite

FILE = "model.tflite"


def export_tflite(network: Network, policy: CompressionPolicy, folder: Path) -> Path:
    """Write ``model.tflite``.

    Raises:
        AjpqError: the network has no int8 form.
    """
    (folder / FILE).write_bytes(int8_file(network))
    return folder / FILE


def int8_file(network: Network) -> bytes:
    """The content of ``model.tflite``."""
    return write_tflite(by_width(network))


def verify_tflite(path: Path, expected: Expected) -> Verdict:
    """Run it in LiteRT on the processor, one image at a time.

    Raises:
        AjpqError: the package ai-edge-litert is not installed.
    """
    logits = run_tflite(path, expected.images())
    return expected.within_rounding(logits, f"LiteRT {version('ai-edge-litert')}")
