"""PyTorch's own BatchNorm is the oracle."""

import pytest
import torch
import torch.nn.functional as F

from ajpq.simulation.batchnorm import normalized_by_itself


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    "shape",
    [(6, 9, 8, 8), (5, 16, 7, 3), (4, 37, 1, 1), (1, 3, 5, 5), (8, 64, 4, 4), (16, 12, 1, 1)],
)
def test_it_gives_what_batchnorm_gives(shape, layout):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * 40 + 25
    x = x.contiguous(memory_format=layout)
    before = x.clone()
    weight, bias = torch.randn(2, shape[1], generator=generator)
    mean, variance = torch.zeros(2, shape[1])
    doubles = [value.double() for value in (x, mean, variance, weight, bias)]
    expected = F.batch_norm(*doubles, True, 1.0)
    found, own_mean, own_variance = normalized_by_itself(x, weight, bias, 1e-5)
    assert torch.allclose(found.double(), expected, atol=1e-4)
    F.batch_norm(x, mean, variance, weight, bias, True, 1.0)
    assert torch.allclose(own_mean, mean, rtol=1e-5)
    assert torch.allclose(own_variance, variance, rtol=1e-5)
    assert found.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


def test_a_large_mean_does_not_swamp_the_variance():
    x = 1e4 + torch.randn(64, 9, 8, 8, generator=torch.Generator().manual_seed(1))
    x = x.contiguous(memory_format=torch.channels_last)
    found = normalized_by_itself(x, torch.ones(9), torch.zeros(9), 1e-5)[2]
    assert torch.allclose(found.double(), x.double().var((0, 2, 3)), rtol=0.01)


def test_a_single_value_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalized_by_itself(torch.ones(1, 3, 1, 1), torch.ones(3), torch.zeros(3), 1e-5)
