"""Bad input: one clear line, exit code 2, nothing lost."""

import errno
import json

import numpy as np
import pytest
import torch

from ajpq.packed import save
from ajpq.runs.journal import Journal, encode_line
from tests.e2e.commands import command, search
from tests.packed.test_container import make_network


def line_of(outcome):
    assert outcome.returncode == 2, (outcome.returncode, outcome.stdout, outcome.stderr)
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "Traceback" not in outcome.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--target", "egde-npu"), "did you mean 'edge-npu'"),
        (("--model", "resnet21"), "did you mean"),
        (("--data", "digit"), "did you mean 'digits'"),
        (("--agent", "tD3"), "did you mean 'td3'"),
        (("--criterion", "tailor"), "did you mean 'taylor'"),
        (("--checkpoint", "missing.pt"), "missing.pt"),
        (("--size-ratio", "-1"), "size_ratio"),
        (("--size-ratio", "0.001"), "smallest reachable"),
        (("--fixed-bits", "9"), "fixed_bits"),
        (("--data", "imagefolder:nowhere"), "nowhere"),
        (("--target", "nowhere.py:Device"), "nowhere.py"),
        (("--latency-ratio", "0.5"), "does not know"),
        (("--agent", "ajpq", "--agent-from", "nowhere"), "nowhere/agent: only a run with"),
    ],
)
def test_unusable_options(tmp_path, arguments, expected):
    run = tmp_path / "run"
    assert expected in line_of(search(run, *arguments))
    assert not run.exists()


def test_an_unknown_config_is_answered_with_the_nearest(tmp_path):
    outcome = command("search", "--config", "digit")
    assert "did you mean 'digits'" in line_of(outcome)


def test_a_checkpoint_that_does_not_fit(tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3, 3)}}, tmp_path / "other.pt")
    assert "other.pt" in line_of(search(tmp_path / "run", "--checkpoint", tmp_path / "other.pt"))


def test_an_unsupported_module_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(64, 10)\n"
        "        self.odd = torch.nn.PixelShuffle(2)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.odd(x.reshape(-1, 4, 4, 4)).flatten(1))\n"
        "def build():\n"
        "    return Net()\n"
    )
    message = line_of(search(tmp_path / "run", "--model", f"{tmp_path / 'mine.py'}:build"))
    assert "odd" in message or "Net" in message


BROKEN = """
import torch

def raises():
    raise ValueError("boom")

def needy(width):
    pass

def undefined():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    torch.nn.init.constant_(net[1].weight, float("nan"))
    return net
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raises", "mine.py:raises': ValueError: boom ("),
        ("needy", "mine.py:needy': TypeError: needy() missing 1 required"),
        ("undefined", "1.weight is not finite before any training"),
    ],
)
def test_what_a_users_model_does_wrong_is_one_line(tmp_path, name, expected):
    (tmp_path / "mine.py").write_text(BROKEN)
    assert expected in line_of(
        search(tmp_path / "run", "--model", f"{tmp_path / 'mine.py'}:{name}")
    )


def test_a_network_of_zeros_is_nothing_to_compress(tmp_path):
    (tmp_path / "mine.py").write_text(BROKEN)
    zeros = {"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}
    torch.save(zeros, tmp_path / "zeros.pt")
    mine = f"{tmp_path / 'mine.py'}:undefined"
    outcome = search(tmp_path / "run", "--model", mine, "--checkpoint", tmp_path / "zeros.pt")
    assert "all weights of the network are zero" in line_of(outcome)


def test_a_device_that_takes_no_time_has_none_to_bound(tmp_path):
    (tmp_path / "free.py").write_text(
        "import dataclasses\n"
        "from hw_models.size_only import SizeOnly\n"
        "class Free(SizeOnly):\n"
        "    name = 'free'\n"
        "    def cost(self, network):\n"
        "        return dataclasses.replace(super().cost(network), latency_s=0.0)\n"
    )
    free = ("--target", f"{tmp_path / 'free.py'}:Free", "--episodes", 2)
    refused = search(tmp_path / "run", *free, "--latency-ratio", "0.5")
    assert "the latency of the int8 network is 0: there is nothing to bound" in line_of(refused)
    assert search(tmp_path / "run", *free).returncode == 0


def test_an_existing_run_folder_is_left_alone(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "precious.txt").write_text("mine")
    assert "--resume" in line_of(search(run))
    assert [path.name for path in run.iterdir()] == ["precious.txt"]


def test_a_damaged_journal_line_is_named_and_kept(tmp_path):
    run = tmp_path / "run"
    assert search(run, "--episodes", 2).returncode == 0
    (run / "result.json").unlink()
    lines = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    damaged = lines[0].replace('"index"', '"indxe"') + "".join(lines[1:])
    (run / "journal.jsonl").write_text(damaged)
    assert "damaged in line 1" in line_of(search(run, "--episodes", 2, "--resume"))
    assert (run / "journal.jsonl").read_text() == damaged


def test_a_journal_of_another_search_is_refused(tmp_path):
    run = tmp_path / "run"
    assert search(run, "--episodes", 2).returncode == 0
    (run / "result.json").unlink()
    lines = (run / "journal.jsonl").read_text().splitlines()
    entry = json.loads(lines[0])
    entry.pop("crc")
    lines[0] = encode_line({**entry, "hash": "0" * 16}).strip()
    (run / "journal.jsonl").write_text("\n".join(lines) + "\n")
    assert "does not belong to this search" in line_of(search(run, "--episodes", 2, "--resume"))


def test_resuming_with_other_options_is_refused(tmp_path):
    run = tmp_path / "run"
    assert search(run, "--episodes", 2).returncode == 0
    assert "another episodes" in line_of(search(run, "--episodes", 3, "--resume"))


@pytest.mark.parametrize("name", ["replay", "export", "report"])
def test_commands_on_a_folder_that_is_no_run(tmp_path, name):
    assert "no run folder" in line_of(command(name, tmp_path / "nothing"))


def test_checking_a_damaged_file_is_one_line(tmp_path):
    path = save(make_network(np.random.default_rng(0), [("linear", (9,), [2, 4])]), tmp_path / "a")
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: the packed file is damaged" in line_of(command("export", "--check", path))
    assert "missing" in line_of(command("export", "--check", tmp_path / "missing"))


def test_an_export_needs_something_to_export(tmp_path):
    assert "name what to export" in line_of(command("export"))
    assert "name what to export" in line_of(command("export", "run", "--check", "file"))
    path = save(make_network(np.random.default_rng(0), [("linear", (9,), [2, 4])]), tmp_path / "a")
    message = line_of(command("export", path, "--format", "policy", "--out", tmp_path / "out"))
    assert "needs the run" in message


def test_a_full_disk_is_one_line_and_resume_continues(tmp_path, monkeypatch):
    run = tmp_path / "run"
    append = Journal.append

    def full_at_the_third(self, entry):
        if entry.get("index") == 2:
            raise OSError(errno.ENOSPC, "No space left on device", "journal.jsonl")
        return append(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full_at_the_third)
        outcome = search(run)
    assert "No space left on device" in line_of(outcome)
    assert "--resume" in outcome.stderr
    assert len((run / "journal.jsonl").read_text().splitlines()) == 2
    assert search(run, "--resume").returncode == 0
