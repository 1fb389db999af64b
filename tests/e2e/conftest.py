"""Searches of the tests run outside the checkout, whose test ledger counts real results only."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory):
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)
