"""A slow simulator of the network IR, written from its description alone: NumPy and int64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hw_models.network import Edge, Network, Operator

F32 = np.float32


def simulate(network: Network, images: np.ndarray) -> np.ndarray:
    """``[N, C, H, W]`` float32 to logits; every edge holds int64 codes or float32 reals."""
    values = {network.input: requantize(images.astype(F32), network.edges[network.input])}
    for op in network.operators:
        inputs = [values[edge] for edge in op.inputs]
        sources = [network.edges[edge] for edge in op.inputs]
        values[op.output] = run(op, inputs, sources, network.edges[op.output])
    return values[network.output]


def requantize(real: np.ndarray, edge: Edge) -> np.ndarray:
    assert real.dtype == F32
    if edge.bits == 32:
        return real
    low, high = edge.code_range
    return np.clip(np.rint(real / F32(edge.scale)), low, high).astype(np.int64)


def activate(x: np.ndarray, function: str | None) -> np.ndarray:
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-x.astype(np.float64)))
    results: dict[str | None, Any] = {
        None: x,
        "relu": np.maximum(x, F32(0)),
        "relu6": np.clip(x, F32(0), F32(6)),
        "hardswish": x * np.clip(x + F32(3), F32(0), F32(6)) / F32(6),
        "hardsigmoid": np.clip(x + F32(3), F32(0), F32(6)) / F32(6),
        "sigmoid": sigmoid.astype(F32),
        "silu": (sigmoid * x).astype(F32),
    }
    return results[function]


def run(op: Operator, x: list[np.ndarray], sources: list[Edge], out: Edge) -> np.ndarray:
    scales = [F32(edge.scale) for edge in sources]
    a = op.attributes
    if op.kind in ("conv", "linear", "affine"):
        w = op.weights
        rows = (1, -1, 1, 1)[: x[0].ndim]
        if op.kind == "conv":
            total = conv(x[0], w.codes.astype(np.int64), a)
        elif op.kind == "linear":
            total = x[0] @ w.codes.astype(np.int64).T
        else:
            total = x[0] * w.codes.astype(np.int64).reshape(rows)
        real = total.astype(F32) * (scales[0] * w.scales).reshape(rows) + w.bias.reshape(rows)
        return requantize(activate(real, op.activation), out)
    if op.kind == "activation":
        return requantize(activate(x[0].astype(F32) * scales[0], a["function"]), out)
    if op.kind == "requantize":
        return requantize(x[0].astype(F32) * scales[0], out)
    if op.kind in ("add", "mul"):
        left, right = (v.astype(F32) * s for v, s in zip(x, scales, strict=True))
        if right.ndim < left.ndim:
            right = right[:, :, None, None]
        real = left + right if op.kind == "add" else left * right
        return requantize(activate(real, op.activation), out)
    if op.kind in ("globalavgpool", "avgpool"):
        total, count = averaged(op, x[0])
        return requantize(total.astype(F32) * scales[0] / count.astype(F32), out)
    return move(op, x)


def move(op: Operator, x: list[np.ndarray]) -> np.ndarray:
    a = op.attributes
    match op.kind:
        case "concat":
            return np.concatenate(x, 1)
        case "select":
            zero = np.zeros_like(x[0][:, 0])
            return np.stack([x[0][:, i] if i >= 0 else zero for i in a["index"]], 1)
        case "subsample":
            return x[0][:, :, :: a["stride"][0], :: a["stride"][1]]
        case "pad":
            left, right, top, bottom = a["padding"]
            return np.pad(x[0], ((0, 0), (0, 0), (top, bottom), (left, right)))
        case "flatten":
            return x[0].reshape(len(x[0]), -1)
        case "maxpool":
            lowest = np.iinfo(np.int64).min
            return np.max(windows(x[0], a, lowest), axis=(-2, -1))
    raise AssertionError(op.kind)


def averaged(op: Operator, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if op.kind == "globalavgpool":
        return x.sum((2, 3), keepdims=True), np.array(x.shape[2] * x.shape[3])
    inside = windows(np.ones_like(x), op.attributes, int(op.attributes["count_include_pad"]))
    return windows(x, op.attributes, 0).sum((-2, -1)), inside.sum((-2, -1))


def windows(x: np.ndarray, a: Any, fill: int, kernel: Sequence[int] | None = None) -> np.ndarray:
    """``[N, C, H', W', kh, kw]``; no ceil mode."""
    assert not a.get("ceil_mode", False)
    kh, kw = kernel or a["kernel"]
    ph, pw = a["padding"]
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))
    return view[:, :, :: a["stride"][0], :: a["stride"][1]]


def conv(x: np.ndarray, codes: np.ndarray, a: Any) -> np.ndarray:
    assert tuple(a["dilation"]) == (1, 1)
    patches = windows(x, a, 0, codes.shape[2:])
    outputs, inputs = len(codes) // a["groups"], x.shape[1] // a["groups"]
    parts = [
        np.einsum(
            "nchwij,ocij->nohw",
            patches[:, g * inputs : (g + 1) * inputs],
            codes[g * outputs : (g + 1) * outputs],
        )
        for g in range(a["groups"])
    ]
    return np.concatenate(parts, 1)
