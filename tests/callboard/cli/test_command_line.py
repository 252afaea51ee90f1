"""The command line as a whole: lean, honest about errors, and with the exit codes it documents."""

import json
import logging
import os
import subprocess
import sys

import pytest

from callboard.cli import LazyGroup
from callboard.cli.log_format import JsonFormatter, TextFormatter

HEAVY = (
    "sqlalchemy",
    "httpx",
    "rich",
    "alembic",
    "pykka",
    "h11",
    "multiprocessing",
    "email",
    "unittest",
    "pydantic",
    "asyncio",
)


def run(*arguments, cwd=None, stdin="", **env):
    return subprocess.run(
        [sys.executable, "-m", "callboard", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        input=stdin,
        check=False,
        timeout=60,
        env={k: v for k, v in os.environ.items() if not k.startswith("CALLBOARD_")} | env,
    )


def test_help_of_every_command_loads_nothing_heavy():
    code = (
        "import sys\nfrom callboard.__main__ import run\n"
        f"for command in {list(LazyGroup.commands_known)!r}: assert run([command, '--help']) == 0\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
    for command in LazyGroup.commands_known:
        assert f"Usage: callboard {command}" in done.stdout


def test_worker_help_imports_nothing_heavy_by_pythons_own_account():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "callboard", "worker", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "click" in imported
    assert not imported & set(HEAVY)


def test_overview_and_version():
    overview = run("--help").stdout
    assert all(name in overview for name in LazyGroup.commands_known)
    assert run().stdout == overview
    assert run("--version").stdout.startswith("callboard 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["wrk"], 2, "No such command 'wrk'"),
        (["list", "--limit", "many"], 2, "'many' is not a valid integer"),
        (["worker", "--config", "none.toml"], 78, "none.toml: no such file"),
        (["worker", "--config", "-"], 78, "the configuration on stdin: not JSON"),
        (["worker", "--profile", "solo", "--runners", "3"], 78, "solo profile has one runner"),
        (["simulate", "--rpm", "-1"], 2, "'rpm' must be above 0"),
        (["simulate", "--fault", "nonsense"], 2, "nonsense"),
    ],
)
def test_an_expected_error_is_one_line_and_a_hint(arguments, code, says, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert lines[0].startswith("callboard: error: ")
    assert says in lines[0]
    assert len(lines) <= 2
    assert all(line.startswith("callboard: hint: ") for line in lines[1:])
    assert done.stdout == ""


def test_debug_shows_the_traceback(tmp_path):
    done = run("worker", "--config", "none.toml", cwd=tmp_path, CALLBOARD_DEBUG="1")
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr


def test_log_lines():
    record = logging.LogRecord("callboard.x", logging.INFO, "f.py", 1, "two\nlines %s", ("here",), None)
    record.created, record.msecs, record.job = 0.0, 0.0, 7
    assert TextFormatter().format(record) == "1970-01-01T00:00:00.000Z INFO callboard.x: two\\nlines here job=7"
    assert json.loads(JsonFormatter().format(record)) == {
        "at": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "logger": "callboard.x",
        "message": "two\nlines here",
        "job": 7,
    }
