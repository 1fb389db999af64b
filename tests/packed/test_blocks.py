"""Codebooks in packed files: lossless, smaller where blocks repeat, refused where impossible."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.packed import breakdown, estimated_bytes, load, pack, unpack
from ajpq.packed.blocks import Blocks, number_bits, smallest_bits, smallest_coding
from ajpq.packed.codes import coded_bits
from hw_models.errors import AjpqError
from tests.packed import hostile
from tests.packed.test_container import assert_equal, make_network, resnet20_like
from tests.packed.test_golden import unpacked_sections

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = FOLDER / "packed_v2_codebooks.ajpq"


def with_words(network, words, seed=0):
    """Every row of 8 bits consists of few kernels, or of few runs of 4 channels."""
    rng = np.random.default_rng(seed)
    for op in network.layers:
        own = op.weights
        eight = own.bits == 8
        taps = int(np.prod(own.codes.shape[2:]))
        length = taps if taps > 1 else 4
        if not eight.any() or own.codes[0].size % length:
            continue
        book = rng.integers(-127, 128, (words, length)).astype(np.int8)
        places = rng.binomial(words - 1, 0.4, own.codes[eight].size // length)
        own.codes[eight] = book[places].reshape(own.codes[eight].shape)
    return network


KINDS = [("conv", (16, 3, 3)), ("conv", (8, 2, 5)), ("conv", (8, 1, 1)), ("linear", (32,))]
LAYER = st.tuples(
    st.sampled_from(KINDS),
    st.lists(st.sampled_from([0, 3, 8, 8, 8, 32]), min_size=1, max_size=40),
).map(lambda layer: (*layer[0], layer[1]))


@settings(max_examples=60, deadline=None)
@given(st.lists(LAYER, max_size=3), st.integers(1, 300), st.integers(0, 2**32))
def test_round_trip(layers, words, seed):
    network = with_words(make_network(np.random.default_rng(seed), layers), words, seed)
    data = pack(network)
    assert_equal(unpack(data), network)
    assert pack(unpack(data)) == data
    assert abs(estimated_bytes(network) - len(data)) <= 24
    assert breakdown(data).total == len(data)


@pytest.mark.parametrize("words", [1, 2, 3, 16, 17, 96, 255, 256])
def test_every_number_of_words_comes_back(words):
    codes = np.random.default_rng(words).integers(-128, 128, (words, 9)).astype(np.int8)
    network = make_network(np.random.default_rng(0), [("conv", (32, 3, 3), [8] * 64)])
    network.layers[0].weights.codes[:] = np.resize(codes, (2048, 9)).reshape(64, 32, 3, 3)
    data = pack(network)
    assert hostile.CODEBOOKS in hostile.sections_of(data)
    assert_equal(unpack(data), network)


@pytest.mark.parametrize(
    ("words", "bits"), [(1, 2), (4, 2), (5, 3), (8, 3), (9, 4), (255, 8), (256, 8)]
)
def test_numbers_are_as_wide_as_they_must_be(words, bits):
    assert number_bits(words) == bits


def entropy(symbols) -> float:
    share = np.unique(symbols, return_counts=True, axis=0)[1] / len(symbols)
    return -len(symbols) * float((share * np.log2(share)).sum())


def test_a_layer_takes_the_entropy_of_its_numbers_and_its_words_once():
    network = with_words(resnet20_like(lambda rng, rows: [8] * rows), 32)
    data = pack(network)
    assert abs(estimated_bytes(network) - len(data)) <= 0.001 * len(data)
    sizes = {layer.name: layer for layer in breakdown(data).layers}
    for op in network.layers[1:-1]:
        kernels = op.weights.codes.reshape(-1, 9)
        numbers, words = entropy(kernels) / 8, len(np.unique(kernels, axis=0)) * 9
        own = sizes[op.name]
        assert own.codes == 0
        assert numbers - 1 < own.numbers < 1.03 * numbers + 25
        assert 0.8 * words < own.words < words + 30
    plain = sum(op.weights.codes.size for op in network.layers)
    assert len(data) < plain / 8


def test_the_estimate_counts_the_section_of_codebooks():
    """Other errors than that of a stream, whole words of 4 bytes, would be of a section."""
    errors = []
    for seed in range(30):
        layers = [("conv", (16, 3, 3), [8] * 32)] * (1 + seed % 6)
        network = with_words(make_network(np.random.default_rng(seed), layers), 24, seed)
        data = pack(network)
        assert hostile.CODEBOOKS in hostile.sections_of(data)
        errors.append(estimated_bytes(network) - len(data))
    assert max(map(abs, errors)) <= 4
    assert abs(np.mean(errors)) < 2


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_ordinary_codes_are_stored_one_by_one(bits):
    network = resnet20_like(lambda rng, rows: [bits] * rows)
    assert hostile.CODEBOOKS not in hostile.sections_of(pack(network))


def test_the_smaller_coding_is_taken():
    """Two wild words repeat; of 32 words that are nearly all zeros, each occurs only twice."""
    rng = np.random.default_rng(0)
    wild = rng.integers(-127, 128, (2, 9)).astype(np.int8)[rng.integers(0, 2, 512)]
    assert smallest_coding((8, wild.reshape(32, 16, 3, 3))).blocks == Blocks(9, 2)
    tame = np.zeros((32, 9), np.int8)
    tame[np.arange(32), np.arange(32) % 9] = np.arange(32) // 9 + 1
    tame = np.concatenate([tame, tame]).reshape(4, 16, 3, 3)
    assert smallest_coding((8, tame)).blocks is None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 127), st.integers(0, 2**32))
def test_a_codebook_never_takes_more(words, rows, top, seed):
    rng = np.random.default_rng(seed)
    book = rng.integers(-top, top + 1, (words, 8)).astype(np.int8)
    group = (8, book[rng.integers(0, words, rows * 4)].reshape(rows, 32))
    assert smallest_bits([group])[0] <= coded_bits([group])[0]


# --- damage ---------------------------------------------------------------------------------------


def test_the_golden_file_is_still_read_and_written():
    """What the JSON beside it says was written from the network in memory, not from the file."""
    told = json.loads((FOLDER / "packed_v2_codebooks.json").read_text())
    network = load(GOLDEN)
    for op in network.layers:
        assert op.weights.codes.tolist() == told[op.name]["codes"]
        assert op.weights.bits.tolist() == told[op.name]["bits"]
        assert op.weights.scales.tolist() == told[op.name]["scales"]
        assert op.weights.bias.tolist() == told[op.name]["bias"]
    expected, found = GOLDEN.read_bytes(), pack(network)
    assert found[:8] == expected[:8]
    assert unpacked_sections(found) == unpacked_sections(expected)


def described(*pairs) -> bytes:
    """The golden file with other shapes of codebooks."""
    sections = hostile.sections_of(GOLDEN.read_bytes())
    sections[hostile.CODEBOOKS] = zlib.compress(bytes(n for pair in pairs for n in pair))
    return hostile.of_sections(sections)


def test_the_golden_file_has_these_shapes():
    assert unpack(described((9, 3), (4, 5), (0, 0)))


@pytest.mark.parametrize(
    "pairs",
    [
        [(9, 3), (4, 5)],
        [(9, 3), (4, 5), (0, 0), (0, 0)],
        [(0, 0), (0, 0), (0, 0)],
        [(9, 3), (4, 5), (0, 1)],
        [(9, 3), (4, 5), (1, 0)],
        [(9, 3), (4, 5), (4, 1)],
        [(7, 3), (4, 5), (0, 0)],
        [(0, 0), (4, 5), (0, 0)],
        [(9, 255), (4, 5), (0, 0)],
        [(9, 2), (4, 5), (0, 0)],
        [(9, 4), (4, 5), (0, 0)],
        [(255, 255)] * 3,
    ],
)
def test_impossible_codebooks_are_refused(pairs):
    with pytest.raises(AjpqError, match="damaged"):
        unpack(described(*pairs))


def test_numbers_without_a_word_are_refused():
    """Three words have numbers of two bits, which may say a fourth."""
    sections = hostile.sections_of(pack(repeated(4)))
    sections[hostile.CODEBOOKS] = zlib.compress(bytes((9, 2)))
    with pytest.raises(AjpqError, match="damaged"):
        unpack(hostile.of_sections(sections))


def repeated(words):
    network = make_network(np.random.default_rng(0), [("conv", (16, 3, 3), [8] * 8)])
    return with_words(network, words)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([hostile.WIDTHS, hostile.STREAM, hostile.CODEBOOKS]),
    st.integers(0, 2**20),
    st.integers(0, 3),
    st.binary(max_size=4),
)
def test_changes_inside_a_section_are_harmless(kind, place, removed, added):
    sections = hostile.sections_of(GOLDEN.read_bytes())
    zipped = kind != hostile.STREAM
    content = bytearray(zlib.decompress(sections[kind]) if zipped else sections[kind])
    start = place % len(content)
    content[start : start + removed] = added
    sections[kind] = zlib.compress(bytes(content)) if zipped else bytes(content)
    try:
        network = unpack(hostile.of_sections(sections))
    except AjpqError:
        return
    assert_equal(unpack(pack(network)), network)


def test_a_bomb_of_codebooks_is_refused():
    sections = hostile.sections_of(GOLDEN.read_bytes())
    sections[hostile.CODEBOOKS] = zlib.compress(b"\4\5" * 2**24)
    with pytest.raises(AjpqError, match="another length"):
        unpack(hostile.of_sections(sections))
