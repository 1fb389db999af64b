"""A test case for authors of targets.

from hw_models.testing import TargetContract

class TestMyDevice(TargetContract):
    def make_target(self):
        return MyDevice()
"""

from __future__ import annotations

from hw_models.base import Target
from hw_models.contract import CHECKS


class TargetContract:
    """Subclass it and say what to test; pytest runs one test per promise."""

    def make_target(self) -> Target:
        """The target under test."""
        raise NotImplementedError

    def test_figures_are_finite_and_not_negative(self) -> None:
        """Every figure that is known, for networks of every declared width."""
        CHECKS["figures"](self.make_target())

    def test_equal_questions_get_equal_answers(self) -> None:
        """Searches resume by asking again."""
        CHECKS["deterministic"](self.make_target())

    def test_the_network_is_left_alone(self) -> None:
        """The same object is shown to exporters afterwards."""
        CHECKS["read-only"](self.make_target())

    def test_rows_of_zero_bits_have_a_price(self) -> None:
        """Half and all of a layer's rows pruned where a residual sum keeps the channels."""
        CHECKS["pruned rows"](self.make_target())

    def test_layers_do_not_exceed_the_whole(self) -> None:
        """Where layers are priced at all."""
        CHECKS["layers"](self.make_target())

    def test_it_is_monotone_where_it_says_so(self) -> None:
        """Fewer channels or bits never cost more, if the target declares it."""
        CHECKS["monotone"](self.make_target())

    def test_batches_agree_with_single_calls(self) -> None:
        """For targets with a batched form."""
        CHECKS["batched"](self.make_target())
