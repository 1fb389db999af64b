"""Every shipped configuration loads; bad ones say what is wrong in one line."""

import pytest

from agents.config import load_agent_config
from ajpq.config import load_recipe, load_search_config, shipped
from hw_models.errors import AjpqError, UnknownNameError


@pytest.mark.parametrize("name", sorted(shipped("experiments")))
def test_shipped_experiments_load(name):
    config = load_search_config(name, {})
    load_agent_config(config.agent)
    assert any(stage.mode == "psg" for stage in config.candidate.stages)


@pytest.mark.parametrize("name", sorted(shipped("recipes")))
def test_shipped_recipes_load(name):
    assert load_recipe(name).stages


@pytest.mark.parametrize("name", sorted(shipped("agents")))
def test_shipped_agents_load(name):
    assert load_agent_config(name).algorithm in name


def test_options_override_the_file():
    config = load_search_config("digits", {"seed": 7, "size_ratio": 0.5})
    assert (config.seed, config.size_ratio) == (7, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size_ratio: nine\n", "size_ratio"),
        ("sise_ratio: 0.1\n", "sise_ratio"),
        ("- a\n", "expected a mapping"),
        ("a: [\n", "is not YAML"),
        ("final: []\n", "final"),
        ("final: [{keep: 1, recipe: full}, {keep: 2, recipe: full}]\n", "fewer and fewer"),
        ("candidate: {name: x, stages: [{mode: psg}]}\n", "either epochs or steps"),
    ],
)
def test_bad_files_are_one_line(tmp_path, text, expected):
    path = tmp_path / "mine.yaml"
    base = "" if "final" in text else "final: [{keep: 1, recipe: full}]\n"
    path.write_text(text if text.startswith("-") else base + text)
    with pytest.raises(AjpqError, match=expected) as caught:
        load_search_config(str(path), {})
    assert "\n" not in str(caught.value)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'psg-short'"):
        load_recipe("psg-shrt")
