"""Tables of what every channel loses and stores at every width, from one measurement per layer.

Behind BatchNorm, rounding a channel's weights adds noise in proportion to the squared error of the
weights times ``(gamma / sigma)**2``. How much divergence the noise of a whole layer causes was
measured at one width; the errors of its channels share it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ajpq.graph.structure import Layer, layers
from ajpq.problem import Problem
from envs.actions import Knobs
from envs.allocation import KernelTable


def kernel_tables(
    problem: Problem, knobs: Knobs, measured_bits: int, divergences: np.ndarray
) -> tuple[KernelTable, ...]:
    """One table per layer, in execution order.

    Args:
        measured_bits: width at which whole layers were measured.
        divergences: ``[L]`` nats that each of them lost there.
    """
    found = []
    for layer, nats in zip(layers(problem.graph), divergences, strict=True):
        factor = _after_batchnorm(problem, layer)
        columns = [_at_width(problem, layer, factor, bits) for bits in knobs.weight_bits]
        errors = np.stack([error for error, _ in columns], axis=1)
        stored = np.stack([bits for _, bits in columns], axis=1)
        whole = float(_at_width(problem, layer, factor, measured_bits)[0].sum())
        # Not below zero: a layer that loses nothing still prefers small errors.
        scale = max(float(nats), 1e-7) / max(whole, 1e-12)
        found.append(KernelTable(np.array(knobs.weight_bits), errors * scale, stored))
    return tuple(found)


def _after_batchnorm(problem: Problem, layer: Layer) -> Tensor:
    """``[C]`` what BatchNorm multiplies the layer's output by; ones without one."""
    if layer.batchnorm is None:
        return torch.ones(layer.channels)
    node, state = layer.batchnorm, problem.state
    deviation = (state[node.parameters["running_var"]] + node.attributes["eps"]).sqrt()
    gamma = state[node.parameters["weight"]] if "weight" in node.parameters else torch.ones(())
    return gamma / deviation


def _at_width(
    problem: Problem, layer: Layer, factor: Tensor, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """``[C]`` squared errors behind BatchNorm, and bits of the codes, at one width."""
    weight = problem.state[layer.node.parameters["weight"]]
    codes, scales = problem.codes(weight, torch.full((len(weight),), bits))
    rows = weight.flatten(1) - codes.flatten(1) * scales[:, None]
    errors = (rows * factor[:, None]).square().sum(1).double().numpy()
    return errors, np.array([_entropy_bits(row) for row in codes.flatten(1).numpy()])


def _entropy_bits(codes: np.ndarray) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / len(codes))).sum())
