"""What every method's weights must satisfy, whatever its quantizer is; for authors of methods."""

import torch

from ajpq.quantizers.uniform import UniformQuantizer

QUANTIZER = UniformQuantizer()


def weights(seed, channels=4):
    return torch.randn(channels, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def quantized(method, weight, bits, own=None):
    """Quantized weights without a gradient, and what the method holds of them."""
    with torch.no_grad():
        own = method.start(weight, bits, QUANTIZER) if own is None else own
        return method.quantized(weight, bits, own, QUANTIZER), own


def check_untouched_and_pruned(method, seed):
    """Rows of 0 bits are zero, rows of 32 bits as they were."""
    weight, bits = weights(seed), torch.tensor([0, 32, 3, 0])
    made, _ = quantized(method, weight, bits)
    assert made[[0, 3]].abs().sum() == 0
    assert torch.equal(made[1], weight[1])


def check_idempotent(method, seed, bits):
    """What is on its grid stays there."""
    weight, width = weights(seed), torch.full((4,), bits)
    made, own = quantized(method, weight, width)
    again, _ = quantized(method, made, width, own)
    torch.testing.assert_close(again, made)


def check_levels(method, seed, bits):
    """At most ``2**bits - 1`` values in a row, as many below zero as above."""
    made, _ = quantized(method, weights(seed), torch.full((4,), bits))
    for row in made.flatten(1):
        assert len(row.unique()) <= 2**bits - 1


def check_monotone(method, seed, bits):
    """Of two weights of a row the larger one is never quantized to less."""
    weight = weights(seed)
    made, _ = quantized(method, weight, torch.full((4,), bits))
    for real, row in zip(weight.flatten(1), made.flatten(1), strict=True):
        assert (row[real.argsort()].diff() >= 0).all()


def check_scale_equivariant(method, seed, bits):
    """Weights of twice the size are quantized to twice the values."""
    weight, width = weights(seed), torch.full((4,), bits)
    once, twice = (quantized(method, factor * weight, width)[0] for factor in (1, 2))
    torch.testing.assert_close(twice, 2 * once)


def check_gradients(method, seed, bits):
    """Gradients are finite and reach the weights and all that is trained."""
    weight, width = weights(seed).requires_grad_(), torch.full((4,), bits)
    own = method.start(weight.detach(), width, QUANTIZER)
    for role in method.groups:
        own[role] = own[role].detach().requires_grad_()
    method.quantized(weight, width, own, QUANTIZER).square().sum().backward()
    for tensor in (weight, *(own[role] for role in method.groups)):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert weight.grad.abs().sum() > 0


def check_settled(method, seed, bits):
    """What a training leaves of a layer is encoded to what the training computed with."""
    weight, width = weights(seed), torch.full((4,), bits)
    made, own = quantized(method, weight, width)
    left = method.settled(weight, width, own, QUANTIZER)
    found = width if left.bits is None else left.bits.long()
    steps = QUANTIZER.fit(left.weight, found) if left.steps is None else left.steps
    codes = QUANTIZER.encode(left.weight, found, steps)
    torch.testing.assert_close(codes * steps.view(-1, 1, 1, 1), made)
