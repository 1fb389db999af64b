"""Arm's compiler in its worker process, and the cache before it."""

import importlib.metadata
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict

import numpy as np
import pytest

from hw_models import vela, vela_process
from hw_models.errors import AjpqError
from hw_models.samples import conv_network
from hw_models.tflite import write_tflite
from hw_models.vela import Device, ask_vela
from hw_models.vela_command import compile_by_command

DEVICE = Device("ethos-u65-256", "Ethos_U65_Embedded", "Shared_Sram")
NO_MODEL = b"this is no flatbuffer, and the compiler reads it anyway"


def model(seed: int = 0) -> bytes:
    return write_tflite(conv_network(rng=np.random.default_rng(seed)))


def test_figures_add_up():
    report = ask_vela(model(), DEVICE)
    assert report.total_cycles == sum(figures.cycles for figures in report.operators)
    assert report.total_cycles >= report.npu_cycles > 0
    assert report.core_clock_hz == 500e6
    assert report.compiled_bytes > report.encoded_weight_bytes > 0
    assert report.peak_activation_bytes == report.memory_peak_bytes["Sram"]
    assert report.cpu_operators == ()


def test_activations_are_told_from_constants_in_the_same_memory():
    split = ask_vela(model(), DEVICE)
    together = ask_vela(model(), Device("ethos-u65-256", "Ethos_U65_Embedded", "Sram_Only"))
    assert set(together.memory_peak_bytes) == {"Sram"}
    assert together.peak_activation_bytes < together.memory_peak_bytes["Sram"]
    assert together.peak_activation_bytes == pytest.approx(split.peak_activation_bytes, rel=0.5)


def test_a_second_question_is_answered_from_memory(own_cache, monkeypatch):
    first = ask_vela(model(), DEVICE)
    for entry in entries(own_cache):
        entry.unlink()
    monkeypatch.setattr(vela_process, "ask", None)
    assert ask_vela(model(), DEVICE) is first


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_another_process_is_answered_from_disk(own_cache, monkeypatch):
    first = ask_vela(model(), DEVICE)
    vela.forget()
    monkeypatch.setattr(vela_process, "ask", None)
    assert ask_vela(model(), DEVICE) == first
    assert [path.suffix for path in entries(own_cache)] == [".json"]


@pytest.mark.parametrize("rubbish", ["", "{", "[]", '{"total_cycles": 1}', "\udcff"])
def test_a_corrupted_answer_is_computed_again(own_cache, rubbish):
    first = ask_vela(model(), DEVICE)
    (entry,) = entries(own_cache)
    entry.write_bytes(rubbish.encode(errors="surrogateescape"))
    vela.forget()
    assert ask_vela(model(), DEVICE) == first
    assert json.loads(entry.read_text())["total_cycles"] == first.total_cycles


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("AJPQ_CACHE", str(tmp_path / "file"))
    assert ask_vela(model(), DEVICE).total_cycles > 0


def test_a_disk_that_fills_up_leaves_no_half_entry(own_cache, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert ask_vela(model(), DEVICE).total_cycles > 0
    assert entries(own_cache) == []


def test_keys_differ_by_file_device_and_version():
    other = Device("ethos-u65-256", "Ethos_U65_Embedded", "Sram_Only")
    keys = {
        vela.cache_key(b"a", DEVICE, "5.2.0"),
        vela.cache_key(b"b", DEVICE, "5.2.0"),
        vela.cache_key(b"a", other, "5.2.0"),
        vela.cache_key(b"a", DEVICE, "5.2.1"),
    }
    assert len(keys) == 4


def test_a_crash_is_one_line_and_the_next_network_is_fine():
    with pytest.raises(AjpqError, match=r"^Vela crashed on this network \(SIG[A-Z]+\)$"):
        ask_vela(NO_MODEL, DEVICE)
    assert ask_vela(model(), DEVICE).total_cycles > 0


def test_a_killed_worker_is_replaced():
    ask_vela(model(1), DEVICE)
    before = vela_process.worker_pid()
    os.kill(before, signal.SIGKILL)
    assert ask_vela(model(2), DEVICE).total_cycles > 0
    assert vela_process.worker_pid() not in (None, before)


def test_a_worker_killed_at_work_is_replaced_and_asked_again():
    ask_vela(model(1), DEVICE)
    before = vela_process.worker_pid()
    os.kill(before, signal.SIGSTOP)
    killer = threading.Timer(0.2, os.kill, (before, signal.SIGKILL))
    killer.start()
    assert ask_vela(model(2), DEVICE).total_cycles > 0
    killer.join()
    assert vela_process.worker_pid() != before


def test_a_worker_that_hangs_is_given_up():
    ask_vela(model(1), DEVICE)
    os.kill(vela_process.worker_pid(), signal.SIGSTOP)
    with pytest.raises(AjpqError, match=r"no answer within 0\.2 s"):
        ask_vela(model(2), DEVICE, timeout_s=0.2)
    assert vela_process.worker_pid() is None
    assert ask_vela(model(2), DEVICE).total_cycles > 0


def test_threads_take_turns(tmp_path, monkeypatch):
    models = [model(seed) for seed in range(6)]
    alone = [ask_vela(one, DEVICE).compiled_bytes for one in models]
    vela.forget()
    monkeypatch.setenv("AJPQ_CACHE", str(tmp_path / "other"))
    found = [0] * len(models)

    def work(index):
        found[index] = ask_vela(models[index], DEVICE).compiled_bytes

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def _ask_in_child(model, queue):
    queue.put((ask_vela(model, DEVICE).total_cycles, vela_process.worker_pid()))


def test_a_fork_has_a_worker_of_its_own():
    ask_vela(model(1), DEVICE)
    mine = vela_process.worker_pid()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_ask_in_child, args=(model(2), queue))
    child.start()
    cycles, others = queue.get(timeout=60)
    child.join()
    assert others != mine
    assert vela_process.worker_pid() == mine
    vela.forget()
    assert ask_vela(model(2), DEVICE).total_cycles == cycles
    assert ask_vela(model(3), DEVICE).total_cycles > 0


def test_the_worker_ends_with_its_parent():
    program = (
        "from tests.hw_models.test_vela import *\n"
        "ask_vela(model({seed}), DEVICE)\n"
        "print(vela_process.worker_pid(), flush=True)\n"
        "{ending}"
    )
    for seed, ending in enumerate(("", "os.kill(os.getpid(), signal.SIGKILL)")):
        done = subprocess.run(
            [sys.executable, "-c", program.format(seed=seed, ending=ending)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert done.stderr == ""
        pid = int(done.stdout)
        assert _ends(pid)


def _ends(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{pid}/stat") as stat:
            if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        threading.Event().wait(0.05)
    return False


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (Device("ethos-u66-256", "Ethos_U65_Embedded", "Shared_Sram"), "ethos-u66-256"),
        (Device("ethos-u65-256", "Ethos_U66", "Shared_Sram"), "Ethos_U66"),
        (Device("ethos-u65-256", "Ethos_U65_Embedded", "No_Sram"), "No_Sram"),
    ],
)
def test_unknown_devices_are_named(device, words):
    with pytest.raises(AjpqError, match=f"^Vela: .*{words}") as caught:
        ask_vela(model(), device)
    assert "\n" not in str(caught.value)


def test_a_missing_compiler_says_how_to_install_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(AjpqError, match=r"pip install ethos-u-vela==5\.2\.0"):
        ask_vela(model(), DEVICE)


def test_the_command_line_gives_the_same_figures():
    by_worker = ask_vela(model(), DEVICE).model_dump()
    figures, compiled = compile_by_command(model(), asdict(DEVICE), 60)
    assert len(compiled) == by_worker["compiled_bytes"]
    for name in figures.keys() - {"operators"}:
        assert figures[name] == by_worker[name], name


def test_the_command_line_is_asked_when_the_interface_is_another(monkeypatch):
    reply = {"error": "AttributeError: perf_report", "kind": "interface"}
    monkeypatch.setattr(vela_process, "ask", lambda *arguments: (reply, b""))
    assert ask_vela(model(), DEVICE).total_cycles > 0
    with pytest.raises(AjpqError, match="the vela command failed with code"):
        ask_vela(model(1), Device("ethos-u65-256", "Ethos_U66", "Shared_Sram"))
