"""What the process does with memory that tensors have given back."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed blocks of up to a gigabyte instead of returning them at once.

    Every activation is a fresh block of megabytes: by default each is mapped from the kernel,
    which clears it page by page, and unmapped again. Kept, they cost nothing: a forward pass of
    ResNet-20 takes a fifth less time, a training step a twentieth. The process keeps its peak.

    Returns:
        Whether the C library took it; elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # Older versions take no more than 32 MB; without any, the others would do harm.
    if not (mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 1 << 25)):
        return False
    return bool(mallopt(_M_TOP_PAD, 1 << 26) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
