"""Where the bytes of a packed file are, and how near they are to the entropy of its contents."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ajpq.apply import apply_policy
from ajpq.checkpoints import load_tensors
from ajpq.graph.structure import layers
from ajpq.graph.trace import trace
from ajpq.models.registry import build_model
from ajpq.packed import breakdown, estimated_bytes, pack, save
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.quantizers.uniform import UniformQuantizer
from hw_models.errors import AjpqError
from tests.modules import ranges
from tests.packed.test_container import make_network

ROOT = Path(__file__).parent.parent.parent


@cache
def resnet20():
    tensors, about = load_tensors(ROOT / "zoo" / "base" / "resnet20.safetensors")
    model = build_model(about["model"], in_channels=3, classes=10, image_size=32)
    graph = trace(model.eval(), (3, 32, 32))
    found = ranges(graph, tensors, torch.randn(8, 3, 32, 32, generator=torch.manual_seed(0)))
    return graph, tensors, found


def compressed(widths, sparsity, seed=0):
    """ResNet-20 with trained weights, every row with a width of its own."""
    graph, tensors, found = resnet20()
    rng, policy = np.random.default_rng(seed), {}
    for layer in layers(graph):
        bits = rng.choice(widths, layer.channels)
        if layer.name != "linear":
            bits = np.where(rng.random(layer.channels) < sparsity, 0, bits)
        policy[layer.name] = LayerPolicy(weight_bits=tuple(bits.tolist()), activation_bits=8)
    quantize = UniformQuantizer().quantize
    return apply_policy(graph, tensors, CompressionPolicy(layers=policy), found, quantize)


def entropy(symbols) -> float:
    """Bits of all symbols, from the definition."""
    share = np.unique(symbols, return_counts=True)[1] / len(symbols)
    return -len(symbols) * float((share * np.log2(share)).sum())


def content_bits(network) -> float:
    """Entropy as ``Breakdown.entropy_bytes`` defines it, written from that definition."""
    bits, signs, lengths = 0.0, [], []
    for op in network.operators:
        if op.weights is None:
            continue
        own = op.weights
        bits += entropy(own.bits)
        for width in set(own.bits.tolist()) - {0}:
            bits += entropy(own.codes[own.bits == width].reshape(-1))
        live = own.bits > 0
        scales = own.scales[live].astype(float)
        steps = np.rint(own.bias[live] / scales / network.edges[op.inputs[0]].scale).astype(int)
        signs += [(scale < 0, int(np.floor(np.log2(abs(scale))))) for scale in scales]
        lengths += [(n < 0, int(abs(n)).bit_length()) for n in steps]
    low = 7 * len(signs) + sum(max(length - 1, 0) for _, length in lengths)
    return bits + low + sum(entropy([hash(pair) for pair in kind]) for kind in (signs, lengths))


@pytest.mark.parametrize(
    ("widths", "sparsity"), [((2, 3, 4, 5, 6, 7, 8), 0.1), ((2, 3, 4), 0.3), ((4,), 0.0)]
)
def test_a_file_is_within_three_percent_of_its_entropy_and_its_header(widths, sparsity):
    network = compressed(widths, sparsity)
    data = pack(network)
    found = breakdown(data)
    assert found.total == len(data)
    assert found.entropy_bytes == pytest.approx(content_bits(network) / 8, rel=1e-3)
    assert found.entropy_bytes < len(data) - found.header < 1.03 * found.entropy_bytes
    assert found.header < 1000
    assert abs(estimated_bytes(network) - len(data)) <= 0.001 * len(data)


def test_parts_of_layers_are_what_they_take():
    network = compressed((2, 8), 0.0, seed=1)
    found = {layer.name: layer for layer in breakdown(pack(network)).layers}
    assert list(found) == [op.name for op in network.operators if op.weights is not None]
    for op in network.layers:
        rows, codes = len(op.weights.bits), op.weights.codes.size
        own = found[op.name]
        assert own.total == own.codes + own.scales + own.biases + own.widths + own.reals
        assert rows * 7 / 8 - 1 < own.scales < rows * 2
        assert 2 / 8 * codes * 0.3 < own.codes < codes
        assert own.reals == 0


def test_real_rows_take_four_bytes_a_value(tmp_path):
    layers_of = [("linear", (50,), [32, 4, 32]), ("conv", (3, 3, 3), [0, 0])]
    network = make_network(np.random.default_rng(0), layers_of)
    path = save(network, tmp_path / "net.ajpq")
    found = breakdown(path)
    assert found.total == path.stat().st_size
    assert [layer.reals for layer in found.layers] == [400, 0]
    assert found.layers[1].codes == found.layers[1].scales == 0


def test_a_network_without_weights_is_all_header():
    data = pack(make_network(np.random.default_rng(0), []))
    found = breakdown(data)
    assert (found.header, found.layers, found.entropy_bytes) == (len(data), (), 0)


def test_files_of_version_1_and_missing_files_are_refused(tmp_path):
    with pytest.raises(AjpqError, match="version 1, and save it again"):
        breakdown(ROOT / "tests" / "golden" / "packed_v1.ajpq")
    with pytest.raises(AjpqError, match=r"none\.ajpq"):
        breakdown(tmp_path / "none.ajpq")
    with pytest.raises(AjpqError, match="not a packed file"):
        breakdown(b"something else")
