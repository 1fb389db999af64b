"""Format ``tflite``: the very int8 file that Arm's compiler is given for an Ethos-U.

Input int8 ``[1, H, W, C]``, normalised and divided by the scale that the file states; output int8
``[1, classes]``. Channels of equal width stand side by side.
"""

from __future__ import annotations

from pathlib import Path

from ajpq.policy import CompressionPolicy
from hw_models.network import Network
from hw_models.ordering import by_width
from hw_models.tflite import lower, serialize


def export_tflite(network: Network, policy: CompressionPolicy | None, folder: Path) -> Path:
    """Write ``model.tflite``.

    Raises:
        AjpqError: the network has no int8 form.
    """
    path = folder / "model.tflite"
    path.write_bytes(serialize(lower(by_width(network)), network.input, network.output))
    return path
