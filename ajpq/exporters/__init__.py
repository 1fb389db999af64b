"""Formats that a compressed network can be written in. One file per format, one line each here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ajpq.exporters.onnx_file import export_onnx
from ajpq.exporters.packed_file import export_packed
from ajpq.exporters.policy_file import export_policy
from ajpq.exporters.tflite_file import export_tflite
from ajpq.policy import CompressionPolicy
from hw_models.network import Network

Exporter = Callable[[Network, CompressionPolicy | None, Path], Path]
"""Writes its file into an existing folder and returns the file's path. Without a policy, which a
packed file does not hold, only the format ``policy`` is refused."""

EXPORTERS: Mapping[str, Exporter] = {
    "policy": export_policy,
    "onnx": export_onnx,
    "tflite": export_tflite,
    "packed": export_packed,
}
