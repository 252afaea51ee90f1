"""What is shown to people is harmless, and numbers read as they should."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.cli.text import duration, json_line, moment, money, one_line, plain, time_of_day


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("\x9b31mred", "red"),
        ("a\x08b\x00c\x7f", "abc"),
        ("over\rwritten", "over\nwritten"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x1b", ""),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
        ("naïve 日本 🎉", "naïve 日本 🎉"),
    ],
)
def test_nothing_a_terminal_would_obey_is_left(hostile, shown):
    assert plain(hostile) == shown


@given(st.text())
def test_plain_leaves_no_control_character(text):
    assert not [c for c in plain(text) if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_exact_and_harmless(value):
    line = json_line(value)
    assert json.loads(line) == value
    assert plain(line) == line
    assert "\n" not in line


def test_one_line():
    assert one_line("a\n  b\tc", 20) == "a b c"
    assert one_line("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("nano", "shown"),
    [(None, "unknown"), (0, "$0.00"), (1_230_000_000, "$1.23"), (12_345_678, "$0.0123"), (1_500, "$0.0000015")],
)
def test_money(nano, shown):
    assert money(nano) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0.4, "0.40s"), (12.4, "12s"), (59.9, "1m 00s"), (185, "3m 05s"), (7800, "2h 10m")],
)
def test_duration(seconds, shown):
    assert duration(seconds) == shown


@pytest.fixture
def in_kolkata(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_time_names_its_zone_however_short_it_is(in_kolkata):
    at = 1_767_000_000_123
    assert moment(at) == "2025-12-29 14:50:00.123+05:30"
    assert moment(at, "minutes") == "2025-12-29 14:50+05:30"
    assert time_of_day(at) == "14:50:00.123+05:30"
    assert (moment(None), time_of_day(None)) == ("-", "-")
