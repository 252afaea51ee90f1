"""Searching, events, and doing something to all that a search finds, from the command line."""

import json
import subprocess
import sys

import pytest

from callboard import JobQueue


@pytest.fixture
def jobs(here):
    """Three jobs of two types, the last cancelled."""
    with JobQueue(here / "callboard.db") as queue:
        queue.add("chat", {"customer": 42}, tag="a b")
        queue.add("embed", {"customer": 7})
        queue.add("embed").cancel("not needed")
        yield queue


def listed(result):
    return [json.loads(line)["id"] for line in result.out.splitlines()]


def test_list_takes_a_query_beside_its_options(cli, jobs):
    assert listed(cli("list", "data.customer:42", "--json")) == [1]
    assert listed(cli("list", "data.customer:>1", "--type", "embed", "--json")) == [2]
    assert listed(cli("list", "state:waiting", "--tag", "a b", "--json")) == [1]
    shown = cli("list", "customer")
    assert shown.code == 0
    assert "every job was looked at" in shown.err
    assert "looked at" not in cli("list", "key:x").err


def test_a_bad_query_is_shown_with_its_place(cli, jobs):
    result = cli("list", "type:chat stat:failed")
    assert result.code == 2
    assert result.err.splitlines() == [
        "callboard: error: there is no field 'stat': did you mean 'state'?",
        "  type:chat stat:failed",
        "            ^^^^",
    ]


def test_events_are_lines_with_a_cursor_to_come_back_with(cli, jobs):
    lines = [json.loads(line) for line in cli("events", "--json").out.splitlines()]
    assert [(line["cursor"], line["job"], line["from"], line["to"]) for line in lines] == [
        (1, 1, None, "waiting"),
        (2, 2, None, "waiting"),
        (3, 3, None, "waiting"),
        (4, 3, "waiting", "cancelled"),
    ]
    assert lines[3]["reason"] == "not needed"
    assert [json.loads(line)["cursor"] for line in cli("events", "--json", "--after", 3).out.splitlines()] == [4]
    assert len(cli("events", "--type", "embed", "--state", "waiting").out.splitlines()) == 2
    assert len(cli("events", "--job", 3).out.splitlines()) == 2
    assert cli("events", "--after", "now").out == ""
    assert cli("events", "--after", "yesterday").code == 2
    jobs.add("chat").cancel("\x1b[31mred\nalert")
    assert "red alert" in cli("events", "--job", 4).out
    assert "\x1b" not in cli("events", "--job", 4, "--json").out


def test_events_are_followed_as_they_come(here, jobs):
    following = subprocess.Popen(
        [sys.executable, "-m", "callboard", "events", "--follow", "--after", "2", "--json"],
        cwd=here,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert [json.loads(following.stdout.readline())["cursor"] for _ in range(2)] == [3, 4]
        jobs.add("chat")
        assert json.loads(following.stdout.readline())["job"] == 4
    finally:
        following.kill()
        following.wait()
        following.stdout.close()


def test_bulk_commands_count_first_and_ask_only_on_a_terminal(cli, jobs):
    refused = cli("cancel", "--where", "type:embed")
    assert refused.code == 2
    assert refused.err.splitlines() == [
        "callboard: error: 1 jobs would be cancelled, and there is no terminal to ask on",
        "callboard: hint: add --yes",
    ]
    assert jobs.counts()["waiting"] == 2
    assert cli("cancel", "--where", "type:embed", "--yes").out == "1 cancelled\n"
    assert cli("retry", "--where", "type:embed", "--yes").out == "2 sent back\n"
    assert cli("cancel", "--where", "type:embed", "--yes").out == "2 cancelled\n"
    assert cli("delete", "--where", "created:<1h", "--yes").out == "2 deleted\n"
    assert listed(cli("list", "--json")) == [1]
    assert cli("delete", "--where", "created:<1h", "--yes").err == "no such jobs\n"


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("n\n", 3)])
def test_bulk_commands_ask_on_a_terminal(cli, jobs, monkeypatch, answer, left):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    jobs.cancel_where("")
    result = cli("delete", "--where", "type:embed")
    assert "delete 2 jobs?" in result.err
    assert result.code == (0 if left == 1 else 1)
    assert len(jobs.list()) == left


def test_ids_and_a_search_exclude_each_other(cli, jobs):
    for command in ("cancel", "retry", "delete"):
        assert cli(command, 1, "--where", "type:chat").code == 2
        assert cli(command).code == 2
        empty = cli(command, "--where", " ")
        assert empty.code == 2
        assert "every job" in empty.err


def test_retry_and_delete_by_id(cli, jobs):
    again = cli("retry", 3, 1, 99)
    assert (again.code, again.out) == (1, "3 sent back\n")
    assert "job 1 cannot be sent back: it is waiting" in again.err
    assert "no job 99" in again.err
    jobs.cancel(3)
    gone = cli("delete", 3, 1)
    assert (gone.code, gone.out) == (1, "3 deleted\n")
    assert "job 1 does not exist, has not ended, or is waited on" in gone.err
