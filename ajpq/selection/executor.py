"""Where independent pieces of work are done: in this process, or side by side in several.

Arithmetic on several threads rounds sums in an order that depends on their number. Where a piece is
done therefore decides its last bits, and callers remember the choice; which worker does it and what
the others do meanwhile changes nothing.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import torch

from ajpq.memory import keep_freed_memory
from hw_models.errors import AjpqError

Report = Callable[..., None]
"""Tells whoever asked for the work how it goes; what it is called with can be pickled."""

Work = Callable[[Any, Any, Report], Any]
"""A function at the top level of a module: what all pieces share, one piece, where to report."""

# Reports are shown this often.
_EVERY_S = 0.1


def nothing(*told: Any) -> None:
    """A report that nobody reads."""


class Executor(Protocol):
    """Does pieces of work that do not depend on each other."""

    def map(
        self, work: Work, items: Sequence[Any], on_report: Callable[..., None] = nothing
    ) -> list[Any]:
        """The results of ``work`` on all ``items``, in their order.

        Args:
            on_report: called in this thread with what the pieces report.

        Raises:
            Exception: what the work raises, the first to do so.
            AjpqError: a worker process died.
        """


@dataclass(frozen=True, eq=False)
class InProcess:
    """One piece after the other, each with all threads of this process."""

    shared: Any

    def map(
        self, work: Work, items: Sequence[Any], on_report: Callable[..., None] = nothing
    ) -> list[Any]:
        """As :meth:`Executor.map`."""
        return [work(self.shared, item, on_report) for item in items]


@dataclass(frozen=True, eq=False)
class Workers:
    """Processes that do a piece each, made by :func:`worker_processes`."""

    pool: ProcessPoolExecutor
    reports: Connection

    def map(
        self, work: Work, items: Sequence[Any], on_report: Callable[..., None] = nothing
    ) -> list[Any]:
        """As :meth:`Executor.map`."""
        try:
            with _without_main():  # processes start when work is handed in
                futures = [self.pool.submit(_perform, work, pickle.dumps(i)) for i in items]
            pending = set(futures)
            while pending:
                finished, pending = wait(pending, _EVERY_S, FIRST_EXCEPTION)
                while self.reports.poll():
                    on_report(*self.reports.recv())
                for future in finished:
                    future.result()
            return [pickle.loads(future.result()) for future in futures]
        except BrokenProcessPool as error:
            raise AjpqError(
                "a worker process ended before its work was done: killed, or out of memory; "
                "what was finished is kept, continue with --resume"
            ) from error


@contextlib.contextmanager
def worker_processes(shared: Any, count: int, threads: int) -> Iterator[Workers]:
    """``count`` processes with so many threads and as many cores of their own, if there are enough.

    They start with the first work, end with the context, whatever they are doing, and end when this
    process is killed.

    Args:
        shared: what all pieces share, such as the problem; sent to every process once. Arrays
            mapped from a file are mapped there again.

    Raises:
        AjpqError: something in ``shared`` cannot be sent.
    """
    context = multiprocessing.get_context("spawn")  # OpenMP does not survive a fork
    cores = context.SimpleQueue()
    for own in core_sets(count):
        cores.put(own)
    alive, lifeline = context.Pipe(duplex=False)
    reports, reporter = context.Pipe(duplex=False)
    seat = (_packed(shared), threads, cores, alive, reporter, context.Lock())
    pool = ProcessPoolExecutor(count, context, _take_seat, seat)
    try:
        yield Workers(pool, reports)
    finally:
        lifeline.close()  # ends the workers, also in the midst of hours of training
        pool.shutdown(cancel_futures=True)
        for end in (alive, reports, reporter):
            end.close()


def core_sets(count: int) -> list[tuple[int, ...]]:
    """The cores that this process may use in ``count`` parts of equal size; empty: any.

    Parts are empty where there are too few cores or the system does not pin processes.
    """
    known = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    size = len(known) // count
    return [tuple(known[size * i : size * (i + 1)]) for i in range(count)]


@contextlib.contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Compute with so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Workers would import the user's script again, and run it where nothing guards it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _packed(shared: Any) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = copyreg.dispatch_table | {np.memmap: _mapped_again}
    try:
        pickler.dump(shared)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AjpqError(f"worker processes cannot be given this problem: {error}") from error
    return buffer.getvalue()


def _mapped_again(array: np.memmap[Any, Any]) -> Any:
    if not isinstance(array.base, mmap.mmap) or array.filename is None:  # part of a map
        return np.array, (np.asarray(array),)
    order = "C" if array.flags.c_contiguous else "F"
    return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape, order)


# --- what follows runs in the workers ---


@dataclass(frozen=True, eq=False)
class _Seat:
    packed: bytes
    reporter: Connection
    one_at_a_time: Any

    @functools.cached_property
    def shared(self) -> Any:
        try:
            return pickle.loads(self.packed)
        except Exception as error:  # a class of the user's that cannot be imported by its name
            raise AjpqError(f"a worker process cannot load the problem: {error}") from error

    def report(self, *told: Any) -> None:
        with self.one_at_a_time:
            self.reporter.send(told)


_seats: list[_Seat] = []


def _take_seat(
    packed: bytes, threads: int, cores: Any, alive: Connection, reporter: Connection, lock: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the owner answers it
    threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
    own = cores.get()
    if own:
        os.sched_setaffinity(0, own)
    torch.set_num_threads(threads)
    keep_freed_memory()
    _seats.append(_Seat(packed, reporter, lock))


def _end_with(alive: Connection) -> None:
    """End this process when the other end is closed: by intent, or because its owner died."""
    with contextlib.suppress(EOFError, OSError):
        alive.recv()
    os._exit(1)


def _perform(work: Work, packed: bytes) -> bytes:
    seat = _seats[0]
    try:
        return pickle.dumps(work(seat.shared, pickle.loads(packed), seat.report))
    except Exception as error:
        raise _portable(error) from error


def _portable(error: Exception) -> Exception:
    """``error``, or its message where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        text = str(error) or type(error).__name__
        return AjpqError(text) if isinstance(error, AjpqError) else RuntimeError(text)
    return error
