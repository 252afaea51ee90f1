"""`callboard map` with real processes: bad rows spoil nothing, and however it is stopped, running it again repeats no call."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def prompts(simulator):
    """The last user message of every request the provider saw, in order."""
    return [entry["body"]["messages"][-1]["content"] for entry in simulator.journal()]


ROWS = [f"Row {n} has a sentence of its own." for n in range(6)]


@pytest.fixture
def rows(here):
    (here / "rows.jsonl").write_text("".join(json.dumps({"t": text}) + "\n" for text in ROWS))
    return here / "rows.jsonl"


def records(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


class Started:
    """A `callboard map` as a process of its own."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "callboard", "map", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background may ignore Ctrl-C, and a child inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads hold locks here
        )

    def end(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def test_rows_in_order_with_the_bad_ones_in_their_places(cli, provider, here):
    (here / "rows.jsonl").write_text(
        '{"t": "One is first."}\n{"t": \n{"x": 1}\n\n{"t": "Two is last."}\n{"t": "One is first."}\n'
    )
    result = cli("map", "rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl", "--max-output", 50)
    assert result.code == 1
    assert "row 2 (line 2): malformed JSON" in result.err
    assert "row 3 (line 3): missing field 't' (the row has: x)" in result.err
    found = records(here / "out.jsonl")
    assert [(r["row"], r["state"], r["output"]) for r in found] == [
        (1, "completed", "One is first."),
        (2, "bad_row", None),
        (3, "bad_row", None),
        (4, "completed", "Two is last."),
        (5, "completed", "One is first."),
    ]
    assert set(found[0]) == {"row", "input", "output", "state", "error", "tokens", "cost_usd", "job"}
    assert found[1]["error"].startswith("line 2: malformed JSON")
    assert found[2]["input"] == {"x": 1}
    assert len({found[0]["job"], found[3]["job"], found[4]["job"]}) == 3
    assert sorted(prompts(provider)) == ["One is first.", "One is first.", "Two is last."]
    assert {entry["body"]["max_tokens"] for entry in provider.journal()} == {50}
    assert "callboard show" in result.out
    again = cli("map", "rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl", "--max-output", 50)
    assert again.code == 1
    assert records(here / "out.jsonl") == found
    assert len(provider.journal()) == 3
    assert "3 of 3 rows are answered on the board already" in again.err


def test_csv_limit_and_results_on_stdout(cli, provider, here):
    with (here / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", "the text"], ["a", "One, and a comma."], ["b", "Two."], ["c", "Three."]])
    result = cli("map", "rows.csv", "--prompt", "{the text}", "--limit", 2)
    assert result.code == 0
    assert [json.loads(line)["output"] for line in result.out.splitlines()] == ["One, and a comma.", "Two."]
    assert "2 rows: 2 completed" in result.err
    assert not list(here.glob("*.tmp"))


def test_rows_from_stdin(provider, here):
    done = subprocess.run(
        [sys.executable, "-m", "callboard", "map", "-", "--prompt", "{t}"],
        input='{"t": "From a pipe."}\n',
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "From a pipe."


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["none.jsonl", "--prompt", "{t}"], 2, "none.jsonl: no such file"),
        (["rows.jsonl", "--prompt", "no field"], 2, "--prompt: names no field"),
        (["rows.jsonl", "--prompt", "{t!r}"], 2, "--prompt"),
        (["rows.jsonl", "--prompt", "{t}", "--model", "nobody:x"], 78, "--model: model 'nobody:x' is not configured"),
        (["rows.jsonl", "--prompt", "{t}", "-o", "rows.jsonl"], 2, "is the file of the rows"),
        (["rows.jsonl", "--prompt", "{t}", "-o", "none/out.jsonl"], 2, "does not exist"),
        (["rows.jsonl", "--prompt", "{t}", "-o", "."], 2, "is a directory"),
        (["empty.jsonl", "--prompt", "{t}"], 2, "there are no rows"),
        (["rows.jsonl"], 2, "--prompt"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_posted(cli, rows, here, arguments, code, says):
    (here / "empty.jsonl").touch()
    result = cli("map", *arguments)
    assert (result.code, says in result.err) == (code, True), result.err
    assert not list(here.glob("*.db"))
    assert records(rows) == [{"t": text} for text in ROWS]


def test_failed_rows_are_named_and_tried_again_only_when_asked(cli, provider, rows, here):
    provider.faults({"match": {"contains": "Row 3"}, "fault": {"kind": "status", "status": 400}})
    arguments = ("map", "rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl")
    result = cli(*arguments)
    assert result.code == 1
    failed = records(here / "out.jsonl")[3]
    assert (failed["state"], failed["output"]) == ("failed", None)
    assert failed["error"]
    assert "5 completed, 1 failed" in result.out
    assert "--retry-failed" in result.out
    provider.clear_faults()
    assert cli(*arguments).code == 1
    assert prompts(provider).count(ROWS[3]) == 1
    assert cli(*arguments, "--retry-failed").code == 0
    assert [record["state"] for record in records(here / "out.jsonl")] == ["completed"] * 6
    assert [prompts(provider).count(text) for text in ROWS] == [1, 1, 1, 2, 1, 1]


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_stopped_it_writes_what_is_there_and_resumes(cli, provider, rows, here, how):
    provider.faults({"match": {"contains": "Row 4"}, "fault": {"kind": "stall", "n": -1}, "times": 1})
    (here / "callboard.toml").write_text(
        (here / "callboard.toml").read_text().replace("[retries]", "drain_timeout = 0\n[retries]", 1)
    )
    started = Started("rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl")
    provider.wait_for(
        lambda journal: sum(entry["outcome"] == "completed" for entry in journal) == 5 and len(journal) == 6
    )
    started.process.send_signal(how)
    code, out, _ = started.end()
    assert code == 130
    assert "resume:" in out
    found = records(here / "out.jsonl")
    assert len(found) == 6
    assert found[4]["output"] is None
    done = [record["input"]["t"] for record in found if record["state"] == "completed"]
    assert cli("map", "rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl").code == 0
    assert [record["output"] for record in records(here / "out.jsonl")] == ROWS
    assert all(prompts(provider).count(text) == 1 for text in done)


def test_killed_its_worker_ends_too_and_it_resumes(cli, provider, rows, here):
    provider.faults({"match": {"contains": "Row 4"}, "fault": {"kind": "stall", "n": -1}, "times": 1})
    started = Started("rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl")
    provider.wait_for(lambda journal: len(journal) == 6)
    os.kill(started.process.pid, signal.SIGKILL)
    started.process.wait(10)
    # The worker aborts the call that is left, because its life-line, a pipe, has ended: no process of it survives.
    provider.wait_for(lambda journal: journal[prompts(provider).index(ROWS[4])]["outcome"] == "aborted_by_client")
    started.end()
    assert not (here / "out.jsonl").exists()
    completed = {
        entry["body"]["messages"][-1]["content"] for entry in provider.journal() if entry["outcome"] == "completed"
    }
    assert cli("map", "rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl").code == 0
    assert [record["output"] for record in records(here / "out.jsonl")] == ROWS
    assert all(prompts(provider).count(text) == 1 for text in completed)
    assert not list(here.glob(".out.jsonl*"))


def test_a_killed_worker_is_replaced(provider, rows, here):
    provider.faults({"match": {"contains": "Row 2"}, "fault": {"kind": "stall", "n": -1}, "times": 1})
    started = Started("rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl")
    provider.wait_for(lambda journal: sum(entry["outcome"] == "completed" for entry in journal) == 5)
    for worker in children(started.process.pid):
        os.kill(worker, signal.SIGKILL)
    code, _, err = started.end()
    assert code == 0, err
    assert "the worker process ended: it was killed (kill -9, or out of memory); starting another (1 of 3)" in err
    assert [record["output"] for record in records(here / "out.jsonl")] == ROWS


def test_a_worker_that_cannot_start_is_not_started_for_ever(cli, rows, here):
    (here / "callboard.toml").write_text('[handlers]\nresize = "no.such:thing"\n')
    result = cli("map", "rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl")
    assert result.code == 2
    assert "the worker process ended: its configuration is not usable" in result.err
    assert "no.such" in result.err


def test_a_worker_that_is_running_does_the_work(cli, provider, rows, here):
    worker = subprocess.Popen([sys.executable, "-m", "callboard", "worker", "--log-level", "warning"])
    try:
        assert cli("map", "rows.jsonl", "--prompt", "{t}", "-o", "out.jsonl", "--no-worker").code == 0
    finally:
        worker.terminate()
        assert worker.wait(30) == 0
    assert [record["output"] for record in records(here / "out.jsonl")] == ROWS


def test_worker_once_drains_and_ends(cli, provider, here):
    cli("add", "chat", "--data", '{"prompt": "Only this."}')
    done = subprocess.run(
        [sys.executable, "-m", "callboard", "worker", "--once", "--profile", "solo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert cli("follow", 1).out == "Only this.\n"
    assert json.loads(cli("list", "--json").out)["state"] == "completed"
