"""Damaged and hostile packed files are refused: no crash, no hang, no memory, no other weights."""

import json
import random
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.packed import pack, unpack
from ajpq.reference import step_of
from hw_models.errors import AjpqError
from hw_models.network import Network
from tests.packed import hostile
from tests.packed.test_container import make_network

FOLDER = Path(__file__).parent.parent / "golden"
FILES = [(FOLDER / f"packed_{kind}.ajpq").read_bytes() for kind in ("v1", "v2", "v2_codebooks")]
NEWEST = FILES[1]
MOST_BYTES = 1 << 27
"""A small file may hold 64 MiB of zero rows; reading takes less than as much again."""


def refused(data: bytes) -> str:
    with pytest.raises(AjpqError) as caught:
        unpack(data)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 2000
    return message


def harmless(data: bytes) -> None:
    """Refused, or a network that can be written again."""
    try:
        network = unpack(data)
    except AjpqError:
        return
    assert isinstance(network, Network)
    for op in network.operators:
        assert op.inputs
        if op.weights is not None:
            rows = network.edges[op.output].shape[0]
            assert {len(op.weights.codes), len(op.weights.scales)} == {rows}
            assert {len(op.weights.bits), len(op.weights.bias)} == {rows}


def peak_bytes(data: bytes) -> int:
    tracemalloc.start()
    try:
        harmless(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", FILES)
def test_every_truncation_is_refused(data):
    for length in range(len(data)):
        refused(data[:length])


@pytest.mark.parametrize("data", FILES)
@pytest.mark.parametrize("flip", [0x01, 0x03, 0x10, 0x80, 0xFF])
def test_every_flipped_byte_is_refused(data, flip):
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= flip
        refused(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FILES), st.data())
def test_any_few_changes_are_refused(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        start = draw.draw(st.integers(0, len(damaged)))
        end = draw.draw(st.integers(start, min(start + 9, len(damaged))))
        damaged[start:end] = draw.draw(st.binary(max_size=9))
    if bytes(damaged) != data:
        refused(bytes(damaged))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FILES), st.data())
def test_changes_behind_a_right_checksum_are_harmless(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        start = draw.draw(st.integers(12, len(damaged)))
        end = draw.draw(st.integers(start, min(start + 5, len(damaged))))
        damaged[start:end] = draw.draw(st.binary(max_size=5))
    harmless(hostile.signed_again(bytes(damaged)))


@pytest.mark.parametrize("data", FILES)
def test_every_byte_changed_behind_a_right_checksum_is_harmless(data):
    generator = random.Random(0)
    for place in range(12, len(data)):
        damaged = bytearray(data)
        damaged[place] = generator.randrange(256)
        harmless(hostile.signed_again(bytes(damaged)))


def changed_section(kind: int, change) -> bytes:
    sections = hostile.sections_of(NEWEST)
    content = zlib.decompress(sections[kind]) if kind != hostile.STREAM else sections[kind]
    content = change(bytearray(content))
    sections[kind] = zlib.compress(content) if kind != hostile.STREAM else bytes(content)
    return hostile.of_sections(sections)


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from([hostile.STRUCTURE, hostile.WIDTHS, hostile.STREAM]),
    st.integers(0, 2**20),
    st.integers(0, 4),
    st.binary(max_size=4) | st.from_regex(rb"\A-?[0-9]{1,10}\Z") | st.sampled_from([b'"', b"[]"]),
)
def test_changes_inside_a_section_are_harmless(kind, place, removed, added):
    def change(content):
        start = place % len(content)
        content[start : start + removed] = added
        return content

    harmless(changed_section(kind, change))


def test_every_number_of_the_structure_may_be_huge():
    text = zlib.decompress(hostile.sections_of(NEWEST)[hostile.STRUCTURE]).decode()
    numbers = [place for place, char in enumerate(text) if char.isdigit()]
    for place in numbers:
        for value in ("2147483647", "99999999999999999999", "-1", "null"):
            changed = text[:place] + value + text[place + 1 :]
            harmless(changed_section(hostile.STRUCTURE, lambda _, t=changed: t.encode()))


def test_the_structure_to_forge_is_understood_when_it_is_honest():
    network = unpack(hostile.forged(hostile.VALID))
    (operator,) = network.operators
    assert (operator.name, operator.kind, operator.inputs, operator.output) == (
        "fc",
        "linear",
        ("a",),
        "b",
    )
    assert operator.weights.codes.shape == (2, 3)
    assert operator.weights.scales.tolist() == [1, 1]
    assert network.edges["a"].scale == 0.5
    assert unpack(pack(network)).edges == network.edges


@pytest.mark.parametrize("name", hostile.STRUCTURES)
def test_structures_that_no_network_has_are_refused(name):
    assert "weight rows" not in refused(hostile.with_zero_rows(hostile.STRUCTURES[name]))


@pytest.mark.parametrize("name", hostile.FITTING)
def test_operators_that_fit_are_read_and_run(name):
    """The misfits differ from these in one thing each; PyTorch computes the same shape."""
    network = unpack(hostile.with_zero_rows(hostile.one(*hostile.FITTING[name])))
    values = {network.input: torch.ones(2, *network.edges[network.input].shape)}
    for op in network.operators:
        values[op.output] = step_of(network, op)(*(values[edge] for edge in op.inputs))
    assert values["out"].shape == (2, *network.edges["out"].shape)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"n": NaN}'])
def test_what_is_no_structure_is_refused(text):
    refused(hostile.forged(text))


@pytest.mark.parametrize("name", hostile.CLAIMS)
def test_claims_are_refused_before_memory_is_taken(name):
    refused(hostile.CLAIMS[name])
    assert peak_bytes(hostile.CLAIMS[name]) < MOST_BYTES / 2


def test_the_most_that_a_small_file_may_hold_is_bounded():
    shape = (4, 2**24)
    data = hostile.forged(hostile.sized(*shape), b"\0" * 4)
    assert len(data) < 300
    assert unpack(data).operators[0].weights.codes.shape == shape
    assert peak_bytes(data) < MOST_BYTES
    stream = hostile.forged(hostile.sized(2, 2**19), b"\4\4", b"\1\2\3\4")
    assert peak_bytes(stream) < MOST_BYTES / 4


def test_reading_a_codebook_takes_no_more_memory_than_reading_codes_one_by_one():
    """Blocks of two, the shortest: their numbers are the most."""
    network = make_network(np.random.default_rng(0), [("conv", (512, 1, 2), [8] * 1024)])
    codes = network.layers[0].weights.codes
    codes[:] = np.where(np.arange(codes.size).reshape(codes.shape) < 1024, 3, 0)
    data = pack(network)
    assert hostile.CODEBOOKS in hostile.sections_of(data)
    assert peak_bytes(data) < 6 * codes.size


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (hostile.MASKS, "masks of single weights .section 16."),
        (9, "unknown section 9"),
        (65535, "unknown section 65535"),
    ],
)
def test_sections_of_later_versions_are_named(kind, message):
    sections = hostile.sections_of(NEWEST) | {kind: b"content"}
    with pytest.raises(AjpqError, match=message):
        unpack(hostile.of_sections(dict(sorted(sections.items()))))


def test_sections_in_another_order_or_twice_are_refused():
    sections = hostile.sections_of(NEWEST)
    refused(hostile.of_sections(dict(reversed(sections.items()))))
    table = hostile.ENTRY.pack(2, 1) * 2
    refused(hostile.signed(2, table + b"ab"))


@pytest.mark.parametrize("stream", [b"\0\0\0\0", b"\0" * 8, b"\1", b"\1\2\3\4\5", b"\xff" * 64])
def test_a_stream_that_nothing_is_in_is_refused(stream):
    refused(hostile.forged(hostile.VALID, stream=stream))


def test_anything_else_is_no_packed_file():
    for data in (b"", b"AJP", b"PK\3\4" * 9, b"AJPQ"):
        assert "not a packed file" in refused(data)
    for version in (0, 3, 7, 65535):
        again = NEWEST[:4] + version.to_bytes(2, "little") + NEWEST[6:]
        assert f"version {version}, this program reads 1 and 2" in refused(again)


SMALL_PROCESS = """
import resource, sys
from pathlib import Path
from ajpq.packed import unpack
from hw_models.errors import AjpqError
from tests.packed.hostile import CLAIMS
unpack(Path(sys.argv[1]).read_bytes())
statm = Path("/proc/self/statm")
if statm.exists():  # only Linux tells what the process has already
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
for name, data in CLAIMS.items():
    try:
        unpack(data)
    except AjpqError:
        continue
    sys.exit(name)
"""


def test_claims_are_refused_in_a_process_of_little_memory():
    command = [sys.executable, "-c", SMALL_PROCESS, str(FOLDER / "packed_v2.ajpq")]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_structure_is_compact_json():
    told = json.loads(zlib.decompress(hostile.sections_of(NEWEST)[hostile.STRUCTURE]))
    assert list(told) == list("nixeo")
