"""Format ``tflite``: the int8 file that Arm's compiler is given for an Ethos-U.

In a search it prices the same file but for the range of the logits, which it guesses there.

Input int8 ``[1, H, W, C]``, normalised and divided by the scale that the file states; output int8
``[1, classes]``. Channels of equal width stand side by side.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from ajpq.exporters.expected import Expected, Verdict
from ajpq.exporters.verify import run_tflite
from ajpq.policy import CompressionPolicy
from hw_models.network import Network
from hw_models.ordering import by_width
from hw_models.tflite import write_tflite

FILE = "model.tflite"
_HEADROOM = 1.25  # images that have not been seen go further


def export_tflite(
    network: Network,
    policy: CompressionPolicy | None,
    folder: Path,
    output_range: tuple[float, float] | None = None,
) -> Path:
    """Write ``model.tflite``.

    Args:
        output_range: see :func:`logit_range`; a guess that is several times too wide without it.

    Raises:
        AjpqError: the network has no int8 form.
    """
    (folder / FILE).write_bytes(int8_file(network, output_range))
    return folder / FILE


def int8_file(network: Network, output_range: tuple[float, float] | None = None) -> bytes:
    """The content of ``model.tflite``."""
    return write_tflite(by_width(network), output_range)


def logit_range(logits: Tensor) -> tuple[float, float]:
    """The range in which 8 bits tell classes apart best.

    What is above the largest second-best logit can only be the best of its image, and what is
    below the smallest best one cannot: both may saturate, so that the codes lie where two logits
    compete. On 5,000 validation images of CIFAR-10, rounding changes the class of 0.1 % with
    ResNet-8 and of 0.08 % with ResNet-20; with a range that holds every logit, of 1.0 and 0.4 %.

    Args:
        logits: ``[N, classes]`` of the reference, on other images than the test images.
    """
    best, second = logits.topk(2, 1).values.unbind(1)
    return min(0.0, float(best.min())), _HEADROOM * max(float(second.max()), 1e-6)


def verify_tflite(path: Path, expected: Expected) -> Verdict:
    """Run it in LiteRT on the processor, one image at a time.

    Raises:
        AjpqError: the package ai-edge-litert is not installed.
    """
    logits = run_tflite(path, expected.images())
    return expected.within_rounding(logits, f"LiteRT {version('ai-edge-litert')}")
