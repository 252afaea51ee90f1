"""Every command over a real board."""

import io
import json
import sqlite3

import pytest

from callboard import JobQueue
from callboard.actors.settings import CompanySettings
from callboard.cli.add import PRIORITIES
from callboard.cli.options import STATES
from callboard.persistence.engine import driver
from callboard.persistence.lifecycle import JobState
from callboard.persistence.new_job import PRIORITIES as REAL_PRIORITIES


def test_the_names_in_options_are_the_boards():
    assert set(STATES) == {str(state) for state in JobState}
    assert set(PRIORITIES) == set(REAL_PRIORITIES)
    assert CompanySettings(database="x").synchronous == "FULL"


def test_add_then_list_and_show(cli):
    added = cli("add", "chat", "--data", '{"prompt": "hello"}', "--tag", "t", "--priority", "user", "--key", "k")
    assert (added.code, added.out) == (0, "1\n")
    assert cli("add", "chat", "--data", '{"prompt": "other"}', "--key", "k").out == "1\n"
    later = int(cli("add", "chat", "--data", '{"prompt": "later"}', "--delay", 60).out)
    rows = [json.loads(line) for line in cli("list", "--json").out.splitlines()]
    assert [(row["id"], row["state"], row["priority"], row["tag"]) for row in rows] == [
        (later, "delayed", 0, None),
        (1, "waiting", 100, "t"),
    ]
    assert [json.loads(line)["id"] for line in cli("list", "--json", "--state", "delayed").out.splitlines()] == [later]
    assert [json.loads(line)["id"] for line in cli("list", "--json", "--tag", "t").out.splitlines()] == [1]
    table = cli("list").out
    assert "delayed" in table
    assert "\x1b" not in table
    shown = json.loads(cli("show", 1, "--json").out)
    assert shown["data"] == {"prompt": "hello"}
    assert shown["transitions"][0]["to_state"] == "waiting"
    assert shown["result"] is None
    report = cli("show", later).out
    assert "not before" in report
    assert "timeline" in report


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chat", "--data", "{"], "--data: malformed JSON"),
        (["chat", "--data", "@none.json"], "none.json: cannot be read"),
        (
            ["chat", "--data", "{}", "--priority", "high"],
            "--priority: expected a whole number or one of user, analysis, background",
        ),
        (["chat", "--data", "{}", "--delay", "-1"], "--delay"),
        (["chat", "--data", "[NaN]"], "data[0]"),
        (["chat", "--data", "{}", "--key", ""], "key: must be text"),
        (["resize", "--data", "{}"], "TYPE: no handler is configured for 'resize' (known: chat, embed)"),
        (["chat", "--data", "{}", "--database", "no/such/dir.db"], "no/such"),
        (["chat", "--data", "{}", "--database", "postgresql://u:secret@h/d"], "postgresql"),
    ],
)
def test_what_add_refuses_it_names(cli, here, arguments, says):
    result = cli("add", *arguments)
    assert result.code == 2
    assert says in result.err
    assert "secret" not in result.err
    assert result.out == ""
    assert not list(here.glob("*.db")) or cli("list", "--json").out == ""


def test_an_unknown_model_is_refused_unless_asked_for(cli):
    refused = cli("add", "chat", "--data", "{}", "--model", "opnai:x")
    assert refused.code == 78
    assert "--model: model 'opnai:x' is not configured" in refused.err
    assert "did you mean 'openai:'?" in refused.err
    assert cli("add", "other", "--data", "{}", "--model", "elsewhere", "--unchecked").code == 0


def test_data_from_a_file_and_from_stdin(cli, here, monkeypatch):
    (here / "d.json").write_text('{"prompt": "from a file"}')
    cli("add", "chat", "--data", "@d.json")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO('{"prompt": "from stdin ü"}'.encode())))
    cli("add", "chat", "--data", "-")
    with JobQueue(here / "callboard.db") as queue:
        assert [queue.get(1).data["prompt"], queue.get(2).data["prompt"]] == ["from a file", "from stdin ü"]


def test_cancel_says_which_and_counts_the_rest_as_failures(cli):
    cli("add", "chat", "--data", "{}")
    assert (cli("cancel", 1).code, cli("cancel", 1).code) == (0, 1)
    result = cli("cancel", 1, 7)
    assert result.code == 1
    assert "had already ended: cancelled" in result.err
    assert "no job 7" in result.err


def test_a_missing_board_is_an_error_not_an_empty_board(cli, here):
    for command in (["list"], ["show", 1], ["follow", 1], ["cancel", 1], ["stats"], ["db", "check"]):
        result = cli(*command)
        assert result.code == 2
        assert "callboard.db" in result.err
    assert not list(here.iterdir())


def test_a_missing_job(cli):
    cli("add", "chat", "--data", "{}")
    for command in ("show", "follow", "cancel"):
        result = cli(command, 9)
        assert result.code in (1, 2)
        assert "no job 9" in result.err


def test_hostile_text_reaches_no_terminal(cli, here):
    hostile = "\x1b[2J\x1b]0;owned\x07[bold red]x[/] \u202eabc"
    cli("add", "chat", "--data", json.dumps({"prompt": hostile}), "--tag", hostile.replace("\x1b", "\x1b"))
    with JobQueue(here / "callboard.db") as queue:
        queue.cancel(1, hostile)
    for command in (["list"], ["show", 1], ["show", 1, "--json"], ["stats"], ["stats", "--json"], ["follow", 1]):
        result = cli(*command)
        assert "\x1b" not in result.out + result.err
        assert "\u202e" not in result.out + result.err
    assert "[bold red]x[/]" in cli("show", 1).out


def test_stats(cli):
    for _ in range(3):
        cli("add", "chat", "--data", "{}", "--tag", "t")
    cli("cancel", 1)
    found = json.loads(cli("stats", "--json").out)
    assert (found["jobs"]["waiting"], found["jobs"]["cancelled"], found["jobs"]["completed"]) == (2, 1, 0)
    assert found["jobs_by_type"]["chat"]["waiting"] == 2
    assert found["oldest_waiting_seconds"] >= 0
    assert found["cost_usd"] is None
    assert found["tags"] == [{"tag": "t", "jobs": 3, "completed": 0, "failed": 0, "unfinished": 2}]
    assert "oldest waiting job" in cli("stats").out


def test_db_check_finds_what_is_wrong(cli, here):
    cli("add", "chat", "--data", "{}")
    assert cli("db", "check").code == 0
    with driver.connect(str(here / "callboard.db")) as connection:
        connection.execute("DELETE FROM llm_job_transitions")
    connection.close()
    result = cli("db", "check", "--json")
    assert result.code == 1
    assert json.loads(result.out)["problems"]


@pytest.mark.parametrize(
    "content", [b"this is not a database, whatever its name says" * 20, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_file_that_is_no_database(cli, here, content):
    (here / "callboard.db").write_bytes(content)
    for command in (["list"], ["add", "chat", "--data", "{}"], ["stats"], ["map", "-", "--prompt", "{a}"]):
        result = cli(*command) if command[0] != "map" else None
        if result is not None:
            assert result.code == 2
            assert "not a database or is damaged" in result.err
    assert (here / "callboard.db").read_bytes() == content
    assert cli("doctor", "--offline").code == 1


def test_a_database_of_something_else_is_left_alone(cli, here):
    with sqlite3.connect(here / "callboard.db") as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    assert cli("list").code == 2
    assert cli("add", "chat", "--data", "{}").code == 0
    with sqlite3.connect(here / "callboard.db") as connection:
        assert connection.execute("SELECT count(*) FROM customers").fetchone() == (0,)
    connection.close()


def test_completed_work_is_shown_followed_and_counted(cli, provider, here):
    (here / "rows.jsonl").write_text('{"t": "Actors keep their state to themselves. They talk by messages."}\n')
    assert cli("map", "rows.jsonl", "--prompt", "Shorten: {t}", "-o", "out.jsonl").code == 0
    record = json.loads((here / "out.jsonl").read_text())
    followed = cli("follow", 1)
    assert (followed.code, followed.out.rstrip("\n")) == (0, record["output"])
    assert "job 1 completed" in followed.err
    assert record["output"] in cli("show", 1).out
    shown = json.loads(cli("show", 1, "--json").out)
    assert shown["result"]["text"] == record["output"]
    assert [call["state"] for call in shown["calls"]] == ["completed"]
    assert shown["calls"][0]["cost_usd"] is None
    found = json.loads(cli("stats", "--json").out)
    assert (found["calls"], found["calls_without_price"], found["ended_in_last_minute"]["completed"]) == (1, 1, 1)
    assert sum(found["tokens"].values()) == record["tokens"]


def test_db_upgrade_makes_a_board_and_then_leaves_it_alone(cli):
    assert "empty -> " in cli("db", "upgrade").out
    cli("add", "chat", "--data", "{}")
    assert "already at " in cli("db", "upgrade").out
    assert cli("db", "check").code == 0
    assert json.loads(cli("list", "--json").out)["id"] == 1
