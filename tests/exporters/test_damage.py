"""Every exported format, damaged: each change is refused with a message, and that is all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.exporters import EXPORTERS
from ajpq.exporters.check import inspect
from ajpq.exporters.readers import READERS
from hw_models.errors import AjpqError
from tests.exporters.samples import exported

POSITIONS = 250
MAGICS = [
    b"AJPQ\1\0\0\0",
    b"AJPQ\2\0\0\0",
    b"\x20\0\0\0TFL3",
    b"PK\3\4",
    b"\x08\x0a",
    b"\x3a",
    b"{",
]


@pytest.fixture(scope="module", params=EXPORTERS)
def sound(request, tmp_path_factory) -> Path:
    """A file of every format."""
    return exported(request.param, tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "file"


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(AjpqError) as caught:
        inspect(path)
    return str(caught.value)


def flipped(data: bytes, position: int, flip: int) -> bytes:
    return data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]


def test_as_it_was_exported_it_is_accepted(sound):
    assert "fit" in inspect(sound).integrity


def test_flipped_bytes_are_refused(sound, place):
    data = sound.read_bytes()
    step = max(1, len(data) // POSITIONS)
    rng = random.Random(0)
    ends = [*range(min(64, len(data))), *range(max(0, len(data) - 64), len(data))]
    for position in {*range(0, len(data), step), *ends}:
        assert refused(place, flipped(data, position, rng.randrange(1, 256)))


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_flipped_byte_is_refused(sound, place, where, flip):
    data = sound.read_bytes()
    assert refused(place, flipped(data, int(where * len(data)), flip))


def test_flips_within_the_seal_are_refused(sound, place):
    data = sound.read_bytes()
    start = data.find(b"ajpq-sha256:")
    for position in range(start, start + 76) if start >= 0 else ():
        assert refused(place, flipped(data, position, 1))


def lengths(size: int) -> Iterator[int]:
    yield from range(min(size, 40))
    yield from range(40, size, max(1, size // POSITIONS))
    yield from range(max(0, size - 40), size)


def test_truncations_are_refused(sound, place):
    data = sound.read_bytes()
    for length in lengths(len(data)):
        assert refused(place, data[:length])


def test_longer_files_are_refused(sound, place):
    for more in (b"\0", b" ", b"\n", sound.read_bytes()):
        assert refused(place, sound.read_bytes() + more)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MAGICS), st.binary(max_size=300))
def test_random_bytes_behind_every_magic_are_refused(place, magic, rest):
    assert refused(place, magic + rest)


@settings(max_examples=100, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_readers_survive_damage_without_a_seal_to_catch_it(sound, where, flip):
    """The readers themselves, as if the damage had been sealed: an answer or an error, no crash."""
    data = sound.read_bytes()
    for reader in READERS.values():
        try:
            content = reader(flipped(data, int(where * len(data)), flip))
        except Exception:  # inspect() makes a message of it
            continue
        assert all(part.stored_bytes >= 0 for part in content.parts)
