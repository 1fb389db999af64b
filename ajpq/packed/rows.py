"""The scales and biases of all rows of a network in the stream, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ajpq.packed import histograms, numbers
from ajpq.packed.codes import (
    Group,
    close_stream,
    count_codes,
    decode_groups,
    decode_low,
    open_stream,
)
from ajpq.packed.layers import Layer, weighted
from ajpq.packed.numbers import CLASS_BITS, Numbers
from ajpq.packed.structure import STORED, zero_rows
from hw_models.network import Network, Weights


def stores_zero_rows(kind: int) -> bool:
    """Does a file hold scales and biases of zero rows, given ``zero_rows`` of its structure?"""
    return kind == STORED


def stored_rows(weights: Weights) -> np.ndarray:
    """``[O]`` bool: rows whose scale and bias a file holds."""
    return (weights.bits > 0) | stores_zero_rows(zero_rows(weights))


def numbers_of(network: Network) -> tuple[Numbers, Numbers]:
    """Scales and biases of all stored rows, operators in execution order."""
    scales, biases = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    steps = [np.zeros(0, np.float32)]
    for op, weights in weighted(network):
        rows = stored_rows(weights)
        scales.append(weights.scales[rows])
        biases.append(weights.bias[rows])
        steps.append(np.float32(network.edges[op.inputs[0]].scale) * scales[-1])
    joined = np.concatenate(steps)
    return (
        numbers.of_scales(np.concatenate(scales)),
        numbers.of_biases(np.concatenate(biases), joined),
    )


def number_groups(found: Sequence[Numbers]) -> list[Group]:
    """The classes, which stand behind the codes of the last layer."""
    return [(CLASS_BITS, own.classes) for own in found if len(own.classes)]


def read_rows(
    stream: bytes, layers: Sequence[Layer], stored: Sequence[np.ndarray], sources: Sequence[float]
) -> tuple[Iterator[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """The codes of all parts of layers, and per layer the scales and biases of its stored rows.

    Args:
        stored: ``[O]`` bool of each layer.
        sources: scale of the edge that each layer reads.

    Raises:
        AjpqError: the stream does not belong to these layers.
    """
    if not layers:
        close_stream(open_stream(stream))
        return iter(()), [], []
    counts = [int(rows.sum()) for rows in stored]
    classes = [(CLASS_BITS, sum(counts))] * 2 if any(counts) else []
    coder = open_stream(stream)
    groups = decode_groups(coder, [part for layer in layers for part in layer.parts] + classes)
    of_scales, of_biases = groups[-2:] if classes else [np.zeros(0, np.int8)] * 2
    bits = numbers.scale_low_bits(of_scales), numbers.bias_low_bits(of_biases)
    low = [decode_low(coder, own) for own in bits]
    close_stream(coder)
    scales = numbers.to_scales(Numbers(of_scales, low[0], bits[0]))
    steps = np.repeat(np.asarray(sources, np.float64).astype(np.float32), counts) * scales
    biases = numbers.to_biases(Numbers(of_biases, low[1], bits[1]), steps)
    ends = np.cumsum(counts)[:-1]
    return iter(groups), np.split(scales, ends), np.split(biases, ends)


def class_counts(network: Network) -> np.ndarray:
    """``[2, 64]`` how often each class of scales and of biases occurs, the lowest first."""
    return np.stack([count_codes(CLASS_BITS, own.classes) for own in numbers_of(network)])


def number_bits(counts: np.ndarray) -> float:
    """Bits that scales and biases take in a stream, from their :func:`class_counts`."""
    if not counts.any():
        return 0.0
    return float(histograms.fit(counts, CLASS_BITS)[0].sum() + (counts * _LOW_BITS).sum())


_ALL_CLASSES = np.arange(-(2 ** (CLASS_BITS - 1)), 2 ** (CLASS_BITS - 1))
_LOW_BITS = np.stack(
    [numbers.scale_low_bits(_ALL_CLASSES), numbers.bias_low_bits(_ALL_CLASSES)]
).astype(np.int64)
