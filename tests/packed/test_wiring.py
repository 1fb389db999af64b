"""The sizes that operators must have are those that PyTorch computes."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from ajpq.packed.wiring import check_wiring
from hw_models.network import Edge, Network, Operator


def network(kind, attributes, source, output):
    edges = {"a": Edge("a", source), "b": Edge("b", output)}
    return Network("net", "a", "b", edges, (Operator("op", kind, ("a",), "b", attributes),))


def accepted(kind, attributes, source, output, *weights):
    """The widths near the right one that are accepted."""
    found = []
    for width in range(max(1, output - 2), output + 3):
        try:
            check_wiring(
                network(kind, attributes, (1, *source), (1, *source[:1], width)),
                dict(enumerate(weights)),
            )
        except ValueError:
            continue
        found.append(width)
    return found


SIZES = list(itertools.product(range(1, 9), (1, 2, 3, 5), (1, 2, 3, 4), (0, 1, 2)))


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pools(ceil_mode):
    for size, kernel, stride, padding in SIZES:
        if 2 * padding > kernel or size + 2 * padding < kernel:
            continue
        window = {"kernel": (1, kernel), "stride": (1, stride), "padding": (0, padding)}
        images = torch.zeros(1, 1, 1, size)
        made = F.max_pool2d(images, *window.values(), ceil_mode=ceil_mode).shape[3]
        assert accepted("maxpool", {**window, "ceil_mode": ceil_mode}, (1, size), made) == [made]


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_convolutions(dilation):
    for size, kernel, stride, padding in SIZES:
        if size + 2 * padding <= dilation * (kernel - 1):
            continue
        geometry = {"stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation)}
        images, weights = torch.zeros(1, 1, 1, size), torch.zeros(1, 1, 1, kernel)
        made = F.conv2d(images, weights, None, *geometry.values()).shape[3]
        attributes = {**geometry, "groups": 1}
        assert accepted("conv", attributes, (1, size), made, tuple(weights.shape)) == [made]


@pytest.mark.parametrize("stride", [1, 2, 3, 9])
def test_subsampling(stride):
    for size in range(1, 9):
        made = torch.zeros(size)[::stride].shape[0]
        assert accepted("subsample", {"stride": (1, stride)}, (1, size), made) == [made]


def test_padding():
    made = F.pad(torch.zeros(1, 1, 5, 6), (1, 2, 3, 4)).shape[1:]
    check_wiring(network("pad", {"padding": (1, 2, 3, 4)}, (1, 5, 6), tuple(made)), {})
    with pytest.raises(ValueError, match="'op' does not fit"):
        check_wiring(network("pad", {"padding": (3, 4, 1, 2)}, (1, 5, 6), tuple(made)), {})
