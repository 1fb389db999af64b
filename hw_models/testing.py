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
from hw_models.trials import Trials, small_networks


class TargetContract:
    """Subclass it and say what to test; pytest runs one test per promise."""

    def make_target(self) -> Target:
        """The target under test."""
        raise NotImplementedError("say which target to test: def make_target(self): return ...")

    def make_trials(self, target: Target) -> Trials:
        """The networks to try it on; override it where a target knows certain networks only."""
        return small_networks(target)

    @pytest.mark.parametrize("check", CHECKS)
    def test_it_keeps_its_promise(self, check: str) -> None:
        """Fails with what the check found."""
        target = self.make_target()
        CHECKS[check](target, self.make_trials(target))
