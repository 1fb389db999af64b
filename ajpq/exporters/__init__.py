"""Formats that a compressed network can be written in. One file per format, one line each here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajpq.exporters import (
    onnx_blocked_file,
    onnx_file,
    packed_file,
    policy_file,
    qonnx_file,
    tflite_file,
    torch_file,
    vela_file,
)
from ajpq.exporters.expected import Expected, Verdict
from ajpq.policy import CompressionPolicy
from hw_models.base import Target
from hw_models.network import Network

Exporter = Callable[[Network, CompressionPolicy | None, Path], Path]
"""Writes its file into an existing folder and returns the file's path. Without a policy, which a
packed file does not hold, only the format ``policy`` is refused."""

Verifier = Callable[[Path, Expected], Verdict]
"""Runs a file, or checks what can be checked, against the reference."""


@dataclass(frozen=True)
class Format:
    """A way to write a compressed network; ``file`` is the name that its file gets."""

    file: str
    export: Exporter
    verify: Verifier


FORMATS: Mapping[str, Format] = {
    "policy": Format(policy_file.FILE, policy_file.export_policy, policy_file.verify_policy),
    "packed": Format(packed_file.FILE, packed_file.export_packed, packed_file.verify_packed),
    "torch": Format(torch_file.FILE, torch_file.export_torch, torch_file.verify_torch),
    "onnx": Format(onnx_file.FILE, onnx_file.export_onnx, onnx_file.verify_onnx),
    "onnx-blocked": Format(
        onnx_blocked_file.FILE,
        onnx_blocked_file.export_onnx_blocked,
        onnx_blocked_file.verify_onnx_blocked,
    ),
    "tflite": Format(tflite_file.FILE, tflite_file.export_tflite, tflite_file.verify_tflite),
    "vela": Format(vela_file.FILE, vela_file.export_vela, vela_file.verify_vela),
    "qonnx": Format(qonnx_file.FILE, qonnx_file.export_qonnx, qonnx_file.verify_qonnx),
}

EXPORTERS: Mapping[str, Exporter] = {name: own.export for name, own in FORMATS.items()}


def formats_for(
    target: Target | None, output_range: tuple[float, float] | None = None
) -> dict[str, Format]:
    """All formats, those that leave something open bound to what is known.

    Args:
        target: what ``vela`` compiles for, if it is an Ethos-U.
        output_range: of the logits of ``tflite`` and ``vela``; see
            :func:`ajpq.exporters.tflite_file.logit_range`.
    """
    known: dict[str, Any] = {"target": target, "output_range": output_range}
    tflite = functools.partial(tflite_file.export_tflite, output_range=output_range)
    compiled = Format(
        vela_file.FILE,
        functools.partial(vela_file.export_vela, **known),
        functools.partial(vela_file.verify_vela, **known),
    )
    return {
        **FORMATS,
        "tflite": Format(tflite_file.FILE, tflite, tflite_file.verify_tflite),
        "vela": compiled,
    }
