"""What ajpq's own files hold: packed networks, policies, weights. Nothing is unpickled."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ajpq import packed
from ajpq.exporters.readers.content import (
    LARGEST_JSON,
    MOST_STATED,
    Content,
    Part,
    limited,
    plain,
)
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.reporting.style import width_name
from hw_models.errors import AjpqError
from hw_models.network import Edge, Operator
from hw_models.plain import clipped, parsed_json

_NOT_BROKEN_DOWN = 1  # the version whose bytes nobody divides among layers


def read_packed(data: bytes) -> Content:
    """Read a packed file: its codes are decoded, which also shows that they are sound.

    Raises:
        AjpqError: damaged.
    """
    network, version = packed.unpack(data), int.from_bytes(data[4:6], "little")
    sizes = {}
    if version > _NOT_BROKEN_DOWN:
        sizes = {layer.name: layer.total for layer in packed.breakdown(data).layers}
    parts = [_operator(op, sizes.get(op.name, 0)) for op in network.operators]
    return Content(
        f"packed network, version {version}",
        {
            "network": plain(network.name),
            "inputs": _edge(network.edges[network.input]),
            "outputs": _edge(network.edges[network.output]),
        },
        tuple(parts),
        integrity="its checksum fits",
    )


def _operator(op: Operator, stored_bytes: int) -> Part:
    kind = plain(" + ".join(filter(None, [op.kind, op.activation])))
    if op.weights is None:
        return Part(plain(op.name), kind, "", stored_bytes)
    rows = widths(op.weights.bits)
    return Part(plain(op.name), kind, rows, stored_bytes)


def widths(bits: np.ndarray) -> str:
    """``3 x pruned, 13 x 4 bit``, of the rows of a layer."""
    counts = sorted(Counter(bits.tolist()).items())
    return plain(", ".join(f"{rows} x {width_name(width)}" for width, rows in counts))


def _edge(edge: Edge) -> str:
    shape = ", ".join(map(str, edge.shape))
    return f"{plain(edge.name)} {edge.bits} bits [{shape}]"


def read_policy(data: bytes) -> Content:
    """Read ``policy.json``.

    Raises:
        AjpqError: no policy, altered, or not byte for byte what ajpq writes.
    """
    if len(data) > LARGEST_JSON:
        raise AjpqError(f"it is no policy: expected at most {LARGEST_JSON:,} bytes")
    try:
        content = parsed_json(data.decode())
    except ValueError as error:
        raise AjpqError(f"it is no policy: {plain(str(error))}") from error
    if not isinstance(content, dict):
        raise AjpqError("it is JSON, but no policy")
    stated = content.pop("hash", None)
    try:
        policy = CompressionPolicy.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = clipped(".".join(map(str, first["loc"])))
        raise AjpqError(
            f"it is JSON, but no policy: {plain(where)}: {plain(first['msg'])}"
        ) from error
    if stated is not None and data != _written(policy):
        why = "its layout was changed" if stated == policy.hash else "its hash does not fit"
        raise AjpqError(f"it is not the policy that ajpq wrote: {why}")
    quantizer = f"{policy.quantizer.name}, version {policy.quantizer.version}"
    return Content(
        "policy",
        {"hash": policy.hash, "quantizer": plain(quantizer)},
        tuple(_layer(name, layer) for name, layer in policy.layers.items()),
        integrity="its hash fits" if stated is not None else "",
    )


def _written(policy: CompressionPolicy) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.json"
        policy.save(path)
        return path.read_bytes()


def _layer(name: str, layer: LayerPolicy) -> Part:
    kind = f"layer, {layer.activation_bits}-bit input"
    return Part(plain(name), kind, widths(layer.bits), 0)


def read_safetensors(data: bytes) -> Content:
    """Read the header of a safetensors file: names, types and shapes.

    Raises:
        AjpqError: damaged.
    """
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, LARGEST_JSON):
        raise AjpqError("it is no safetensors file: its header is too long")
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    limited(len(header), "tensors")
    spans = sorted((*map(int, entry["data_offsets"]), name) for name, entry in header.items())
    ends = [0, *(end for _, end, _ in spans)]
    if [start for start, _, _ in spans] != ends[:-1] or ends[-1] != len(data) - 8 - length:
        raise AjpqError("its tensors do not fill the file")
    parts = tuple(
        Part(
            plain(name), "tensor", plain(f"{header[name]['dtype']} {header[name]['shape']}"), b - a
        )
        for (_, b, name), a in zip(spans, ends, strict=False)
    )
    stated = {plain(key): plain(value) for key, value in list(metadata.items())[:MOST_STATED]}
    return Content("safetensors weights", parts=parts, stated=stated)
