"""Activations, sums and products."""

from __future__ import annotations

import numpy as np

from hw_models.tflite import layers
from hw_models.tflite.grids import SIGMOID_GRID
from hw_models.tflite.program import Program, Site
from hw_models.tflite.weights import factor_rows

NOT_FUSED = 0
RELU = 1
CLAMP_TO_ONE = 2  # RELU_N1_TO_1; unsigned codes cut off what is below 0
RELU6 = 3
FUSED = {None: NOT_FUSED, "relu": RELU, "relu6": RELU6}


def activate(program: Program, function: str, source: int, out: int) -> None:
    """One activation between two tensors, each on its own grid."""
    if function in ("relu", "relu6"):
        program.emit(function.upper(), (source,), out)
    elif function == "hardswish":
        program.emit("HARD_SWISH", (source,), out, "HardSwishOptions")
    elif function == "hardsigmoid":
        channels = program.shape(source)[-1]
        sixths = factor_rows(np.full(channels, 1 / 6), np.full(channels, 0.5))
        layers.scale_channels(program, sixths, source, out, CLAMP_TO_ONE)
    elif function == "sigmoid":
        _sigmoid(program, source, out)
    else:
        gate = program.activation(f"{program.owner}/gate", program.shape(source), SIGMOID_GRID)
        _sigmoid(program, source, gate)
        program.emit("MUL", (source, gate), out, "MulOptions")


def _sigmoid(program: Program, source: int, out: int) -> None:
    if program.grid(out) == SIGMOID_GRID:
        program.emit("LOGISTIC", (source,), out)
        return
    exact = program.activation(f"{program.owner}/sigmoid", program.shape(source), SIGMOID_GRID)
    program.emit("LOGISTIC", (source,), exact)
    program.emit("QUANTIZE", (exact,), out, "QuantizeOptions")


def activation(site: Site) -> None:
    """``activation`` as an operator of its own."""
    activate(site.program, site.operator.attributes["function"], site.source, site.out)


def requantize(site: Site) -> None:
    """``requantize``."""
    site.program.emit("QUANTIZE", site.sources, site.out, "QuantizeOptions")


def add(site: Site) -> None:
    """``add``."""
    fields = {"FusedActivationFunction": site.fused}
    site.program.emit("ADD", site.sources, site.out, "AddOptions", fields)


def mul(site: Site) -> None:
    """``mul``; ``(C, 1, 1)`` broadcasts by itself."""
    fields = {"FusedActivationFunction": site.fused}
    site.program.emit("MUL", site.sources, site.out, "MulOptions", fields)
