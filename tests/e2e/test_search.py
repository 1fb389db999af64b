"""The whole way: search, resume after SIGKILL, replay, export, report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ajpq.config.files import load_search_config
from ajpq.data import load_data, normalize
from ajpq.exporters.verify import run_onnx
from ajpq.packed import load
from ajpq.policy import load_policy
from ajpq.reference import simulate
from ajpq.runs.seal import load_sealed, save_result
from tests.e2e.commands import (
    TINY,
    command,
    journal,
    lines_in_journal,
    search,
    search_and_kill,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("e2e") / "run"
    outcome = search(run)
    assert outcome.returncode == 0, outcome.stderr
    return run, outcome.stdout


def test_a_run_leaves_everything_that_is_promised(finished):
    run, printed = finished
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml",
        "command.txt",
        "journal.jsonl",
        "pareto.csv",
        "policy.json",
        "weights.safetensors",
        "base.safetensors",
        "agent",
        "report.html",
        "result.json",
        "tensorboard",
    }
    assert "checkpoints" not in names
    result = json.loads((run / "result.json").read_text())
    assert set(result) >= {"baseline", "found", "target", "seed", "seconds", "versions"}
    fields = {"top1_val", "top1_test", "latency_s", "packed_bytes", "flash_bytes", "bops", "macs"}
    assert set(result["baseline"]) >= fields
    assert set(result["found"]) >= fields | {"top1_test_full_precision"}
    assert result["found"]["top1_test_full_precision"] is None  # straight-through ends the recipe
    assert set(result["found"]["bops"]) == {"fl32", "fl8", "all"}
    assert result["found"]["packed_bytes"] <= 0.1 * result["baseline"]["packed_bytes"]
    assert result["baseline"]["bops"]["all"] == 1024 * result["baseline"]["macs"]
    assert "baseline" in printed
    assert "found" in printed
    assert load_policy(run / "policy.json").hash == result["policy"]
    assert [line["kind"] for line in journal(run)] == ["candidate"] * 6 + ["finalist"] * 2


def test_the_same_seed_finds_the_same_policy(finished, tmp_path):
    again = tmp_path / "again"
    assert search(again).returncode == 0
    assert (again / "policy.json").read_text() == (finished[0] / "policy.json").read_text()
    assert journal(again) == journal(finished[0])


@pytest.mark.parametrize("moment", ["among candidates", "among finalists"])
def test_a_killed_search_resumes_to_the_same_result(finished, tmp_path, moment):
    run = tmp_path / "killed"
    reached = {
        "among candidates": lambda folder: lines_in_journal(folder) >= 3,
        "among finalists": lambda folder: any(folder.glob("checkpoints/*.part")),
    }[moment]
    search_and_kill(run, reached)
    assert not (run / "result.json").exists()
    outcome = search(run, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    assert (run / "policy.json").read_text() == (finished[0] / "policy.json").read_text()
    assert journal(run) == journal(finished[0])
    assert (run / "weights.safetensors").read_bytes() == (
        finished[0] / "weights.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("agent", ["tpe", "milp"])
def test_other_searchers_resume_too(agent, tmp_path):
    options = ("--agent", agent, "--target", "bismo")
    run, whole = tmp_path / "killed", tmp_path / "whole"
    assert search(whole, *options).returncode == 0
    search_and_kill(run, lambda folder: lines_in_journal(folder) >= 3, *options)
    outcome = search(run, *options, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    assert journal(run) == journal(whole)
    assert (run / "optuna.journal").exists() == (agent == "tpe")


def test_with_a_bound_on_accuracy_the_candidates_walk_to_it_first(tmp_path):
    options = ("--max-drop", "10", "--size-ratio", "0.1", "--target", "bismo", "--episodes", "8")
    assert search(tmp_path / "run", *options).returncode == 0
    entries = [line for line in journal(tmp_path / "run") if line["kind"] == "candidate"]
    assert len(entries) == 8
    widths = [
        {tuple(set(layer["weight_bits"]) - {0}) for layer in entry["policy"]["layers"].values()}
        for entry in entries
    ]
    walked = [all(len(bits) == 1 for bits in found) for found in widths]
    assert walked[0]  # one width in every layer, as no agent proposes
    whole = json.loads((tmp_path / "run" / "result.json").read_text())["baseline"]["packed_bytes"]
    assert all(entry["metrics"]["packed_bytes"] <= 0.1 * whole for entry in entries)
    assert not walked[-1]
    again = tmp_path / "again"
    search_and_kill(again, lambda folder: lines_in_journal(folder) >= 2, *options)
    assert search(again, *options, "--resume").returncode == 0
    assert journal(again) == journal(tmp_path / "run")


def test_the_walk_to_the_border_keeps_to_its_time(tmp_path):
    run = tmp_path / "run"
    outcome = search(run, "--max-drop", "10", "--time-budget", "1e-7", "--target", "bismo")
    assert outcome.returncode == 0, outcome.stderr
    assert [line["kind"] for line in journal(run)].count("candidate") == 1


def test_replay_brings_the_metrics_back_and_notices_tampering(finished, tmp_path):
    run = finished[0]
    outcome = command("replay", run)
    assert outcome.returncode == 0, outcome.stderr
    assert "top1_test" in outcome.stdout
    result = json.loads((run / "result.json").read_text())
    altered = {**result, "found": {**result["found"], "top1_val": 1.0}}
    sums = altered.pop("sha256")
    try:
        (run / "result.json").write_text(json.dumps({**altered, "sha256": sums}))
        changed = command("replay", run)
        save_result(run, altered)  # a forger corrects the checksums too
        forged = command("replay", run)
    finally:
        (run / "result.json").write_text(json.dumps(result))
    assert (changed.returncode, forged.returncode) == (2, 2)
    assert "result.json is damaged or was changed" in " ".join(changed.stderr.split())
    assert "does not replay: top1_val was 1.0" in forged.stderr


def test_retraining_repeats_the_result(finished, tmp_path):
    outcome = command("replay", finished[0], "--retrain")
    assert outcome.returncode == 0, outcome.stderr


def test_exports_run_and_agree_with_the_reference(finished, tmp_path):
    run = finished[0]
    outcome = command("export", run, "--format", "policy,onnx,packed", "--out", tmp_path / "out")
    assert outcome.returncode == 0, outcome.stderr
    result = json.loads((run / "result.json").read_text())
    network = load(tmp_path / "out" / "model.ajpq")
    assert (tmp_path / "out" / "model.ajpq").stat().st_size == result["found"]["packed_bytes"]
    config = load_search_config(TINY, {})
    dataset = load_data(config.data)
    images = normalize(dataset.test_images, dataset)
    logits = simulate(network, images)
    top1 = 100 * float((logits.argmax(1) == torch.from_numpy(dataset.test_labels)).double().mean())
    assert top1 == pytest.approx(result["found"]["top1_test"], abs=1e-9)
    onnx = run_onnx(tmp_path / "out" / "model.onnx", [images.numpy()])
    agreement = float((np.asarray(onnx).argmax(1) == logits.argmax(1).numpy()).mean())
    assert agreement >= 0.995
    assert load_policy(tmp_path / "out" / "policy.json").hash == result["policy"]


def test_exported_files_are_verified_on_the_test_images(finished, tmp_path):
    run, out = finished[0], tmp_path / "out"
    outcome = command("export", run, "--format", "all", "--out", out, "--verify")
    found = json.loads((out / "verified.json").read_text())
    result = json.loads((run / "result.json").read_text())
    assert found["reference_top1"] == result["found"]["top1_test"]
    assert found["policy"] == result["policy"]
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "verified.json",
        *(own["file"] for own in found["files"].values()),
    }
    failed = [name for name, own in found["files"].items() if not own["ok"]]
    assert set(failed) <= {"tflite"}  # one of 359 images is more than its tenth of a point
    assert found["files"]["tflite"]["agreement"] >= 99.5
    assert outcome.returncode == (2 if failed else 0), outcome.stderr
    assert all(name in outcome.stderr for name in failed)
    assert "onnx-blocked" in outcome.stdout
    ledger = (run / "test_ledger.jsonl").read_text().splitlines()
    look = json.loads(ledger[-1])
    assert look["occasion"] == f"{run.name} (exported files)"
    assert look["top1_test"]["packed"] == pytest.approx(found["reference_top1"], abs=1e-4)


def test_a_run_folder_needs_nothing_but_the_data(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("AJPQ_CACHE", str(tmp_path / "empty"))
    outcome = command("export", finished[0], "--format", "packed", "--out", tmp_path / "out")
    assert outcome.returncode == 0, outcome.stderr
    assert not list((tmp_path / "empty").glob("base/*"))  # nothing was trained again
    result = json.loads((finished[0] / "result.json").read_text())
    assert (tmp_path / "out" / "model.ajpq").stat().st_size == result["found"]["packed_bytes"]


def test_resuming_a_finished_run_shows_it_and_changes_nothing(finished):
    run, _ = finished
    before = (run / "result.json").read_bytes()
    outcome = search(run, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    assert (run / "result.json").read_bytes() == before
    assert "found" in outcome.stdout


def test_fixed_precision_gives_every_kernel_this_width_or_none(tmp_path):
    run = tmp_path / "fixed"
    outcome = search(run, "--fixed-bits", 4, "--size-ratio", 0.12, "--agent", "ppo")
    assert outcome.returncode == 0, outcome.stderr
    policy = load_policy(run / "policy.json")
    assert {bits for layer in policy.layers.values() for bits in layer.weight_bits} <= {0, 4}


def test_psg_alone_reports_both_modes_of_one_set_of_weights(tmp_path):
    content = yaml.safe_load(Path(TINY).read_text())
    content["final"][0]["recipe"]["stages"] = content["final"][0]["recipe"]["stages"][:1]
    (tmp_path / "psg.yaml").write_text(yaml.safe_dump(content))
    run = tmp_path / "run"
    outcome = command("search", "--config", tmp_path / "psg.yaml", "--run-dir", run)
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads((run / "result.json").read_text())["found"]
    assert 0 < found["top1_test_full_precision"] <= 100
    assert "same weights, uncompressed" in outcome.stdout
    assert command("replay", run).returncode == 0


def test_limits_bound_what_the_device_stores_and_holds(tmp_path):
    outcome = search(tmp_path / "run", "--limit", "flash=24kB", "--limit", "sram=90%")
    assert outcome.returncode == 0, outcome.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["found"]["flash_bytes"] <= 24_000
    whole = result["baseline"]["peak_activation_bytes"]
    assert result["found"]["peak_activation_bytes"] <= 0.9 * whole
    for limits, expected in (
        (["sram=1%"], f"sram ratio 0.01 or {whole / 100:.4g} B (with a margin"),
        (["energy=1uJ"], "does not know energy; take this bound away: --limit energy=none"),
        (["flash"], "expected COST=BOUND"),
        (["flash=24"], "expected a positive number"),
        (["flash=24kB", "sram=90%", "flash=20kB"], "two bounds of flash: 24kB and 20kB"),
    ):
        refused = search(tmp_path / "other", "--limit", *limits)
        assert refused.returncode == 2
        assert expected in refused.stderr
    assert not (tmp_path / "other").exists()


def test_an_export_has_a_card_and_can_be_checked(finished, tmp_path):
    run, out = finished[0], tmp_path / "out"
    formats = "policy,onnx,tflite,packed"
    outcome = command("export", run, "--format", formats, "--out", out, "--license", "mit")
    assert outcome.returncode == 0, outcome.stderr
    result = json.loads((run / "result.json").read_text())
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "mit"
    (metric,) = front["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == round(result["found"]["top1_test"], 4)
    assert f"{result['baseline']['top1_test']:.2f} %" in card
    assert "tiny-full" in card
    assert "was trained with the recipe `tiny-base` in the same run" in card
    assert "base.safetensors" not in card
    assert str(run) not in card
    checked = command("export", "--check", out)
    assert checked.returncode == 0, checked.stderr
    assert result["policy"] in checked.stdout
    assert checked.stdout.count("fits its seal") == 2
    whole = command("export", "--check", run)
    assert whole.returncode == 0, whole.stderr
    assert "run folder (search)" in whole.stdout


def test_a_packed_file_is_exported_without_the_run(finished, tmp_path):
    zoo, out = tmp_path / "zoo", tmp_path / "out"
    assert command("export", finished[0], "--format", "packed", "--out", zoo).returncode == 0
    outcome = command("export", zoo, "--format", "onnx,packed", "--out", out)
    assert outcome.returncode == 0, outcome.stderr
    assert (out / "model.ajpq").read_bytes() == (zoo / "model.ajpq").read_bytes()
    before, after = ((f / "README.md").read_text() for f in (zoo, out))
    assert before.split("## Files")[0] == after.split("## Files")[0]


def test_a_packed_file_is_verified_on_images_that_are_named(finished, tmp_path):
    zoo, out = tmp_path / "zoo", tmp_path / "out"
    assert command("export", finished[0], "--format", "packed", "--out", zoo).returncode == 0
    formats = ("--format", "all", "--out", out)
    refused = command("export", zoo, *formats, "--verify")
    assert refused.returncode == 2
    assert "--data" in refused.stderr
    assert not out.exists()
    other = command("export", zoo, *formats, "--data", "cifar10-is-not-here")
    assert other.returncode == 2
    assert "unknown data" in other.stderr

    guessed = command("export", zoo, *formats)
    assert guessed.returncode == 0, guessed.stderr
    assert "is a guess" in guessed.stdout
    assert (out / "README.md").read_text().count("is a guess") == 2  # tflite, vela
    wide = (out / "model.tflite").read_bytes()

    outcome = command("export", zoo, *formats, "--data", "digits", "--verify")
    found = json.loads((out / "verified.json").read_text())
    result = json.loads((finished[0] / "result.json").read_text())
    assert found["reference_top1"] == result["found"]["top1_test"]
    assert found["policy"] is None
    assert set(found["files"]) >= {"packed", "torch", "onnx", "onnx-blocked", "tflite", "vela"}
    failed = [name for name, own in found["files"].items() if not own["ok"]]
    assert set(failed) <= {"tflite"}  # one of 359 images is more than its tenth of a point
    assert outcome.returncode == (2 if failed else 0), outcome.stderr
    assert "is a guess" not in (out / "README.md").read_text()
    assert (out / "model.tflite").read_bytes() != wide
    look = json.loads((out / "test_ledger.jsonl").read_text())
    assert look["images"] == 359
    assert look["policy"] == "none"
    assert command("export", "--check", out).returncode == 0


def test_images_that_a_packed_file_is_not_for_are_refused(finished, tmp_path):
    zoo = tmp_path / "zoo"
    assert command("export", finished[0], "--format", "packed", "--out", zoo).returncode == 0
    (tmp_path / "few.py").write_text(
        "from dataclasses import replace\n"
        "from ajpq.data import load_data\n"
        "def few():\n"
        "    data = load_data('digits')\n"
        "    return replace(data, classes=(*data.classes, 'eleventh'))\n"
    )
    data = f"{tmp_path / 'few.py'}:few"
    outcome = command("export", zoo, "--format", "onnx", "--data", data, "--out", tmp_path / "out")
    assert outcome.returncode == 2
    assert "answers (10,), not (1, 8, 8) and (11,)" in outcome.stderr


def test_a_run_whose_images_have_moved_is_exported_and_verified(finished, tmp_path):
    moved = tmp_path / "mine.py"
    moved.write_text(
        "from ajpq.data import load_data\ndef digits():\n    return load_data('digits')\n"
    )
    run = shutil.copytree(finished[0], tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = str(tmp_path / "gone.py:digits")
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    result, _ = load_sealed(finished[0])
    save_result(run, result)
    wanted = ("export", run, "--format", "packed", "--verify", "--out", tmp_path / "out")
    assert command(*wanted).returncode == 2
    outcome = command(*wanted, "--data", f"{moved}:digits")
    assert outcome.returncode == 0, outcome.stderr
