"""JSON and YAML from strangers: bounded, and one short line when they are refused."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq import packed
from ajpq.policy import load_policy
from ajpq.runs.journal import read_journal
from hw_models.errors import AjpqError
from hw_models.plain import (
    MOST_BYTES,
    clipped,
    parsed_json,
    parsed_yaml,
    read_json,
    read_text,
    shown,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(ValueError, match="expected a file"):
            read_text(path)
        with pytest.raises(AjpqError, match="expected a file"):
            load_policy(path)
        with pytest.raises(AjpqError, match="expected a file"):
            packed.load(path)
        with pytest.raises(AjpqError, match="it is no file"):
            read_journal(path)
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "missing")


@settings(deadline=None, max_examples=50)
@given(plain)
def test_what_was_written_comes_back(value):
    assert parsed_yaml(yaml.safe_dump(value)) == value


def bomb(levels):
    """Nine aliases to nine aliases to ...: a few hundred characters for 9 ** levels nodes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bomb(9), "aliases stand for too much"),
        (bomb(60), "aliases stand for too much"),
        ("a: &a {b: 1}\nc: &c {<<: [*a, *a]}\n" + bomb(30), "aliases stand for too much"),
        ("&a [*a]", "part of"),
        ("[" * 5_000, "levels deep"),
        ("[" * 65 + "]" * 65, "levels deep"),
        ("- " * 5_000 + "x", "levels deep"),
        ("x" * 300_000, "at most 200,000 characters"),
        ("a: 9" + "9" * 5000, "digits"),
        ("a: !!int ''", "does not fit its tag"),
        ("a: !!bool maybe", "does not fit its tag"),
        ("a: !!timestamp soon", "does not fit its tag"),
        ("a: 2020-13-45", "month"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: \x00", "special characters are not allowed"),
        ("? [a]\n: b", "while constructing a mapping"),
    ],
    ids=lambda text: text[:20],
)
def test_hostile_yaml_is_refused(text, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        parsed_yaml(text)
    assert "\n" not in str(caught.value)


def test_aliases_are_fine_as_long_as_they_are_few():
    assert parsed_yaml("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


@pytest.mark.parametrize(
    "text",
    ["[" * 1_000_000, "[" * 65 + "]" * 65, '{"a":' * 100_000],
    ids=["lists", "closed", "objects"],
)
def test_hostile_json_is_refused(text):
    with pytest.raises(ValueError, match="levels deep"):
        parsed_json(text)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ValueError, match=f"at most {MOST_BYTES:,} bytes"):
        read_json(tmp_path / "large.json")


LARGE = ["x" * 10**7, [["y" * 10**6] * 9] * 9, 1 << 10**6, {1: {}}]


@pytest.mark.parametrize("value", LARGE, ids=["text", "lists", "digits", "object"])
def test_values_in_messages_are_short(value):
    assert len(shown(value)) < 20_000
    assert len(clipped("z" * 10**6)) < 400
    assert clipped("a\n\x1b[31mb").count("\n") == 0
    assert clipped("layers.conv1") == "layers.conv1"
