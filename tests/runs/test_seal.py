"""Checksums of a finished run cannot be lost by damage to the words that name them."""

import json

import pytest

from ajpq.runs.seal import SEALED, load_sealed, save_result
from hw_models.errors import AjpqError

OLDER = {
    "baseline": {},
    "found": {"top1_val": 90.0},
    "layer_latencies_s": {},
    "policy": "0123",
    "target": "size-only",
    "seed": 0,
    "threads": 1,
    "seconds": 1.0,
    "versions": {},
}
"""What a result held before there were checksums."""


@pytest.fixture
def run(tmp_path):
    for name in SEALED:
        (tmp_path / name).write_bytes(name.encode())
    save_result(tmp_path, {**OLDER, "machine": {"processor": "abacus"}})
    return tmp_path


def test_every_other_byte_in_the_key_of_the_checksums_is_refused(run):
    path = run / "result.json"
    content = path.read_bytes()
    (start,) = (i for i in range(len(content)) if content.startswith(b'"sha256":', i))
    for place in range(start, start + len(b'"sha256":')):
        for mask in range(1, 256):
            damaged = bytearray(content)
            damaged[place] ^= mask
            path.write_bytes(damaged)
            with pytest.raises(AjpqError, match="is damaged"):
                load_sealed(run)


@pytest.mark.parametrize("extra", ["machine", "sha257", "", "anything"])
def test_what_came_with_the_checksums_or_later_does_not_stand_without_them(tmp_path, extra):
    (tmp_path / "result.json").write_text(json.dumps({**OLDER, extra: {}}))
    with pytest.raises(AjpqError, match="lacks checksums"):
        load_sealed(tmp_path)


@pytest.mark.parametrize("lost", [None, "threads", "layer_latencies_s"])
def test_a_result_from_before_checksums_has_none(tmp_path, lost):
    older = {key: value for key, value in OLDER.items() if key != lost}
    (tmp_path / "result.json").write_text(json.dumps(older))
    assert load_sealed(tmp_path) == (older, False)


def test_an_undamaged_run_is_sealed(run):
    assert load_sealed(run) == ({**OLDER, "machine": {"processor": "abacus"}}, True)
