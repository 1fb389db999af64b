"""Damaged run folders: whatever is wrong with them, one line says so and nothing is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq import api
from ajpq.base import build_problem
from ajpq.checkpoints import load_tensors, save_tensors
from ajpq.config.files import load_compress_config
from ajpq.runs.finished import check_weights, load_finished
from ajpq.runs.seal import BASE_WEIGHTS, SEALED, load_sealed
from hw_models.errors import AjpqError
from tests.e2e.commands import command

TINY = str(Path(__file__).with_name("tiny_compress.yaml"))
FILES = (*SEALED, "result.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("damage") / "run"
    api.compress(load_compress_config(TINY, {"recipe": "direct"}), run)
    return run


@pytest.fixture(scope="module")
def copies(finished):
    """The run; as it would be if it were older than checksums; its problem."""
    older = shutil.copytree(finished, finished.with_name("older"))
    result, _ = load_sealed(finished)
    del result["machine"]  # came with the checksums
    (older / "result.json").write_text(json.dumps(result))
    return finished, older, build_problem(load_finished(finished).config)


def load(run, problem):
    """What replay and export do before they measure anything."""
    found = load_finished(run)
    check_weights(found.weights, problem.graph, problem.state)
    return found


def with_damage(run, name, content, then):
    path = run / name
    before = path.read_bytes()
    try:
        path.unlink() if content is None else path.write_bytes(content)
        return then()
    finally:
        path.write_bytes(before)


def outcome(run, problem):
    """The message of the refusal, or None."""
    try:
        load(run, problem)
    except AjpqError as error:
        message = str(error)
    else:
        return None
    assert "\n" not in message
    assert len(message) < 2000
    return message


damages = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.none()),
    st.tuples(st.just("replace"), st.binary(max_size=300), st.none()),
    st.tuples(st.just("append"), st.binary(min_size=1, max_size=9), st.none()),
    st.tuples(st.just("delete"), st.none(), st.none()),
)


def damaged(content, kind, where, mask):
    if kind == "delete":
        return None
    if kind in ("replace", "append"):
        return where if kind == "replace" else content + where
    place = int(where * len(content))
    if kind == "cut":
        return content[:place]
    return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(FILES), damage=damages)
def test_any_damage_to_a_sealed_run_is_refused(copies, name, damage):
    run, _, problem = copies
    content = damaged((run / name).read_bytes(), *damage)
    message = with_damage(run, name, content, lambda: outcome(run, problem))
    if message is None:  # white space, or another spelling of the same JSON
        assert name == "result.json"
        found = json.loads(content), json.loads((run / name).read_bytes())
        assert found[0] == found[1]


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(FILES), damage=damages)
def test_damage_to_an_older_run_crashes_nothing(copies, name, damage):
    _, run, problem = copies
    content = damaged((run / name).read_bytes(), *damage)
    with_damage(run, name, content, lambda: outcome(run, problem))


def test_the_run_itself_loads(copies):
    run, older, problem = copies
    notes = []
    assert outcome(run, problem) is None
    load_finished(older, note=notes.append)
    assert "no checksums" in notes[0]
    assert "fit their checksums" in command("export", "--check", run).stdout
    assert "no checksums" in command("export", "--check", older).stdout


@pytest.mark.parametrize("name", FILES)
def test_the_commands_refuse_a_damaged_run(copies, name):
    run = copies[0]
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 16

    def all_commands():
        for words in (
            ("replay", run),
            ("export", run, "--format", "packed"),
            ("export", "--check", run),
            ("report", run),
            ("decode", run),
        ):
            answer = command(*words)
            assert answer.returncode == 2, (words, answer)
            assert "Traceback" not in answer.stderr
            assert answer.stderr.startswith("error: ")

    with_damage(run, name, bytes(content), all_commands)


def test_files_of_another_run_are_refused(copies, tmp_path):
    run, older, problem = copies
    other = json.loads((older / "policy.json").read_text())
    del other["hash"]
    next(iter(other["layers"].values()))["activation_bits"] = 7
    text = json.dumps(other).encode()
    message = with_damage(older, "policy.json", text, lambda: outcome(older, problem))
    assert "is not the policy of this run" in message
    message = with_damage(run, "policy.json", text, lambda: outcome(run, problem))
    assert "was changed after the run had finished" in message


def altered(path, name, value):
    """The bytes of a weights file with one tensor replaced, or removed."""
    tensors, _ = load_tensors(path)
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    copy = path.with_name("copy.safetensors")
    save_tensors(copy, tensors)
    content = copy.read_bytes()
    copy.unlink()
    return content


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("latent.conv1.weight", None, "lack weight 'conv1.weight'"),
        ("latent.conv1.weight", torch.zeros(2, 2), "of shape"),
        ("latent.conv1.weight", torch.full((16, 1, 3, 3), torch.nan), "finite"),
        ("latent.conv1.weight", torch.zeros(16, 1, 3, 3, dtype=torch.int8), "finite"),
        ("latent.other", torch.zeros(1), "unexpected weight 'other'"),
        ("compressed.bn1.running_var", torch.full((16,), torch.inf), "finite"),
        ("compressed.bn1.running_mean", None, "lack statistic"),
        ("scales.conv1", torch.ones(3), "steps of layer 'conv1' of shape"),
        ("scales.conv9", torch.ones(3), "unexpected steps of layer 'conv9'"),
        ("range.input", None, "lack the range of activations 'input'"),
        ("range.input", torch.ones(1), "has no range"),
        ("range.input", torch.tensor([-1.0, 0.0]), "has no range"),
    ],
)
def test_weights_that_do_not_fit_are_named(copies, name, value, expected):
    _, run, problem = copies
    content = altered(run / "weights.safetensors", name, value)
    message = with_damage(run, "weights.safetensors", content, lambda: outcome(run, problem))
    assert expected in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.yaml", b"a: &a [*a]", "part of"),
        ("config.yaml", b"[" * 100_000, "levels deep"),
        ("config.yaml", b"\xff\xfe\x00", "damaged"),
        ("config.yaml", b"kind: [compress]\nseed: 0\n", "kind"),
        ("config.yaml", b"seed: 1" + b"0" * 4000, "seed"),
        ("result.json", b"[" * 100_000, "levels deep"),
        ("result.json", b"[]", "no result"),
        ("result.json", b'{"found": []}', "no result"),
        ("result.json", b'{"found": {}, "threads": -1}', "no result"),
        ("result.json", b'{"found": {}, "threads": "two"}', "no result"),
        ("result.json", b'{"found": {}, "sha256": {"policy.json": 1}}', "lacks checksums"),
        ("policy.json", b"[" * 100_000, "levels deep"),
    ],
)
def test_structures_that_are_wrong_are_named(copies, name, content, expected):
    _, run, problem = copies
    assert expected in with_damage(run, name, content, lambda: outcome(run, problem))


def test_values_of_wrong_types_in_the_configuration_are_named(copies):
    _, run, problem = copies
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in (("seed", "x"), ("mean", 3), ("recipe", []), ("validation_share", "nan")):
        content = yaml.safe_dump({**config, key: value}).encode()
        message = with_damage(
            run, "config.yaml", content, lambda text=content: outcome(run, problem)
        )
        assert key in message


def test_base_weights_are_sealed_with_the_rest(copies):
    run, _, problem = copies
    content = altered(run / BASE_WEIGHTS, "conv1.weight", torch.ones(16, 1, 3, 3))
    message = with_damage(run, BASE_WEIGHTS, content, lambda: outcome(run, problem))
    assert BASE_WEIGHTS in message
