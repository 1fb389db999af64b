"""A compressed network as an ordinary ``nn.Module``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ajpq.simulation.operators import Quantize, operator_module
from ajpq.simulation.walk import expiring
from hw_models.network import Network


def as_module(network: Network) -> CompressedModule:
    """A compressed network as a module that gives the reference's logits, bit for bit.

    It maps normalised images ``[N, C, H, W]`` to float32 logits ``[N, classes]``. Its state holds
    the codes of the weights as int8, one factor and one bias per row, and the steps of the edges.
    Channels that were removed are simply not there. ``torch.export`` and ``torch.fx`` trace it,
    with any batch size.

    The bits are the reference's under PyTorch's default settings: no autocast, float32 products
    in full precision (``torch.set_float32_matmul_precision("highest")``).
    """
    return CompressedModule(network).eval()


class CompressedModule(nn.Module):
    """See :func:`as_module`. Every operator is a submodule under its own name, with underscores
    for dots, and one more at the end where the name is taken."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.quantize_images = Quantize(None, network.edges[network.input])
        self.input, self.output = network.input, network.output
        self.wiring: list[tuple[str, tuple[str, ...], str, list[str]]] = []
        unread = expiring(network)
        for op in network.operators:
            name = op.name.replace(".", "_")
            while hasattr(self, name):
                name += "_"
            inputs = [network.edges[edge] for edge in op.inputs]
            self.add_module(name, operator_module(op, inputs, network.edges[op.output]))
            self.wiring.append((name, op.inputs, op.output, unread[op.name]))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``[N, C, H, W]`` to logits ``[N, classes]``."""
        copied = images.to(torch.float32, copy=True)  # the first module works in place
        values = {self.input: self.quantize_images(copied)}
        for name, inputs, output, unread in self.wiring:
            values[output] = getattr(self, name)(*(values[edge] for edge in inputs))
            for edge in unread:
                del values[edge]
        result: Tensor = values[self.output]
        return result
