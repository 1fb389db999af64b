"""The journal survives kills, refuses damage, and hands an earlier life back in order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajpq.runs.journal import Journal, decode_line, encode_line, read_journal, recorded_seconds
from hw_models.errors import AjpqError

entries = st.dictionaries(
    st.text(min_size=1).filter(lambda key: key != "crc"),
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    max_size=5,
)


@given(entries)
def test_lines_come_back(entry):
    line = encode_line(entry)
    assert line.count("\n") == 1
    assert decode_line(line) == entry


@given(entries, st.data())
def test_a_changed_character_is_noticed(entry, data):
    line = encode_line({**entry, "value": 12345})
    position = line.index("12345") + data.draw(st.integers(0, 4))
    digit = "9" if line[position] != "9" else "8"
    assert decode_line(line[:position] + digit + line[position + 1 :]) is None


def test_recorded_entries_first_then_new_ones(tmp_path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    assert first.next_recorded(index=0) is None
    first.append({"index": 0})
    first.append({"index": 1})
    second = Journal(path)
    assert second.next_recorded(index=0)["index"] == 0
    assert second.next_recorded(index=1)["index"] == 1
    assert second.next_recorded(index=2) is None
    second.append({"index": 2})
    assert [entry["index"] for entry in read_journal(path)] == [0, 1, 2]


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole = encode_line({"index": 0})
    path.write_text(whole + encode_line({"index": 1})[:9])
    journal = Journal(path)
    assert journal.next_recorded() == {"index": 0}
    assert journal.next_recorded() is None
    journal.append({"index": 1})
    assert [entry["index"] for entry in read_journal(path)] == [0, 1]


def test_damage_in_the_middle_is_an_error_that_changes_nothing(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = [encode_line({"index": number}) for number in range(3)]
    damaged = lines[0] + lines[1].replace("1", "7", 1) + lines[2]
    path.write_text(damaged)
    with pytest.raises(AjpqError, match="damaged in line 2 of 3"):
        Journal(path)
    assert path.read_text() == damaged


def test_an_entry_of_another_search_is_an_error(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path).append({"hash": "a"})
    with pytest.raises(AjpqError, match="hash='a', the search arrives at 'b'"):
        Journal(path).next_recorded(hash="b")


def test_lines_are_plain_json(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path).append({"kind": "candidate"})
    line = json.loads(path.read_text())
    assert set(line) == {"kind", "seconds", "crc"}


def test_seconds_add_up_to_what_all_lives_took(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("ajpq.runs.journal.time.monotonic", lambda: clock[0])
    path = tmp_path / "journal.jsonl"
    first = Journal(path, started=90.0)
    first.append({})
    clock[0] = 130.0
    first.append({})
    clock[0] = 1000.0  # another life, another clock
    second = Journal(path)
    second.next_recorded()
    second.next_recorded()
    clock[0] = 1005.0
    second.append({})
    assert recorded_seconds(path) == 10 + 30 + 5


def test_a_line_that_is_nested_without_end_is_damaged():
    assert decode_line("[" * 1_000_000) is None
