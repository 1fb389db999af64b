"""Work in this process and in workers: the same results, reports and errors, no orphans."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ajpq.finetune.training import DivergedError
from ajpq.selection.executor import InProcess, core_sets, thread_count, worker_processes
from hw_models.errors import AjpqError, UnknownNameError

PATIENCE_S = 60
ERRORS = {
    "sent as it is": DivergedError("psg", 3, float("inf")),
    "sent as text": UnknownNameError("thing", "a", ["b"]),
}


def scaled(shared, item, report):
    report("seen", item)
    return torch.tensor([shared["factor"] * item])


def place_of_work(shared, item, report):
    return os.getpid(), torch.get_num_threads(), os.sched_getaffinity(0)


def sums(shared, item, report):
    return float(shared[item].sum()), type(shared).__name__


def failing(shared, item, report):
    if item == 0:
        time.sleep(PATIENCE_S)
    raise ERRORS[item]


def dying(shared, item, report):
    os.kill(os.getpid(), signal.SIGKILL)


def resting(folder, item, report):
    (folder / f"{item}.pid").write_text(str(os.getpid()))
    time.sleep(PATIENCE_S)


def is_alive(pid):
    """A zombie is dead: its parent, gone as well, has only not been replaced in waiting for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def soon(question):
    end = time.monotonic() + PATIENCE_S / 2
    while not question() and time.monotonic() < end:
        time.sleep(0.05)
    return question()


@pytest.fixture(scope="module")
def two():
    with worker_processes({"factor": 3}, 2, 1) as workers:
        yield workers


@pytest.mark.parametrize("side_by_side", [False, True])
def test_results_come_in_order_and_reports_arrive(two, side_by_side):
    executor, told = two if side_by_side else InProcess({"factor": 3}), []
    results = executor.map(scaled, [5, 1, 4], lambda *report: told.append(report))
    assert [int(result) for result in results] == [15, 3, 12]
    assert sorted(told) == [("seen", 1), ("seen", 4), ("seen", 5)]
    assert executor.map(scaled, []) == []


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes are not pinned here")
def test_workers_have_threads_and_cores_of_their_own():
    with worker_processes(None, 2, 1) as workers:
        places = set()
        for pid, threads, cores in workers.map(place_of_work, range(8)):
            places.add((pid, frozenset(cores)))
            assert threads == 1
    expected = {frozenset(own) for own in core_sets(2) if own}
    assert {cores for _, cores in places} <= expected or not expected
    assert os.getpid() not in {pid for pid, _ in places}


def test_cores_are_shared_out_evenly(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 1, 2, 7, 9}, raising=False)
    assert core_sets(2) == [(1, 2), (4, 7)]
    assert core_sets(6) == [()] * 6


def test_mapped_files_are_mapped_again_and_not_sent(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(3, 4))
    mapped = np.load(tmp_path / "a.npy", "r")
    with worker_processes(mapped, 1, 1) as workers:
        assert workers.map(sums, [1]) == [(22.0, "memmap")]
    with worker_processes(mapped[1:], 1, 1) as workers:
        assert workers.map(sums, [0])[0][0] == 22.0


@pytest.mark.parametrize("kind", ERRORS)
def test_what_the_work_raises_arrives_at_once(kind):
    started = time.monotonic()
    with (
        pytest.raises(AjpqError, match=str(ERRORS[kind]).split(";")[0]) as caught,
        worker_processes(None, 2, 1) as workers,
    ):
        workers.map(failing, [0, kind])
    assert time.monotonic() - started < PATIENCE_S / 2
    assert isinstance(caught.value, DivergedError) == (kind == "sent as it is")


def test_a_worker_that_dies_is_one_clear_error():
    with (
        pytest.raises(AjpqError, match="worker process ended before its work was done"),
        worker_processes(None, 2, 1) as workers,
    ):
        workers.map(dying, [0, 1])


def test_what_cannot_be_sent_is_one_clear_error():
    with (
        pytest.raises(AjpqError, match="cannot be given"),
        worker_processes(lambda: None, 2, 1),
    ):
        pass


OWNER = """
from pathlib import Path
from ajpq.selection.executor import worker_processes
from tests.selection.test_executor import resting
with worker_processes(Path({folder!r}), 2, 1) as workers:
    workers.map(resting, [0, 1])
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_owner(tmp_path, how):
    """The owner is a script that nothing guards against being imported a second time."""
    script = tmp_path / "script.py"
    script.write_text(OWNER.format(folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL
    ) as owner:
        files = [tmp_path / f"{item}.pid" for item in (0, 1)]
        assert soon(lambda: all(file.exists() and file.read_text() for file in files))
        owner.send_signal(how)
    pids = [int(file.read_text()) for file in files]
    assert soon(lambda: not any(map(is_alive, pids)))


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
