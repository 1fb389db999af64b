"""Shared by all tests: one thread, and a cache of their own."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# The same examples every time: what fails has been changed, not drawn.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests neither read nor fill the user's cache; workers of one run share theirs."""
    folder = tmp_path_factory.getbasetemp().parent / "ajpq-cache"
    os.environ["AJPQ_CACHE"] = str(folder)
    return folder
