"""The worker process that compiles: started when it is needed, again when it has died.

One process per interpreter, used by one thread at a time. A fork starts its own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_models.errors import AjpqError

SCRIPT = Path(__file__).with_name("vela_worker.py")
LENGTH = struct.Struct("<I")
CHUNK_BYTES = 1 << 16
FAREWELL_S = 2.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# how a compiler dies of what it was given; other deaths came from outside
FAULTS = frozenset(("SIGFPE", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL"))


@dataclass
class _Worker:
    lock: threading.Lock
    process: subprocess.Popen[bytes] | None = None


_worker = _Worker(threading.Lock())


class WorkerDiedError(Exception):
    """The process ended before it answered; the message is the signal or the exit code."""


def ask(request: Mapping[str, Any], model: bytes, timeout_s: float) -> tuple[dict[str, Any], bytes]:
    """Send one request to the worker and return its reply.

    Raises:
        AjpqError: the worker crashed on this network, or gave no answer in time.
    """
    with _worker.lock:
        try:
            return _converse(request, model, timeout_s)
        except WorkerDiedError as death:
            if str(death) in FAULTS:
                raise AjpqError(f"Vela crashed on this network ({death})") from death
        try:  # someone ended the process; the network is not to blame
            return _converse(request, model, timeout_s)
        except WorkerDiedError as death:
            raise AjpqError(f"Vela's worker process died twice ({death})") from death


def worker_pid() -> int | None:
    """The worker's process number while it runs."""
    process = _worker.process
    return None if process is None or process.poll() is not None else process.pid


def close() -> None:
    """End the worker, if there is one."""
    process, _worker.process = _worker.process, None
    if process is None:
        return
    _close_pipes(process)
    try:
        process.wait(FAREWELL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _forget() -> None:
    """In a forked child: let go of the parent's worker without ending it."""
    process, _worker.process, _worker.lock = _worker.process, None, threading.Lock()
    if process is not None:
        _close_pipes(process)
        process.returncode = 0  # not this process's child: nothing to wait for


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _start() -> subprocess.Popen[bytes]:
    if _worker.process is not None and _worker.process.poll() is None:
        return _worker.process
    close()
    _worker.process = process = subprocess.Popen(
        [sys.executable, "-P", str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={**os.environ, **ONE_THREAD},
    )
    for descriptor in _pipes(process):
        os.set_blocking(descriptor, False)
    return process


def _pipes(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Where to write and where to read."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin.fileno(), process.stdout.fileno()


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _converse(
    request: Mapping[str, Any], model: bytes, timeout_s: float
) -> tuple[dict[str, Any], bytes]:
    process = _start()
    into, out = _pipes(process)
    deadline = time.monotonic() + timeout_s
    text = json.dumps({**request, "size": len(model)}).encode()
    try:
        _send(into, LENGTH.pack(len(text)) + text + model, deadline)
        (length,) = LENGTH.unpack(_receive(out, LENGTH.size, deadline))
        header = json.loads(_receive(out, length, deadline))
        return header, _receive(out, header["size"], deadline)
    except (BrokenPipeError, EOFError):
        raise WorkerDiedError(_cause_of_death(process)) from None
    except TimeoutError:
        _kill()
        raise AjpqError(f"Vela gave no answer within {timeout_s:g} s for this network") from None
    except BaseException:
        _kill()  # half a conversation is of no use to the next caller
        raise


def _kill() -> None:
    if _worker.process is not None:
        _worker.process.kill()
    close()


def _cause_of_death(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(FAREWELL_S)
    except subprocess.TimeoutExpired:
        _kill()
        return "it closed its pipe"
    close()
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _wait(poll: Callable[..., Any], deadline: float) -> None:
    remaining = deadline - time.monotonic()
    if remaining <= 0 or not any(poll(remaining)):
        raise TimeoutError


def _send(descriptor: int, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        _wait(lambda s: select.select([], [descriptor], [], s), deadline)
        view = view[os.write(descriptor, view[:CHUNK_BYTES]) :]


def _receive(descriptor: int, count: int, deadline: float) -> bytes:
    parts = []
    while count:
        _wait(lambda s: select.select([descriptor], [], [], s), deadline)
        part = os.read(descriptor, min(count, CHUNK_BYTES))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
