"""Bounds in people's units."""

import pytest

from ajpq.config.files import load_search_config
from ajpq.limits import Limit, in_units, parse_limit
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


def test_a_limit_replaces_those_on_the_same_cost_only(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "limits: {flash: 128kB, sram: 4kB}\nfinal: [{keep: 1, recipe: full}]\n"
    )
    config = load_search_config(str(tmp_path / "mine.yaml"), {"limits": {"sram": "none"}})
    assert set(config.bounds) == {"flash"}


def test_none_takes_a_bound_away():
    config = load_search_config("digits", {"limits": {"latency": "none", "sram": "None"}})
    assert set(config.bounds) == {"size"}


@pytest.mark.parametrize(
    ("cost", "value", "text"),
    [
        ("size", 101_200, "101.2 kB"),
        ("flash", 2.5e6, "2.5 MB"),
        ("sram", 42.6, "42.6 B"),
        ("latency", 0.00064, "640 us"),
        ("latency", 1.5, "1.5 s"),
        ("energy", 2.5e-4, "250 uJ"),
        ("energy", 1e-12, "0.001 nJ"),
    ],
)
def test_costs_are_told_in_the_unit_that_they_fill(cost, value, text):
    assert in_units(cost, value) == text
