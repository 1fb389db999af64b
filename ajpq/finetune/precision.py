"""bf16 where the processor has it in hardware; elsewhere emulation would be ten times slower."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

import torch


@functools.cache
def bfloat16_in_hardware() -> bool:
    """Does this processor multiply bf16 natively (AVX-512 BF16 or AMX)?"""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def training_precision() -> AbstractContextManager[None]:
    """Autocast to bf16 where that is fast, float32 otherwise."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16_in_hardware())
