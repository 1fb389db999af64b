"""Tiny networks that together hold every kind of operator and every way it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hw_models.network import Edge, Network
from hw_models.samples import NetworkBuilder, conv_network, random_weights

ZOO: dict[str, Callable[[], Network]] = {"plain": conv_network}


def tiny(shape: tuple[int, int, int]) -> Callable:
    """Register a function that goes on from a first convolution to the last edge of the body."""

    def register(body: Callable[[NetworkBuilder, str], str]) -> Callable:
        def build() -> Network:
            b = NetworkBuilder(shape, np.random.default_rng(3))
            return b.build(b.head(body(b, b.conv("input", 8)), 5), body.__name__)

        ZOO[body.__name__] = build
        return body

    return register


def conv_case(name: str, size: int, **settings) -> None:
    @tiny((3, size, size))
    def body(b, x):
        return b.conv(x, **settings)

    ZOO[name] = ZOO.pop("body")


conv_case("stride_two", 8, channels=8, stride=2)
conv_case("stride_two_odd", 9, channels=8, stride=2)
conv_case("stride_two_5x5", 8, channels=8, stride=2, kernel=5)
conv_case("valid", 8, channels=8, padding=0)
conv_case("wide_padding", 8, channels=8, padding=2)
conv_case("dilated", 8, channels=8, dilation=2)
conv_case("pointwise", 8, channels=12, kernel=1)
conv_case("pointwise_strided", 8, channels=12, kernel=1, stride=2)
conv_case("grouped", 8, channels=16, groups=2)
conv_case("depthwise", 8, channels=8, groups=8)
conv_case("depthwise_strided", 8, channels=8, groups=8, stride=2)
conv_case("depthwise_multiplied", 8, channels=16, groups=8)
conv_case("two_bits", 8, channels=8, bits=2)
for activation in (None, "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu"):
    grids = {"hardsigmoid": 1 / 255, "sigmoid": 1 / 255}
    conv_case(
        f"fused_{activation}", 6, channels=8, activation=activation, scale=grids.get(activation)
    )


@tiny((3, 6, 6))
def odd_rows(b, x):
    """A pruned row, a negative scale, a scale of zero and one that makes the bias overflow."""
    weights = random_weights((8, 8, 3, 3), b.rng)
    scales, codes, bits = weights.scales.copy(), weights.codes.copy(), weights.bits.copy()
    bias = weights.bias.copy()
    codes[0], bits[0], bias[0], scales[0] = 0, 0, 0.0, 1.0
    scales[1:5] = [-scales[1], 0.0, 1e-12, -1e-9]
    bias[2:5] = 0.7
    return b.conv(x, 8, weights=replace(weights, scales=scales, codes=codes, bits=bits, bias=bias))


@tiny((3, 6, 6))
def affine_image(b, x):
    weights = random_weights((8, 1, 1, 1), b.rng)
    edge = Edge("affine", (8, 6, 6), 8, False, 0.03)
    return b.add("affine", (x,), edge, weights=weights, activation="relu")


@tiny((3, 6, 6))
def residual(b, x):
    return b.join(b.conv(x, 8, activation=None), x)


@tiny((3, 6, 6))
def residual_then_silu(b, x):
    return b.join(b.conv(x, 8, activation=None), x, "silu")


@tiny((3, 6, 6))
def residual_then_hardsigmoid(b, x):
    y = b.conv(x, 8, activation=None, weights=random_weights((8, 8, 3, 3), b.rng, gain=3.0))
    edge = Edge("gate", (8, 6, 6), 8, False, 1 / 255)
    return b.add("add", (y, x), edge, activation="hardsigmoid")


@tiny((3, 6, 6))
def concat_and_relu6(b, x):
    y = b.conv(x, 4)
    joined = b.like(x, "concat", (12, 6, 6))
    return b.add("concat", (x, y), joined, activation="relu6")


@tiny((3, 6, 6))
def squeeze_excite(b, x):
    pooled = b.add("globalavgpool", (x,), b.like(x, "squeeze", (8, 1, 1)))
    gate = b.conv(b.conv(pooled, 4, kernel=1), 8, kernel=1, activation="hardsigmoid", scale=1 / 255)
    return b.add("mul", (x, gate), Edge("excite", (8, 6, 6), 8, False, 0.02))


@tiny((3, 6, 6))
def requantized(b, x):
    """What is on a finer grid cuts off what is on it no more."""
    y = b.add("requantize", (x,), Edge("cut", (8, 6, 6), 8, False, 0.007))
    z = b.conv(y, 8, activation=None)
    return b.join(b.add("requantize", (z,), Edge("coarse", (8, 6, 6), 8, True, 0.05)), x)


def select_case(name: str, index: list[int], size: int = 6) -> None:
    @tiny((3, size, size))
    def body(b, x):
        return b.add("select", (x,), b.like(x, "select", (len(index), size, size)), index=index)

    ZOO[name] = ZOO.pop("body")


select_case("select_padded", [-1, -1, *range(8), -1, -1])
select_case("select_run", [2, 3, 4])
select_case("select_run_padded", [-1, 2, 3, 4, -1, -1])
select_case("select_scattered", [7, -1, 0, 3, 3, 5])
select_case("select_all", list(range(8)))


@tiny((3, 7, 7))
def subsampled(b, x):
    return b.add("subsample", (x,), b.like(x, "subsample", (8, 4, 4)), stride=(2, 2))


@tiny((3, 6, 6))
def bordered(b, x):
    return b.add("pad", (x,), b.like(x, "pad", (8, 9, 7)), padding=(0, 1, 2, 1))


def pool_case(name: str, kind: str, size: int, **settings) -> None:
    """``out`` is the resulting size; ``rescaled`` gives the result a grid of its own."""
    out, rescaled = settings.pop("out"), settings.pop("rescaled", False)
    source = settings.pop("activation", "relu")

    @tiny((3, size, size))
    def body(b, x):
        x = b.conv(x, 8, activation=source)
        edge = b.like(x, "pool", (8, out, out))
        edge = replace(edge, scale=edge.scale * 0.7) if rescaled else edge
        return b.add(kind, (x,), edge, **{"ceil_mode": False, **settings})

    ZOO[name] = ZOO.pop("body")


TWO = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
THREE = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}
SAME = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1)}
pool_case("max_two", "maxpool", 8, out=4, **TWO)
pool_case("max_three", "maxpool", 8, out=4, **THREE)
pool_case("max_three_signed", "maxpool", 8, out=4, activation=None, **THREE)
pool_case("max_ceil", "maxpool", 7, out=4, **{**TWO, "ceil_mode": True})
pool_case("average_two", "avgpool", 8, out=4, count_include_pad=True, **TWO)
pool_case("average_rescaled", "avgpool", 8, out=4, rescaled=True, count_include_pad=True, **TWO)
pool_case("average_padded", "avgpool", 8, out=4, count_include_pad=True, **THREE)
pool_case("average_same", "avgpool", 8, out=8, count_include_pad=False, **SAME)
pool_case(
    "average_same_rescaled", "avgpool", 8, out=8, rescaled=True, count_include_pad=False, **SAME
)


def function_case(function: str) -> None:
    """Wide inputs and grids that reach further than the function, so that clamps are seen."""
    scales = {"hardsigmoid": 1 / 200, "sigmoid": 1 / 255}

    @tiny((3, 6, 6))
    def body(b, x):
        wide = random_weights((8, 8, 3, 3), b.rng, gain=4.0)
        x = b.conv(x, 8, activation=None, scale=0.05, weights=wide)
        edge = Edge(
            "function", (8, 6, 6), 8, function in ("hardswish", "silu"), scales.get(function, 0.03)
        )
        return b.add("activation", (x,), edge, function=function)

    ZOO[f"alone_{function}"] = ZOO.pop("body")


for function in ("relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu"):
    function_case(function)


def vector(name: str) -> Callable:
    """Register a network that goes on from a flattened image, or from a vector."""

    def register(body: Callable[[NetworkBuilder, str], str]) -> Callable:
        def build() -> Network:
            b = NetworkBuilder((3, 6, 6), np.random.default_rng(5))
            x = b.conv("input", 6, stride=2)
            flat = b.add("flatten", (x,), b.like(x, "flat", (54,)))
            return b.build(body(b, flat), name)

        ZOO[name] = build
        return body

    return register


@vector("flatten_to_linear")
def _flat(b, x):
    return b.linear(x, 5)


@vector("two_linear_layers")
def _two(b, x):
    edge = Edge("hidden", (7,), 8, False, 0.02)
    weights = random_weights((7, 54), b.rng, 4)
    hidden = b.add("linear", (x,), edge, weights=weights, activation="relu")
    return b.linear(hidden, 5)


@vector("vector_operators")
def _vector(b, x):
    """Everything that may happen to a vector, in the order of the IR."""
    weights = random_weights((54, 1, 1, 1), b.rng)
    scaled = Edge("scaled", (54,), 8, False, 0.015)
    y = b.add("affine", (x,), scaled, weights=weights, activation="relu")
    both = b.add("concat", (x, y), b.like(x, "concat", (108,)))
    few = b.add("select", (both,), b.like(both, "few", (3,)), index=[100, -1, 2])
    run = b.add("select", (both,), b.like(both, "run", (3,)), index=[50, 51, 52])
    return b.linear(b.join(few, run), 4)
