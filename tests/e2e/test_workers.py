"""A final round in worker processes: remembered, resumed, replayed."""

import json

import pytest

from tests.e2e.commands import command, journal, search, search_and_kill

SIDE_BY_SIDE = ("--workers", "2", "--agent", "ppo", "--episodes", "4")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("workers") / "run"
    outcome = search(run, *SIDE_BY_SIDE)
    assert outcome.returncode == 0, outcome.stderr
    assert "2 worker processes, threads of each: 1" in outcome.stdout
    return run


def test_the_choice_is_in_the_journal(finished):
    lines = journal(finished)
    assert [line["kind"] for line in lines] == ["candidate"] * 4 + ["workers"] + ["finalist"] * 2
    plan = {"workers": 2, "threads": 1, "beside": 2, "alone_s": None, "together_s": None}
    assert lines[4]["plan"] == plan
    assert [line["threads"] for line in lines[5:]] == [1, 1]


def test_with_as_many_threads_the_result_is_that_of_one_process(finished, tmp_path):
    alone = tmp_path / "alone"
    assert search(alone, *SIDE_BY_SIDE[2:]).returncode == 0
    expected = [line for line in journal(finished) if line["kind"] != "workers"]
    assert journal(alone) == expected
    for name in ("policy.json", "weights.safetensors"):
        assert (alone / name).read_bytes() == (finished / name).read_bytes()


def test_killed_among_workers_it_resumes_to_the_same_result(finished, tmp_path):
    run = tmp_path / "killed"
    search_and_kill(run, lambda folder: any(folder.glob("checkpoints/*.part")), *SIDE_BY_SIDE)
    assert not (run / "result.json").exists()
    outcome = search(run, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    assert journal(run) == journal(finished)
    assert (run / "weights.safetensors").read_bytes() == (
        finished / "weights.safetensors"
    ).read_bytes()


def test_retraining_repeats_it_with_its_number_of_threads(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["threads"] == 1
    outcome = command("replay", finished, "--retrain")
    assert outcome.returncode == 0, outcome.stderr


def test_a_short_search_measures_no_workers(tmp_path):
    outcome = search(tmp_path / "run", "--workers", "auto", *SIDE_BY_SIDE[2:])
    assert outcome.returncode == 0, outcome.stderr
    (plan,) = [line["plan"] for line in journal(tmp_path / "run") if line["kind"] == "workers"]
    assert (plan["workers"], plan["together_s"]) == (1, None)


def test_fewer_than_one_worker_is_refused(tmp_path):
    refused = search(tmp_path / "run", "--workers", "0")
    assert refused.returncode == 2
    assert "workers" in refused.stderr
