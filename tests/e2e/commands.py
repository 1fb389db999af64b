"""Run the commands as a user does: in this process where that shows the same, else in their own."""

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ajpq import cli

TINY = str(Path(__file__).with_name("tiny.yaml"))


@dataclass(frozen=True)
class Outcome:
    returncode: int
    stdout: str
    stderr: str


def command(name, *arguments):
    """``python -m ajpq.NAME ARGUMENTS`` without the seconds that importing torch takes."""
    module = importlib.import_module(f"ajpq.{name}")
    out, err, code = io.StringIO(), io.StringIO(), 0
    before, sys.argv = sys.argv, [f"ajpq.{name}", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            if hasattr(module, "COMMANDS"):
                cli.run_subcommand(module.COMMANDS, prog=name)
            else:
                cli.run(module.main, prog=name)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = before
    return Outcome(code, out.getvalue(), err.getvalue())


def search(run_dir, *arguments):
    return command("search", "--config", TINY, "--run-dir", run_dir, *arguments)


def search_and_kill(run_dir, ready, *options):
    """Start a search in a process and send SIGKILL as soon as ``ready(run_dir)`` is true."""
    start_and_kill("search", TINY, run_dir, ready, *options)


def start_and_kill(name, config, run_dir, ready, *options):
    """The same for any command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["-m", f"ajpq.{name}", "--config", config, "--run-dir", str(run_dir), *options]
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        while not ready(run_dir):
            if process.poll() is not None:
                raise AssertionError(f"ended before the kill: {process.stderr.read().decode()}")
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()


def journal(run_dir):
    """The journal without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "crc")} for line in lines]


def lines_in_journal(run_dir):
    path = run_dir / "journal.jsonl"
    return path.read_text().count("\n") if path.exists() else 0
