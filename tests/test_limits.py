"""Bounds in people's units."""

import pytest

from ajpq.config import load_search_config
from ajpq.limits import Limit, parse_limit
from hw_models.errors import AjpqError, UnknownNameError


@pytest.mark.parametrize(
    ("cost", "text", "value", "relative"),
    [
        ("latency", "70%", 0.7, True),
        ("latency", "0.5 ms", 0.0005, False),
        ("latency", "250us", 0.00025, False),
        ("flash", "128 kB", 128_000, False),
        ("sram", "64KiB", 65_536, False),
        ("energy", "2e1 uJ", 2e-5, False),
    ],
)
def test_quantities(cost, text, value, relative):
    assert parse_limit(cost, text) == Limit(pytest.approx(value), relative)


@pytest.mark.parametrize("text", ["128", "kB", "-1 kB", "0 kB", "5 ms", "1 kb", "1 kB 2", ""])
def test_what_is_no_quantity_of_bytes(text):
    with pytest.raises(AjpqError, match="limit 'flash': expected a positive number with one of %"):
        parse_limit("flash", text)


def test_unknown_costs_get_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'latency'"):
        parse_limit("latncy", "1 ms")


def test_a_config_joins_ratios_and_limits():
    config = load_search_config("digits", {"limits": {"sram": "4 kB", "size": "5%"}})
    assert config.bounds == {
        "latency": Limit(0.8, relative=True),
        "size": Limit(0.05, relative=True),
        "sram": Limit(4000, relative=False),
    }
    with pytest.raises(AjpqError, match=r"limits.*got '4'"):
        load_search_config("digits", {"limits": {"sram": "4"}})
