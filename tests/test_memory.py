"""Freed blocks are used again instead of being fetched from the kernel anew."""

import subprocess
import sys

import pytest

from ajpq.memory import keep_freed_memory

COUNT_FAULTS = """
import resource, sys
import torch
from ajpq.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.set_num_threads(1)
def fill():
    for _ in range(20):
        torch.ones(10_000_000)  # 40 MB
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode):
    outcome = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, mode], capture_output=True, text=True, check=True
    )
    return int(outcome.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_blocks_are_kept():
    if not keep_freed_memory():
        pytest.skip("another C library")
    assert faults("kept") * 10 < faults("default")
