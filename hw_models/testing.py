"""A test case for authors of targets; needs pytest.

from hw_models.testing import TargetContract

class TestMyDevice(TargetContract):
    def make_target(self):
        return MyDevice()
"""

from __future__ import annotations

import pytest

from hw_models.base import Target
from hw_models.contract import CHECKS


class TargetContract:
    """Subclass it and say what to test; pytest runs one test per promise."""

    def make_target(self) -> Target:
        """The target under test."""
        raise NotImplementedError("say which target to test: def make_target(self): return ...")

    @pytest.mark.parametrize("check", CHECKS)
    def test_it_keeps_its_promise(self, check: str) -> None:
        """Fails with what the check found."""
        CHECKS[check](self.make_target())
