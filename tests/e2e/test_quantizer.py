"""``python -m ajpq.search --quantizer NAME``: a method of that name trains the finalists."""

import json
from pathlib import Path

import pytest
import yaml

from ajpq.config.files import load_method, load_search_config
from ajpq.policy import load_policy
from ajpq.runs.finished import load_finished
from ajpq.runs.folder import load_config, load_weights
from hw_models.errors import AjpqError
from tests.e2e.commands import TINY, command, journal, start_and_kill

SHORT = ("--episodes", "3")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The tiny search with two rounds of finalists, both short."""
    content = yaml.safe_load(Path(TINY).read_text())
    trained = {"mode": "straight_through", "steps": 6, "batch_size": 64, "learning_rate": 0.02}
    recipe = {"name": "short", "stages": [{"mode": "psg", "steps": 4}, trained]}
    content["base"]["stages"][0]["epochs"] = 1
    content["final"] = [{"keep": 2, "recipe": recipe}, {"keep": 1, "recipe": recipe}]
    path = tmp_path_factory.mktemp("quantizer") / "short.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def search(config, run_dir, *options):
    return command("search", "--config", config, "--run-dir", run_dir, *SHORT, *options)


@pytest.fixture(scope="module")
def codeq(config, tmp_path_factory):
    run = tmp_path_factory.mktemp("codeq") / "run"
    outcome = search(config, run, "--quantizer", "codeq", "--agent", "ajpq")
    assert outcome.returncode == 0, outcome.stderr
    return run


def test_the_recipe_keeps_its_length_and_takes_the_method(codeq, config):
    found = load_config(codeq)
    assert found.method == "codeq"
    (shipped,) = load_method("codeq")["recipe"]["stages"]
    for own in found.final:
        first, last = own.recipe.stages
        assert (first.mode, first.steps, own.recipe.methods) == ("psg", 4, ("psg", "codeq"))
        assert last.method.model_dump() == shipped["method"]
        assert (last.steps, last.epochs, last.batch_size, last.warmup_steps) == (6, None, 64, 0)
        assert (last.optimizer, last.learning_rate) == ("adam", 0.001)  # SGD's 0.02 is no rate
    assert found.candidate == load_search_config(str(config), {}).candidate  # of Adam's kind
    ewgs = load_search_config(str(config), {"method": "ewgs"}).full_recipe.stages[-1]
    assert (ewgs.optimizer, ewgs.learning_rate) == ("sgd", 0.02)


def test_finalists_begin_with_the_widths_that_the_search_found(codeq):
    run = load_finished(codeq)
    proposed = {line["hash"] for line in journal(codeq) if line["kind"] == "candidate"}
    assert run.asked.hash in proposed
    stored = {bits for layer in run.policy.layers.values() for bits in layer.weight_bits}
    assert stored <= {0, 2, 8}
    assert run.policy.hash not in proposed
    assert load_weights(codeq / "weights.safetensors").widths


def test_it_retrains_and_goes_elsewhere(codeq, tmp_path):
    outcome = command("replay", codeq, "--retrain")
    assert outcome.returncode == 0, outcome.stderr
    elsewhere = ("--checkpoint", codeq / "base.safetensors", "--run-dir", tmp_path / "new")
    outcome = command("replay", codeq, "--retrain", *elsewhere)
    assert outcome.returncode == 0, outcome.stderr
    for name in ("policy.json", "weights.safetensors"):
        assert (tmp_path / "new" / name).read_bytes() == (codeq / name).read_bytes()


def test_what_it_leaves_names_the_method(codeq, tmp_path):
    assert "</span> short, codeq</li>" in (codeq / "report.html").read_text()
    outcome = command("export", codeq, "--format", "packed", "--verify", "--out", tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "fine-tuned from it by psg, codeq" in (tmp_path / "README.md").read_text()
    (packed,) = tmp_path.glob("*.ajpq")
    found = json.loads((codeq / "result.json").read_text())["found"]
    assert packed.stat().st_size == found["packed_bytes"]


def test_another_budget_is_decoded_with_the_same_method(codeq, tmp_path):
    run = tmp_path / "decoded"
    options = ("--size-ratio", "0.12", "--episodes", "2", "--run-dir", run)
    outcome = command("decode", codeq, *options)
    assert outcome.returncode == 0, outcome.stderr
    assert load_config(run).final == load_config(codeq).final
    assert load_config(run).method == "codeq"


def test_a_killed_search_goes_on_with_its_method(config, tmp_path):
    """To what training without an interruption gives: that is what the replay compares."""
    run, options = tmp_path / "run", (*SHORT, "--quantizer", "ewgs")
    start_and_kill("search", str(config), run, trains, *options)
    refused = command("search", "--run-dir", run, "--resume", "--quantizer", "lsq")
    assert refused.returncode == 2
    assert "started with another method: 'ewgs', not 'lsq'" in refused.stderr
    outcome = command("search", "--run-dir", run, "--resume", "--quantizer", "ewgs")
    assert outcome.returncode == 0, outcome.stderr
    assert load_finished(run).asked.hash == load_policy(run / "policy.json").hash
    outcome = command("replay", run, "--retrain")
    assert outcome.returncode == 0, outcome.stderr


def test_codebooks_of_gwk_keep_the_levels_that_the_search_found(config, tmp_path):
    run = tmp_path / "run"
    outcome = search(config, run, "--quantizer", "gwk", "--fixed-bits", "4")
    assert outcome.returncode == 0, outcome.stderr
    found = load_finished(run)
    asked = {bits for layer in found.asked.layers.values() for bits in layer.weight_bits}
    stored = {bits for layer in found.policy.layers.values() for bits in layer.weight_bits}
    assert 4 in asked
    assert stored - asked <= {8}
    for name, layer in found.asked.layers.items():
        rows = found.weights.latent[f"{name}.weight"]
        levels = [
            len(row.unique())
            for row, bits in zip(rows, layer.weight_bits, strict=True)
            if bits == 4
        ]
        assert max(levels, default=0) <= 15
    outcome = command("export", run, "--format", "packed", "--verify", "--out", tmp_path)
    assert outcome.returncode == 0, outcome.stderr


def test_a_recipe_that_would_undo_the_method_is_refused(config, tmp_path):
    content = yaml.safe_load(config.read_text())
    content["final"][0]["recipe"]["stages"].reverse()  # one recipe for both rounds
    (tmp_path / "reversed.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(AjpqError, match=r"'gwk' does not fit .* would be undone by the next"):
        load_search_config(str(tmp_path / "reversed.yaml"), {"method": "gwk"})


def trains(run):
    return any((run / "checkpoints").glob("*"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--quantizer", "ewsg"), "unknown method 'ewsg'; did you mean 'ewgs'"),
        (("--quantizer", "codeq-mixed"), "use python -m ajpq.compress --method codeq-mixed"),
        (("--quantizer", "psg-channels"), "does not end with the widths and channels"),
        (("--quantizer", "ewgs-mid-rise"), "use python -m ajpq.compress --method ewgs-mid-rise"),
        (("--quantizer", "lsq", "--config", "untrained"), "'direct-64', has no straight_through"),
        (("--quantizer", "none.yaml"), "cannot read the method"),
    ],
)
def test_what_cannot_train_finalists_is_told_in_one_line(config, tmp_path, options, expected):
    outcome = search(config, tmp_path / "run", *options)
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert expected in line
    assert not (tmp_path / "run").exists()


def test_the_help_lists_the_methods_that_there_are():
    """Wherever lines break."""
    told = command("search", "--help").stdout
    assert "ewgs" in told
    assert "gwk" in told
    assert "codeq-mixed" not in told
    assert "codeq-mixed" in command("compress", "--help").stdout
