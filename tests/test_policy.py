"""Policies as files: hashed, validated, refused when they do not fit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajpq.policy import (
    ACTIVATION_BITS,
    WEIGHT_BITS,
    CompressionPolicy,
    LayerPolicy,
    check_policy,
    load_policy,
    uniform_policy,
)
from hw_models.errors import AjpqError
from hw_models.registry import load_target

layer_policies = st.builds(
    LayerPolicy,
    weight_bits=st.lists(st.sampled_from(WEIGHT_BITS), min_size=1, max_size=8).map(tuple),
    activation_bits=st.sampled_from(ACTIVATION_BITS),
)
policies = st.builds(
    CompressionPolicy,
    layers=st.dictionaries(st.text(min_size=1), layer_policies, min_size=1, max_size=4),
)


@given(policies)
def test_policies_come_back_from_disk(tmp_path_factory, policy):
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    policy.save(path)
    assert load_policy(path) == policy
    assert load_policy(path).hash == policy.hash


def test_the_hash_is_of_the_content():
    one, other = (uniform_policy({"a": 2}, bits) for bits in (4, 5))
    assert one.hash == uniform_policy({"a": 2}, 4).hash
    assert one.hash != other.hash


def saved(tmp_path, **changes):
    path = tmp_path / "policy.json"
    uniform_policy({"a": 2}, 4).save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"layers": {"a": {"weight_bits": [4, 1], "activation_bits": 8}}}, "got 1"),
        ({"layers": {"a": {"weight_bits": [4], "activation_bits": 1}}}, "got 1"),
        ({"layers": {"a": {"weight_bits": [4], "bits": 1}}}, "layers.a.bits"),
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"layers": {"a": {"weight_bits": [4, 5], "activation_bits": 8}}}, "was altered"),
    ],
)
def test_bad_files_are_refused(tmp_path, changes, expected):
    with pytest.raises(AjpqError, match=expected):
        load_policy(saved(tmp_path, **changes))


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(AjpqError, match="cannot read"):
        load_policy(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(AjpqError, match="is not a policy"):
        load_policy(tmp_path / "list.json")


def test_a_policy_must_fit_network_and_target():
    npu = load_target("edge-npu")
    policy = uniform_policy({"a": 2}, 4)
    check_policy(policy, {"a": 2}, npu)
    for channels, expected in (({"b": 2}, "'a'|'b'"), ({"a": 3}, "3 output channels")):
        with pytest.raises(AjpqError, match=expected):
            check_policy(policy, channels, npu)
    with pytest.raises(AjpqError, match="layer 'a' has 32"):
        check_policy(uniform_policy({"a": 2}, 32), {"a": 2}, npu)
    with pytest.raises(AjpqError, match="activations of"):
        check_policy(uniform_policy({"a": 2}, 4, activation_bits=4), {"a": 2}, npu)
