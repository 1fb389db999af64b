"""bf16 where the processor has it in hardware; elsewhere emulation would be ten times slower."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

# Compiling takes about half a minute, which a shorter stage does not earn back.
_IMAGES_THAT_PAY = 200_000


@functools.cache
def bfloat16_in_hardware() -> bool:
    """Does this processor multiply bf16 natively (AVX-512 BF16 or AMX)?"""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def training_precision() -> AbstractContextManager[None]:
    """Autocast to bf16 where that is fast, float32 otherwise."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16_in_hardware())


def compiled_where_it_pays(
    function: Callable[..., Any], images: int, *, depthwise: bool
) -> Callable[..., Any]:
    """``torch.compile`` for stages that train on many images, on processors with bf16.

    Measured on ResNet-20: up to a third faster there; on AVX2 in float32 not faster at all. On
    networks with depthwise convolutions it is slower: half the speed for MobileNetV2.
    """
    compiler = shutil.which("g++") or shutil.which("clang++")
    long = images >= _IMAGES_THAT_PAY
    pays = bfloat16_in_hardware() and compiler is not None and long and not depthwise
    if not pays:
        return function
    torch.compiler.reset()  # or the eighth stage of a process would silently run uncompiled
    return torch.compile(function)
