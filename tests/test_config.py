"""Every shipped configuration loads; bad ones say what is wrong in one line."""

import pytest

from agents.config import load_agent_config
from ajpq.config.files import load_compress_config, load_recipe, load_search_config, shipped
from ajpq.config.paths import target_with_full_paths, with_full_path
from hw_models.errors import AjpqError, UnknownNameError

COMPRESSIONS = {"compress", "psg-cifar100", "psg-digits"}


@pytest.mark.parametrize("name", sorted(shipped("experiments").keys() - COMPRESSIONS))
def test_shipped_searches_load(name):
    config = load_search_config(name, {})
    load_agent_config(config.agent)
    assert config.candidate.name == "direct"


@pytest.mark.parametrize("name", sorted(COMPRESSIONS))
def test_shipped_compressions_load(name):
    config = load_compress_config(name, {})
    assert config.recipe.stages
    with pytest.raises(AjpqError, match="is for python -m ajpq\\.compress"):
        load_search_config(name, {})


def test_the_papers_recipe_has_its_figures():
    """arXiv 2005.11035 and its code: 82 + 68 epochs, 0.01 falling at epoch 123, lambda_s 150."""
    config = load_compress_config("psg-cifar100", {})
    (before,), (psg,) = config.base.stages, config.recipe.stages
    assert (before.mode, before.epochs, psg.mode, psg.epochs) == ("float", 82, "psg", 68)
    assert (psg.learning_rate, psg.milestones, before.epochs + 41) == (0.01, (41,), 123)
    assert (psg.psg.lambda_s, psg.psg.scaling, psg.momentum) == (150, "separable", 0.9)
    assert (config.weight_bits, config.activation_bits, config.outer_bits) == (4, 32, None)


@pytest.mark.parametrize("name", sorted(shipped("recipes")))
def test_shipped_recipes_load(name):
    assert load_recipe(name).stages or name == "direct"


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


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("edge-npu", "edge-npu"),
        ("package.module:Class", "package.module:Class"),
        ("torchvision:resnet18", "torchvision:resnet18"),
        ("public", "public"),
        ("device.py:Mine", "{here}/device.py:Mine"),
        ("imagefolder:pictures", "imagefolder:{here}/pictures"),
        ("weights/net.pth", "{here}/weights/net.pth"),
        ("weights/a,b.pth", "{here}/weights/a,b.pth"),
        ("runs/best,acc=91.2.pth", "{here}/runs/best,acc=91.2.pth"),
        ("imagefolder:", "imagefolder:"),
    ],
)
def test_files_are_kept_by_their_full_path(spec, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_full_path(spec) == expected.format(here=tmp_path)
    assert with_full_path(with_full_path(spec)) == with_full_path(spec)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("edge-npu", "edge-npu"),
        ("ethos-u55-128,memory_mode=Sram_Only", "ethos-u55-128,memory_mode=Sram_Only"),
        ("board.csv,fixed_latency_us=7", "{here}/board.csv,fixed_latency_us=7"),
        ("board.csv, fixed_latency_us=7", "{here}/board.csv, fixed_latency_us=7"),
        ("board.yaml, table=other.csv", "{here}/board.yaml, table={here}/other.csv"),
    ],
)
def test_targets_keep_the_files_of_their_changes_too(spec, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert target_with_full_paths(spec) == expected.format(here=tmp_path)
    assert target_with_full_paths(target_with_full_paths(spec)) == target_with_full_paths(spec)
