"""What the operators of the IR mean, written once more: slow, direct, float64."""

from __future__ import annotations

import itertools

import numpy as np

from hw_models.network import FLOAT_BITS, Edge, Network, Operator


def real(codes: np.ndarray, edge: Edge) -> np.ndarray:
    return codes.astype(np.float64) * edge.scale


def to_edge(values: np.ndarray, edge: Edge) -> np.ndarray:
    """Real values on the grid of an edge: codes, or the values themselves where it is real."""
    if edge.bits == FLOAT_BITS:
        return values
    return np.clip(np.rint(values / edge.scale), *edge.code_range)


def activate(x: np.ndarray, function: str | None) -> np.ndarray:
    relu6 = np.clip(x + 3, 0, 6) / 6
    table = {
        None: lambda: x,
        "relu": lambda: np.maximum(x, 0),
        "relu6": lambda: np.clip(x, 0, 6),
        "hardswish": lambda: x * relu6,
        "hardsigmoid": lambda: relu6,
        "sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "silu": lambda: x / (1 + np.exp(-x)),
    }
    return table[function]()


def evaluate(network: Network, operator: Operator, inputs: list[np.ndarray]) -> np.ndarray:
    """Codes (or real values) of the operator's output from the codes of its inputs."""
    edges = [network.edges[name] for name in operator.inputs]
    output = network.edges[operator.output]
    values = [real(codes, edge) for codes, edge in zip(inputs, edges, strict=True)]
    result = OPERATORS[operator.kind](operator, values, output)
    return to_edge(activate(result, operator.activation), output)


def _rows(operator: Operator) -> tuple[np.ndarray, np.ndarray]:
    w = operator.weights
    scales = w.scales.astype(np.float64).reshape((-1,) + (1,) * (w.codes.ndim - 1))
    return w.codes * scales, w.bias.astype(np.float64)


def conv(operator, values, output):
    weight, bias = _rows(operator)
    (sh, sw), (ph, pw), (dh, dw) = (
        operator.attributes[k] for k in ("stride", "padding", "dilation")
    )
    x = np.pad(values[0], ((0, 0), (ph, ph), (pw, pw)))
    depth, (kh, kw) = weight.shape[1], weight.shape[2:]
    result = np.empty(output.shape)
    per_group = len(weight) // operator.attributes["groups"]
    for o, i, j in itertools.product(*map(range, output.shape)):
        first = o // per_group * depth
        rows = slice(i * sh, i * sh + (kh - 1) * dh + 1, dh)
        columns = slice(j * sw, j * sw + (kw - 1) * dw + 1, dw)
        result[o, i, j] = (x[first : first + depth, rows, columns] * weight[o]).sum() + bias[o]
    return result


def linear(operator, values, output):
    weight, bias = _rows(operator)
    return weight @ values[0] + bias


def affine(operator, values, output):
    weight, bias = _rows(operator)
    shape = (-1,) + (1,) * (values[0].ndim - 1)
    return values[0] * weight.reshape(shape) + bias.reshape(shape)


def select(operator, values, output):
    index = np.asarray(operator.attributes["index"])
    picked = values[0][np.maximum(index, 0)]
    picked[index < 0] = 0
    return picked


def _windows(operator, x, output):
    (kh, kw), (sh, sw), (ph, pw) = (operator.attributes[k] for k in ("kernel", "stride", "padding"))
    _, height, width = x.shape
    for i, j in itertools.product(range(output.shape[1]), range(output.shape[2])):
        top, left = i * sh - ph, j * sw - pw
        inside = x[:, max(top, 0) : top + kh, max(left, 0) : left + kw]
        rows = min(top + kh, height + ph) - top
        columns = min(left + kw, width + pw) - left
        yield i, j, inside, rows * columns


def maxpool(operator, values, output):
    result = np.empty(output.shape)
    for i, j, inside, _ in _windows(operator, values[0], output):
        result[:, i, j] = inside.max(axis=(1, 2))
    return result


def avgpool(operator, values, output):
    result = np.empty(output.shape)
    for i, j, inside, padded in _windows(operator, values[0], output):
        counted = operator.attributes["count_include_pad"]
        count = padded if counted else inside.shape[1] * inside.shape[2]
        result[:, i, j] = inside.sum(axis=(1, 2)) / count
    return result


def border(operator, values, output):
    left, right, top, bottom = operator.attributes["padding"]
    return np.pad(values[0], ((0, 0), (top, bottom), (left, right)))


def subsample(operator, values, output):
    rows, columns = operator.attributes["stride"]
    return values[0][:, ::rows, ::columns]


OPERATORS = {
    "requantize": lambda operator, values, output: values[0],
    "conv": conv,
    "linear": linear,
    "affine": affine,
    "activation": lambda op, v, out: activate(v[0], op.attributes["function"]),
    "add": lambda op, v, out: v[0] + v[1],
    "mul": lambda op, v, out: v[0] * v[1],
    "concat": lambda op, v, out: np.concatenate(v),
    "select": select,
    "subsample": subsample,
    "pad": border,
    "maxpool": maxpool,
    "avgpool": avgpool,
    "globalavgpool": lambda op, v, out: v[0].mean(axis=(1, 2), keepdims=True),
    "flatten": lambda op, v, out: v[0].reshape(-1),
}
