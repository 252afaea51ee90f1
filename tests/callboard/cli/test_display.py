"""Tables at every width: numbers whole, text shortened, and into a pipe nothing lost."""

import io

import pytest

from callboard.cli.display import print_table
from callboard.cli.text import plain

COLUMNS = [("budget", "left"), ("limit", "right"), ("spent", "right"), ("until", "left")]
ROWS = [["tenants:a-very-long-tag-that-takes-all-the-room", "$1,234.50", "$0.0000278", "2026-12-01 00:00"]]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(stream, monkeypatch, width, **asked):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    print_table(COLUMNS, ROWS, stream=stream, **asked)
    return plain(stream.getvalue()).splitlines()


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_numbers_are_never_cut(monkeypatch, width):
    heading, row = lines(Terminal(), monkeypatch, width)
    assert "$1,234.50" in row
    assert "$0.0000278" in row
    assert heading.split() == ["budget", "limit", "spent", "until"]
    if width >= 60:
        assert len(row) <= width
    assert ("a-very-long-tag-that-takes-all-the-room" in row) == (width == 200)


def test_into_a_pipe_nothing_is_cut(monkeypatch):
    rows = [[name * 4, *rest] for name, *rest in ROWS]
    stream = io.StringIO()
    print_table(COLUMNS, rows, stream=stream)
    assert stream.getvalue().splitlines()[1].split("  ")[0] == rows[0][0]


def test_what_wraps_is_all_there(monkeypatch):
    shown = lines(Terminal(), monkeypatch, 60, wide=0, wrap=True)
    assert len(shown) > 2
    assert "".join(line.split("  ")[0].strip() for line in shown[1:]) == ROWS[0][0]
