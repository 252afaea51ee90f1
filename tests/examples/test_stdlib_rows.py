"""The demo's rows: real text, the same every time, and nothing imported to get it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def lines():
    return subprocess.run(
        [sys.executable, EXAMPLES / "stdlib_rows.py"], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_a_few_hundred_rows_in_order(lines):
    rows = [json.loads(line) for line in lines]
    names = [row["module"] for row in rows]
    assert len(rows) > 200
    assert names == sorted(set(names))
    assert {"os", "json", "asyncio", "asyncio.tasks", "heapq"} <= set(names)
    assert all(set(row) == {"module", "text"} and row["text"] and len(row["text"]) <= 6000 for row in rows)


def test_nothing_is_imported_to_read_it():
    code = (
        f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import stdlib_rows\n"
        "before = set(sys.modules); list(stdlib_rows.rows())\n"
        "print([m for m in set(sys.modules) - before if m.partition('.')[0] in ('asyncio', 'tkinter', 'unittest', 'idlelib')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
