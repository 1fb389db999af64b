"""Damaged policies: a policy whose hash is right, or one line of what is wrong."""

import copy
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.policy import CompressionPolicy, LayerPolicy, QuantizerSpec, load_policy
from hw_models.errors import AjpqError

POLICY = CompressionPolicy(
    layers={
        "conv1": LayerPolicy(weight_bits=(0, 2, 4, 8), activation_bits=8),
        "layer1.0.conv": LayerPolicy(weight_bits=(32, 3), activation_bits=4),
    },
    quantizer=QuantizerSpec(params={"scale": "minmax"}),
)
CONTENT = {"hash": POLICY.hash, **POLICY.model_dump(mode="json")}
BYTES = json.dumps(CONTENT, indent=1).encode()

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, "hash", "layers", POLICY.hash, float("nan"), 1e400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("policies") / "policy.json"


def check(path, content):
    """``content`` is refused with one line, or is a policy whose hash it states."""
    path.write_bytes(content)
    try:
        policy = load_policy(path)
    except AjpqError as error:
        message = str(error)
    else:
        return check_loaded(policy, json.loads(content))
    assert "\n" not in message
    assert len(message) < 2000


def check_loaded(policy, stated):
    if "hash" in stated:
        assert stated["hash"] == policy.hash
    assert policy.hash != POLICY.hash or policy == POLICY


def paths_in(value, so_far=()):
    """The way to every value in a JSON document."""
    yield so_far
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from paths_in(part, (*so_far, key))


PATHS = [way for way in paths_in(CONTENT) if way]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(path, content):
    check(path, content)


@settings(deadline=None)
@given(anything)
def test_any_json(path, content):
    check(path, json.dumps(content).encode())


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(PATHS), anything, st.booleans())
def test_a_sound_policy_with_one_part_changed(path, way, value, remove):
    content = copy.deepcopy(CONTENT)
    owner = content
    for key in way[:-1]:
        owner = owner[key]
    if remove:
        del owner[way[-1]]
    else:
        owner[way[-1]] = value
    check(path, json.dumps(content).encode())


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(BYTES) - 1), st.integers(1, 255))
def test_a_flipped_byte(path, place, mask):
    damaged = bytearray(BYTES)
    damaged[place] ^= mask
    check(path, bytes(damaged))


def test_every_truncation_is_refused(path):
    for length in range(len(BYTES)):
        path.write_bytes(BYTES[:length])
        with pytest.raises(AjpqError):
            load_policy(path)
    path.write_bytes(BYTES)
    assert load_policy(path) == POLICY


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 4_000_000,
        b'{"layers": {"a": {"weight_bits": [' + b"1," * 300_000 + b"1]}}}",
        b'{"layers": {"a": {"weight_bits": [' + b'"x",' * 300_000 + b"1]}}}",
        b"{" + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}",
        b'{"layers":{' + b",".join(b'"%d":1' % number for number in range(40_000)) + b"}}",
        b'{"layers": {"' + b"x" * 7_000_000 + b'": 1}}',
        b"9" * 5_000_000,
        b" " * 9_000_000,
    ],
    ids=["deep", "long", "wrong", "keys", "layers", "name", "digits", "large"],
)
def test_hostile_files_take_bounded_memory(path, content):
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(AjpqError) as caught:
            load_policy(path)
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 2000
