"""The compressed networks of the zoo are whole, and their cards belong to them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from ajpq.exporters.check import inspect
from ajpq.packed import load
from ajpq.reference import simulate

ZOO = Path(__file__).parent.parent / "zoo"
FOLDERS = sorted(path.parent for path in ZOO.glob("*/model.ajpq"))


def test_there_are_some_and_the_index_names_them_all():
    text = (ZOO / "README.md").read_text()
    assert FOLDERS
    assert [folder.name for folder in FOLDERS if f"`{folder.name}`" not in text] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_file_is_whole_and_its_card_is_its_own(folder):
    file = folder / "model.ajpq"
    assert inspect(file).size == file.stat().st_size
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_file_runs(folder):
    network = load(folder / "model.ajpq")
    shape = network.edges[network.input].shape
    logits = simulate(network, torch.zeros(2, *shape))
    assert logits.shape == (2, *network.edges[network.output].shape)
    assert torch.isfinite(logits).all()
