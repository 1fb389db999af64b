"""A candidate judged the way that public searches do it: clear, correct and in no hurry.

As in the published code of HAQ (arXiv 1811.08886) and AMC (arXiv 1802.03494): copy the module,
write quantized weights into it channel by channel, round activations by hooks, and run the whole
validation set in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ajpq.policy import CompressionPolicy
from hw_models.network import Edge


@torch.no_grad()
def judged(
    model: nn.Module,
    policy: CompressionPolicy,
    largest_inputs: Mapping[str, float],
    images: Tensor,
    labels: Tensor,
    batch_size: int = 128,
) -> float:
    """Top-1 in percent of ``model`` under ``policy``.

    Args:
        largest_inputs: layer name -> largest magnitude of what it reads.
    """
    candidate = copy.deepcopy(model).eval()
    for name, module in candidate.named_modules():
        if name in policy.layers:
            own = policy.layers[name]
            for channel, bits in enumerate(own.weight_bits):
                module.weight[channel] = on_grid(module.weight[channel], bits)
            grid = Edge("", (), own.activation_bits, True)
            step = largest_inputs[name] / grid.code_range[1]
            module.register_forward_pre_hook(
                lambda _, inputs, step=step, codes=grid.code_range: (
                    (inputs[0] / step).round().clamp(*codes) * step,
                )
            )
    right = 0
    for part, answers in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        right += int((candidate(part).argmax(1) == answers).sum())
    return 100.0 * right / len(labels)


def on_grid(row: Tensor, bits: int) -> Tensor:
    """A row of weights on the symmetric grid that its largest magnitude gives."""
    if bits == 0:
        return torch.zeros_like(row)
    top = 2 ** (bits - 1) - 1
    step = row.abs().max().clamp_min(1e-12) / top
    return (row / step).round().clamp(-top, top) * step


@torch.no_grad()
def largest_inputs(model: nn.Module, policy: CompressionPolicy, images: Tensor) -> dict[str, float]:
    """Layer name -> largest magnitude of what it reads, once for all candidates."""
    found: dict[str, float] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: found.update({name: float(inputs[0].abs().max())})
        )
        for name, module in model.named_modules()
        if name in policy.layers
    ]
    model.eval()(images)
    for handle in handles:
        handle.remove()
    return found
