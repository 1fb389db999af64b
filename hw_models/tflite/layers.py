"""Layers: what multiplies by constant rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw_models.network import Network, Operator, Weights
from hw_models.tflite.program import Program, Site, Tensor
from hw_models.tflite.weights import Rows, affine_rows, integer_rows
from hw_models.tflite.windows import Sliding, place, windows


def weights_of(operator: Operator) -> Weights:
    """The rows of a layer; the IR promises that there are some."""
    assert operator.weights is not None
    return operator.weights


def _constants(
    program: Program, rows: Rows, codes: np.ndarray, axis: int, scale_in: float
) -> tuple[int, int]:
    """Weight and bias tensors; ``codes`` are the rows in the operator's own layout."""
    scales = tuple(map(float, rows.scales))
    steps = tuple(map(float, rows.scales * np.float32(scale_in)))
    weight = program.add(
        Tensor(f"{program.owner}/weight", codes.shape, "int8", scales, 0, axis, codes)
    )
    bias = program.add(
        Tensor(f"{program.owner}/bias", rows.bias.shape, "int32", steps, 0, 0, rows.bias)
    )
    return weight, bias


def _rows(program: Program, weights: Weights, source: int, output: int) -> Rows:
    scale_in, scale_out = program.grid(source).scale, program.grid(output).scale
    return integer_rows(program.owner, weights, scale_in, scale_out)


def convolve(
    program: Program,
    weights: Weights,
    source: int,
    output: int,
    *,
    sliding: Sliding | None = None,
    fused: int = 0,
) -> None:
    """A convolution; depthwise if every row reads one channel of several."""
    rows = _rows(program, weights, source, output)
    sliding = sliding or Sliding(rows.codes.shape[2:])
    both = windows(program.shape(source), program.shape(output), sliding)
    placed, mode = place(program, source, both)
    fields = {
        "Padding": mode,
        "StrideH": sliding.stride[0],
        "StrideW": sliding.stride[1],
        "DilationHFactor": sliding.dilation[0],
        "DilationWFactor": sliding.dilation[1],
        "FusedActivationFunction": fused,
    }
    channels = program.shape(source)[-1]
    scale = program.grid(source).scale
    if rows.codes.shape[1] == 1 and channels > 1:
        codes = rows.codes.transpose(1, 2, 3, 0)
        inputs = (placed, *_constants(program, rows, codes, 3, scale))
        fields["DepthMultiplier"] = len(rows.codes) // channels
        program.emit("DEPTHWISE_CONV_2D", inputs, output, "DepthwiseConv2DOptions", fields)
        return
    inputs = (placed, *_constants(program, rows, rows.codes.transpose(0, 2, 3, 1), 0, scale))
    program.emit("CONV_2D", inputs, output, "Conv2DOptions", fields)


def conv(site: Site) -> None:
    """``conv``, grouped ones included: both sides number the groups alike."""
    weights = weights_of(site.operator)
    sizes = {k: tuple(site.operator.attributes[k]) for k in ("stride", "padding", "dilation")}
    sliding = Sliding(weights.codes.shape[2:], **sizes)
    convolve(site.program, weights, site.source, site.out, sliding=sliding, fused=site.fused)


def affine(site: Site) -> None:
    """``affine`` as a 1x1 depthwise convolution."""
    rows = affine_rows(weights_of(site.operator))
    scale_channels(site.program, rows, site.source, site.out, site.fused)


def scale_channels(
    program: Program, weights: Weights, source: int, output: int, fused: int
) -> None:
    """One factor and bias per channel, of images and of vectors."""
    shape = program.shape(output)
    if len(shape) == 4:
        convolve(program, weights, source, output, fused=fused)
        return
    image = (1, 1, 1, shape[-1])
    before = program.activation(f"{program.owner}/image", image, program.grid(source))
    after = program.activation(f"{program.owner}/scaled", image, program.grid(output))
    reshape(program, source, before)
    convolve(program, weights, before, after, fused=fused)
    reshape(program, after, output)


def reshape(program: Program, source: int, output: int) -> None:
    """The same codes in another shape."""
    shape = program.integers(f"{program.owner}/shape/{output}", program.shape(output))
    program.emit("RESHAPE", (source, shape), output, "ReshapeOptions")


def multiply(program: Program, weights: Weights, source: int, output: int, fused: int = 0) -> None:
    """A fully connected layer with one scale per row."""
    rows = _rows(program, weights, source, output)
    scale = program.grid(source).scale
    inputs = (source, *_constants(program, rows, rows.codes, 0, scale))
    fields = {"FusedActivationFunction": fused, "KeepNumDims": False}
    program.emit("FULLY_CONNECTED", inputs, output, "FullyConnectedOptions", fields)


def linear(site: Site) -> None:
    """``linear``; its columns follow the channels-last order of an image that was flattened."""
    weights = weights_of(site.operator)
    order = columns(site.network, site.operator.inputs[0])
    if order is not None:
        weights = replace(weights, codes=weights.codes[:, order])
    multiply(site.program, weights, site.source, site.out, site.fused)


def columns(network: Network, edge: str) -> np.ndarray | None:
    """Channels-outermost number of every channels-last position of a flattened image.

    ``None`` where the edge keeps the order of the IR: it is no flattened image, or something
    other than linear layers reads it too.
    """
    made = [op for op in network.operators if op.output == edge and op.kind == "flatten"]
    used = [op.kind for op in network.operators if edge in op.inputs]
    if not made or edge == network.output or set(used) != {"linear"}:
        return None
    shape = network.edges[made[0].inputs[0]].shape
    return np.arange(np.prod(shape)).reshape(shape).transpose(1, 2, 0).reshape(-1)


def average_rows(channels: int, window: tuple[int, ...]) -> Weights:
    """Rows of ones with scale ``1 / count``: an average that may change its grid."""
    count = int(np.prod(window))
    codes = np.ones((channels, 1, *window), np.int8)
    scales = np.full(channels, 1 / count, np.float32)
    return Weights(codes, scales, np.full(channels, 8, np.uint8), np.zeros(channels, np.float32))


def selection_rows(index: np.ndarray, channels: int) -> Weights:
    """Rows that pick one channel each, or none for -1; codes pass unchanged."""
    codes = np.zeros((len(index), channels, 1, 1), np.int8)
    kept = np.flatnonzero(index >= 0)
    codes[kept, index[kept]] = 1
    ones = np.ones(len(index), np.float32)
    return Weights(codes, ones, np.full(len(index), 8, np.uint8), np.zeros_like(ones))


def flat(weights: Weights) -> Weights:
    """Rows of a 1x1 convolution as rows of a fully connected layer."""
    return replace(weights, codes=weights.codes.reshape(weights.codes.shape[:2]))
