"""`queues`, `pause`, `resume`, `db check --repair`, and the options of `add` that order goes by."""

import json

from callboard import JobQueue


def test_queues_are_listed_paused_and_resumed(cli):
    assert cli("add", "chat", "--data", "{}", "--queue", "night", "--group", "g", "--group-limit", 2).code == 0
    assert cli("add", "chat", "--data", "{}", "--requires", "gpu", "--requires", "eu").code == 0
    assert cli("pause", "night").out == "night paused\n"
    assert cli("pause", "night").out == "night was paused already\n"
    listed = [json.loads(line) for line in cli("queues", "--json").out.splitlines()]
    assert [(queue["queue"], queue["paused_at"] is None, queue["jobs"]["waiting"]) for queue in listed] == [
        ("default", True, 1),
        ("night", False, 1),
    ]
    table = cli("queues").out.splitlines()
    assert table[0].split()[:2] == ["queue", "waiting"]
    assert "paused for" in table[2]
    assert json.loads(cli("show", 1, "--json").out)["why"] == "its queue 'night' is paused"
    assert cli("resume", "night").out == "night resumed\n"
    assert cli("resume", "night").out == "night was not paused\n"
    with JobQueue("callboard.db") as queue:
        assert (queue.row(1).queue, queue.row(1).group_key, queue.row(1).group_limit) == ("night", "g", 2)
        assert queue.row(2).requires == "eu,gpu"


def test_a_bad_name_is_an_error_and_no_traceback(cli):
    cli("add", "chat", "--data", "{}")
    bad = cli("pause", "a|b")
    assert (bad.code, bad.out) == (2, "")
    assert bad.err.startswith("callboard: error: queue: must be text without '|'")


def test_counters_are_set_right_when_asked(cli):
    cli("add", "chat", "--data", "{}")
    with JobQueue("callboard.db") as queue, queue._writer() as connection:
        connection.script("UPDATE llm_job_counts SET jobs = 5")
    found = cli("db", "check")
    assert (found.code, found.out) == (
        1,
        "the counter of waiting jobs of type 'chat' in queue 'default' says 5, but there are 1\n",
    )
    repaired = cli("db", "check", "--repair")
    assert (repaired.code, repaired.out) == (0, "")
    assert "1 counters were set right" in repaired.err
    assert json.loads(cli("db", "check", "--json").out)["problems"] == []
