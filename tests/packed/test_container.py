"""The packed file: round trips, its size, the estimate of its size, and damage."""

from __future__ import annotations

import contextlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.packed import estimated_bytes, load, pack, save, unpack
from hw_models.errors import AjpqError
from hw_models.network import Edge, Network, Operator, Weights
from tests.packed.hostile import forged, signed_again

CONV = {"stride": (1, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
WINDOW = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": True}
PLAIN = (
    ("activation", {"function": "silu"}, ("image",), (3, 8, 8)),
    ("requantize", {}, ("image",), (3, 8, 8)),
    ("add", {}, ("image", "activation"), (3, 8, 8)),
    ("concat", {}, ("image", "add", "image"), (9, 8, 8)),
    ("select", {"index": (-1, 2, 0, -1)}, ("image",), (4, 8, 8)),
    ("subsample", {"stride": (2, 3)}, ("select",), (4, 4, 3)),
    ("pad", {"padding": (0, 1, 2, 3)}, ("select",), (4, 13, 9)),
    ("maxpool", WINDOW, ("pad",), (4, 7, 5)),
    ("avgpool", {**WINDOW, "count_include_pad": False}, ("maxpool",), (4, 4, 3)),
    ("globalavgpool", {}, ("avgpool",), (4, 1, 1)),
    ("mul", {}, ("avgpool", "globalavgpool"), (4, 4, 3)),
    ("flatten", {}, ("mul",), (48,)),
)
"""Kind, attributes, inputs, shape of the output; every edge is named after its kind."""


def make_weights(rng, shape, widths) -> Weights:
    """Gaussian codes that fill their width; zero rows without scale and bias."""
    bits = np.asarray(widths, np.uint8)
    rows = (-1, *[1] * (len(shape) - 1))
    top = np.where(bits > 0, 2.0 ** np.minimum(bits.astype(int) - 1, 7) - 1, 0).reshape(rows)
    codes = np.clip(np.rint(rng.normal(0, 0.35, shape) * top), -top, top) + 0.0
    codes = np.where((bits == 32).reshape(rows), rng.normal(size=shape), codes)
    scales = np.where(bits > 0, rng.normal(0, 0.01, shape[0]), 0)
    bias = np.where(bits > 0, rng.normal(0, 1, shape[0]), 0)
    kind = np.float32 if 32 in bits else np.int8
    return Weights(codes.astype(kind), scales.astype("f4"), bits, bias.astype("f4"))


def make_network(rng, layers) -> Network:
    """Layers of ``(kind, row shape, widths)`` and one operator of every other kind.

    What a layer reads is selected from the input, with as many channels as it wants.
    """
    edges = {"image": Edge("image", (3, 8, 8), 8, True, 0.1)}
    operators = []

    def add(name, kind, inputs, shape, attributes=None, weights=None, activation=None, **edge):
        edges[name] = Edge(name, shape, **{"bits": 4, "signed": True, "scale": 0.25, **edge})
        operators.append(Operator(name, kind, inputs, name, attributes or {}, weights, activation))

    add("values", "flatten", ("image",), (192,))
    for place, (kind, row, widths) in enumerate(layers):
        name, rows = f"layer{place}.ü", len(widths)
        channels = rows if kind == "affine" else row[0]
        source, space = ("values", ()) if kind == "linear" else ("image", (8, 8))
        index = tuple(rng.integers(-1, 3, channels).tolist())
        add(f"chosen{place}", "select", (source,), (channels, *space), {"index": index})
        shape = {"linear": (rows,), "affine": (rows, 8, 8)}.get(kind)
        if shape is None:
            shape = (rows, 8 - row[1] + 3, (8 - row[2] + 2) // 2 + 1)
        weights = make_weights(rng, (rows, *row), widths)
        attributes = CONV if kind == "conv" else {}
        scale = float(rng.uniform(1e-9, 9))
        source = (f"chosen{place}",)
        add(
            name,
            kind,
            source,
            shape,
            attributes,
            weights,
            "relu6",
            bits=8,
            signed=False,
            scale=scale,
        )
    for kind, attributes, inputs, shape in PLAIN:
        add(kind, kind, inputs, shape, attributes)
    return Network("näme", "image", "flatten", edges, tuple(operators))


def resnet20_like(widths, seed=0) -> Network:
    """The layers of ResNet-20 for CIFAR: 268,336 weights, 698 rows. ``widths(rng, rows)``."""
    rng = np.random.default_rng(seed)
    stage = [((16, 3, 3), 16, 6), ((16, 3, 3), 32, 1), ((32, 3, 3), 32, 5)]
    stage += [((32, 3, 3), 64, 1), ((64, 3, 3), 64, 5)]
    layers = [("conv", (3, 3, 3), [8] * 16)]
    layers += [("conv", row, widths(rng, rows)) for row, rows, count in stage for _ in range(count)]
    return make_network(rng, [*layers, ("linear", (64,), [8] * 10)])


def assert_equal(found: Network, expected: Network) -> None:
    assert (found.name, found.input, found.output) == (
        expected.name,
        expected.input,
        expected.output,
    )
    assert dict(found.edges) == dict(expected.edges)
    assert list(found.edges) == list(expected.edges)
    assert len(found.operators) == len(expected.operators)
    for a, b in zip(found.operators, expected.operators, strict=True):
        assert (a.name, a.kind, a.inputs, a.output, a.activation) == (
            b.name,
            b.kind,
            b.inputs,
            b.output,
            b.activation,
        )
        assert dict(a.attributes) == dict(b.attributes)
        assert (a.weights is None) == (b.weights is None)
        if a.weights is not None and b.weights is not None:
            for part in ("codes", "scales", "bits", "bias"):
                one, two = getattr(a.weights, part), getattr(b.weights, part)
                assert one.dtype == two.dtype
                assert one.shape == two.shape
                assert (one + 0).tobytes() == (two + 0).tobytes()  # -0.0 may become 0.0


KINDS = [
    *(("conv", row) for row in ((1, 1, 1), (3, 2, 2), (5, 3, 1))),
    *(("linear", row) for row in ((1,), (5,), (40,))),
    ("affine", (1, 1, 1)),
]
LAYER = st.tuples(
    st.sampled_from(KINDS),
    st.lists(st.sampled_from([0, 2, 3, 4, 5, 6, 7, 8, 32]), min_size=1, max_size=12),
).map(lambda layer: (*layer[0], layer[1]))


@settings(max_examples=60, deadline=None)
@given(st.lists(LAYER, max_size=4), st.integers(0, 2**32))
def test_round_trip(layers, seed):
    network = make_network(np.random.default_rng(seed), layers)
    data = pack(network)
    assert_equal(unpack(data), network)
    assert pack(unpack(data)) == data
    assert abs(estimated_bytes(network) - len(data)) <= 8


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", ["extremes", "constant", "lowest"])
def test_round_trip_of_unusual_codes(bits, kind):
    top = 2 ** (bits - 1) - 1
    codes = {
        "extremes": np.resize([-top, top, 0], (4, 300)),
        "constant": np.full((4, 300), top),
        "lowest": np.full((4, 300), -top - 1),
    }[kind]
    weights = make_weights(np.random.default_rng(0), (4, 300), [bits] * 4)
    weights.codes[:] = codes
    network = make_network(np.random.default_rng(0), [("linear", (300,), [bits] * 4)])
    network.layers[0].weights.codes[:] = codes
    assert_equal(unpack(pack(network)), network)


def test_zero_rows_keep_scales_that_are_not_zero():
    network = make_network(np.random.default_rng(0), [("linear", (9,), [0, 4, 0, 8])])
    network.layers[0].weights.scales[:] = [0.5, 1, -0.0, 2]
    assert_equal(unpack(pack(network)), network)


def test_save_and_load(tmp_path):
    network = make_network(np.random.default_rng(0), [("linear", (9,), [2, 4])])
    path = save(network, tmp_path / "net.ajpq")
    assert path.stat().st_size == len(pack(network))
    assert_equal(load(path), network)
    with pytest.raises(AjpqError, match=r"none\.ajpq"):
        load(tmp_path / "none.ajpq")


def ideal_bytes(network: Network) -> float:
    """Entropy of the codes, per layer and width."""
    total = 0.0
    for op in network.layers:
        for bits in set(op.weights.bits.tolist()) - {0}:
            codes = op.weights.codes[op.weights.bits == bits]
            share = np.unique(codes, return_counts=True)[1] / codes.size
            total -= codes.size * float((share * np.log2(share)).sum()) / 8
    return total


WIDTHS = {
    "2": lambda rng, rows: [2] * rows,
    "4": lambda rng, rows: [4] * rows,
    "8": lambda rng, rows: [8] * rows,
    "mixed": lambda rng, rows: rng.choice([0, 2, 3, 4, 5, 6], rows).tolist(),
}


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS.keys())
def test_size_is_near_the_entropy_and_the_estimate(widths):
    network = resnet20_like(widths)
    size = len(pack(network))
    assert ideal_bytes(network) < size < ideal_bytes(network) + 8000
    assert abs(estimated_bytes(network) - size) <= 0.001 * size


@pytest.mark.parametrize(
    ("bits", "codes", "message"),
    [(4, 9, "'layer0.ü' has codes that do not fit 4 bits"), (0, 1, "do not fit 0 bits")],
)
def test_codes_that_do_not_fit_are_refused(bits, codes, message):
    network = make_network(np.random.default_rng(0), [("linear", (9,), [bits])])
    network.layers[0].weights.codes[:] = codes
    with pytest.raises(AjpqError, match=message):
        pack(network)


# --- damage ---------------------------------------------------------------------------------------

SMALL = pack(
    make_network(
        np.random.default_rng(3), [("conv", (3, 3, 3), [0, 4, 32]), ("linear", (50,), [2, 8, 8])]
    )
)


@pytest.mark.parametrize("length", [*range(0, 40), *range(40, len(SMALL), 37), len(SMALL) - 1])
def test_truncated_files_are_refused(length):
    with pytest.raises(AjpqError):
        unpack(SMALL[:length])


def test_longer_files_are_refused():
    with pytest.raises(AjpqError):
        unpack(SMALL + b"\0")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_flipped_bytes_are_refused(place, flip):
    damaged = bytearray(SMALL)
    damaged[place] ^= flip
    with pytest.raises(AjpqError):
        unpack(bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.integers(12, len(SMALL) - 1), st.integers(1, 255))
def test_damage_behind_a_right_checksum_never_crashes(place, flip):
    damaged = bytearray(SMALL)
    damaged[place] ^= flip
    with contextlib.suppress(AjpqError):
        assert isinstance(unpack(signed_again(bytes(damaged))), Network)


def signed_v1(body: bytes) -> bytes:
    """A file of version 1 whose checksum is right."""
    return b"AJPQ\1\0\0\0" + struct.pack("<I", zlib.crc32(body)) + body


def forged_v1(header: bytes, widths: bytes = b"", codes: bytes = b"") -> bytes:
    """A file of version 1 of a structure, without scales and biases."""
    section = zlib.compress(struct.pack("<I", len(header)) + header + widths)
    return signed_v1(struct.pack("<4I", len(section), 0, 0, len(codes)) + section + codes)


EDGES = '"e":[["a",[3],8,true,SCALE],["b",[2],8,true,1.0]]'
HEADERS = {
    1: f'{{"n":"","i":"a","x":"b",{EDGES},"o":[["c","linear",["a"],"b",null,{{}},SHAPE,0]]}}',
    2: f'{{"n":"","i":0,"x":1,{EDGES},"o":[["c","linear",null,0,[1],[],SHAPE,1]]}}',
}
FORGED = {1: forged_v1, 2: forged}
"""Version -> a file with a right checksum from its structure, widths and codes."""


def header(version: int, scale: str = "1.0", shape: str = "[2,3]") -> bytes:
    return HEADERS[version].replace("SCALE", scale).replace("SHAPE", shape).encode()


@pytest.mark.parametrize("version", FORGED)
def test_the_forged_header_is_understood_when_it_is_honest(version):
    data = FORGED[version](header(version), b"\0\0")
    assert data[4] == version
    assert unpack(data).operators[0].weights.codes.shape == (2, 3)


@pytest.mark.parametrize("version", FORGED)
@pytest.mark.parametrize(
    ("scale", "shape", "widths"),
    [
        ("1.0", "[2,2147483647]", b"\0\0"),
        ("1.0", "[2,2147483647,2147483647,2147483647]", b"\4\4"),
        ("1.0", "[2,99999999]", b"\4\4"),
        ("1.0", "[2,3]", b"\4"),
        ("1.0", "[2,3]", b"\4\4\4"),
        ("1.0", "[2,3]", b"\1\77"),
        ("1.0", "[2,3]", b"\40\40"),
        ("1.0", "[3,2]", b"\4\4\4"),
        ("1.0", "[]", b""),
        ("1.0", "[-2,3]", b"\4\4"),
        ("1" + "0" * 5000, "[2,3]", b"\0\0"),
        ("NaN", "[2,3]", b"\0\0"),
        ("1e999", "[2,3]", b"\0\0"),
        ("[" * 100_000, "[2,3]", b"\0\0"),
    ],
)
def test_absurd_headers_are_refused(version, scale, shape, widths):
    with pytest.raises(AjpqError) as caught:
        unpack(FORGED[version](header(version, scale, shape), widths))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", FORGED)
def test_zero_words_at_the_end_of_the_codes_are_refused(version):
    with pytest.raises(AjpqError):
        unpack(FORGED[version](header(version), b"\4\4", b"\0" * 8))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["a"],"b"', '[],"b"', "does not fit its inputs"),
        ('["a"],"b"', '["a","a"],"b"', "does not fit its inputs"),
        ('["a"],"b"', '["b"],"b"', "stands before its inputs"),
        ('["a"],"b"', '["a"],"a"', "repeats an output"),
        ('["a"],"b"', '["n"],"b"', "is not understood"),
        ("[2,3]", "[2,4]", "does not fit its inputs"),
        ("[2,3]", "[2,3,1]", "does not fit its inputs"),
        ("[3],8", "[3,1],8", "'d' has an impossible shape"),
        ("[3],8", "[3,2147483647,2147483647],8", "'d' has an impossible shape"),
        ("{}", '{"groups":1}', "has the attributes"),
        (
            '"linear",["a"],"b",null,{},[2,3]',
            '"select",["a"],"b",null,{"index":[0,-2]},[]',
            "damaged",
        ),
        (
            '"linear",["a"],"b",null,{},[2,3]',
            '"select",["a"],"b",null,{"index":[0,3]},[]',
            "fit its",
        ),
        ('"c","linear",["a"]', '"c\\n' + "c" * 9999 + '","linear",[]', "does not fit its inputs"),
        ('"o":[', '"o":[["c","activation",["a"],"d",null,{"function":"relu"},[],0],', "repeated"),
    ],
)
def test_structures_of_version_1_that_no_network_has_are_refused(old, new, message):
    text = header(1).decode().replace('"e":[', '"e":[["d",[3],8,true,1.0],')
    assert old in text
    changed = text.replace(old, new, 1).encode()
    with pytest.raises(AjpqError, match=message) as caught:
        unpack(forged_v1(changed, b"\0\0"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_other_versions_are_named():
    with pytest.raises(AjpqError, match="version 7"):
        unpack(SMALL[:4] + b"\7\0" + SMALL[6:])
