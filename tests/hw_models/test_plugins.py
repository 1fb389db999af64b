import sys

import pytest

from hw_models.errors import AjpqError
from hw_models.plugins import call_with_accepted, is_object_spec, load_object


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "my_plugin.py"
    path.write_text("class Outer:\n    value = 3\n\ndef make(): return 7\n")
    return path


def test_loads_from_a_file(plugin):
    make = load_object(f"{plugin}:make", "target")
    assert make() == 7
    assert load_object(f"{plugin}:Outer.value", "target") == 3


def test_the_same_file_gives_the_same_object_and_an_edited_one_a_new_object(plugin):
    first = load_object(f"{plugin}:Outer", "target")
    assert load_object(f"{plugin}:Outer", "target") is first
    plugin.write_text("class Outer:\n    value = 40\n")
    assert load_object(f"{plugin}:Outer", "target").value == 40


def test_loads_an_installed_module_and_one_in_the_current_directory(plugin, monkeypatch):
    assert load_object("math:gcd", "target")(12, 18) == 6
    monkeypatch.chdir(plugin.parent)
    monkeypatch.delitem(sys.modules, "my_plugin", raising=False)
    assert load_object("my_plugin:make", "target")() == 7
    monkeypatch.delitem(sys.modules, "my_plugin")


def test_a_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_plugin.py").write_text("VALUE = 11\n")
    (tmp_path / "a.py").write_text("from neighbour_of_plugin import VALUE\n")
    assert load_object(f"{tmp_path / 'a.py'}:VALUE", "data") == 11
    del sys.modules["neighbour_of_plugin"]


def test_the_search_path_is_left_as_it_was(plugin):
    before = list(sys.path)
    load_object(f"{plugin}:make", "target")
    with pytest.raises(AjpqError):
        load_object("no_such_module_at_all:make", "target")
    assert sys.path == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nothing", "expected module:attribute or path.py:attribute"),
        ("nothing:", "expected module:attribute or path.py:attribute"),
        (":make", "expected module:attribute or path.py:attribute"),
        ("no/such/file.py:make", "no file no/such/file.py"),
        ("no_such_module_at_all:make", "No module named 'no_such_module_at_all'"),
        ("math:no_such_attribute", "math has no attribute 'no_such_attribute'"),
    ],
)
def test_what_does_not_exist_gets_one_line(spec, words):
    with pytest.raises(AjpqError) as caught:
        load_object(spec, "target")
    message = str(caught.value)
    assert words in message
    assert message.startswith(f"target {spec!r}")
    assert "\n" not in message


@pytest.mark.parametrize("source", ["def broken(:\n", "raise ValueError('first\\nsecond')\n"])
def test_a_file_that_does_not_import_gets_one_line_and_is_forgotten(tmp_path, source):
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(AjpqError, match="import failed") as caught:
        load_object(f"{path}:make", "data")
    assert "\n" not in str(caught.value)
    assert not [name for name in sys.modules if name.startswith("_ajpq_plugin_broken")]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("a:b", True), ("a.py:b.c", True), ("resnet20", False), ("imagefolder:/x/y", False)],
)
def test_is_object_spec(spec, expected):
    assert is_object_spec(spec) is expected


def test_call_with_accepted_passes_only_what_fits():
    assert call_with_accepted("it", lambda: 5, a=1, b=2) == 5
    assert call_with_accepted("it", lambda b, c=7: (b, c), a=1, b=2) == (2, 7)
    assert call_with_accepted("it", lambda **rest: rest, a=1, b=2) == {"a": 1, "b": 2}
