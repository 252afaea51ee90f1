"""Names, schedules, review, retention: the commands over a real board."""

import json

import pytest

from callboard import JobQueue
from callboard.cli.clean import parse_duration
from callboard.cli.errors import InputError
from callboard.persistence.board import WorkerBoard
from callboard.persistence.claims import claim
from callboard.persistence.job_store import release
from callboard.persistence.ledger import record_intent
from callboard.persistence.model import CallIntent

HELLO = ("--data", '{"prompt": "hello"}')


def ids(result):
    assert result.code == 0, result.err
    return int(result.out)


def test_names_find_the_job_that_is_there(cli):
    one = ids(cli("add", "chat", *HELLO, "--unique", "u"))
    assert ids(cli("add", "chat", *HELLO, "--unique", "u")) == one
    two = ids(cli("add", "chat", *HELLO, "--debounce", "d", 60))
    assert ids(cli("add", "chat", "--data", '{"prompt": "other"}', "--debounce", "d", 60)) == two
    assert json.loads(cli("show", two, "--json").out)["data"] == {"prompt": "other"}
    three = ids(cli("add", "chat", *HELLO, "--throttle", "t", 60))
    assert ids(cli("add", "chat", *HELLO, "--throttle", "t", 60)) == three
    assert len({one, two, three}) == 3
    refused = cli("add", "chat", *HELLO, "--throttle", "t", 60, "--unique", "u")
    assert (refused.code, "cannot be given together with" in refused.err) == (2, True)


def test_a_delayed_job_is_promoted(cli):
    later, now = ids(cli("add", "chat", *HELLO, "--delay", 60)), ids(cli("add", "chat", *HELLO))
    done = cli("promote", later)
    assert (done.code, done.out) == (0, f"{later} promoted\n")
    refused = cli("promote", now, 99)
    assert refused.code == 1
    assert f"job {now} is not delayed: it is waiting" in refused.err
    assert "there is no job 99" in refused.err


def test_a_job_is_posted_again(cli):
    one = ids(cli("add", "chat", *HELLO, "--key", "k", "--tag", "t", "--priority", 7))
    cli("cancel", one)
    two = ids(cli("duplicate", one))
    shown = json.loads(cli("show", two, "--json").out)
    assert (shown["state"], shown["data"], shown["tag"], shown["priority"], shown["key"]) == (
        "waiting",
        {"prompt": "hello"},
        "t",
        7,
        None,
    )
    assert cli("duplicate", 99).code == 2


def test_schedules_are_made_listed_rested_and_removed(cli):
    made = cli("schedule", "add", "report", "chat", *HELLO, "--cron", "0 9 * * 1-5", "--timezone", "Europe/Berlin")
    assert made.code == 0, made.err
    assert made.out.startswith("report: next at ")
    assert cli("schedule", "add", "tick", "chat", *HELLO, "--every", 90, "--unique", "u", "--catch-up", "all").code == 0
    found = [json.loads(line) for line in cli("schedule", "list", "--json").out.splitlines()]
    assert [(one["name"], one["cron"], one["every"], one["catch_up"]) for one in found] == [
        ("report", "0 9 * * 1-5", None, "latest"),
        ("tick", None, 90.0, "all"),
    ]
    assert found[1]["job"]["unique"] == "u"
    assert cli("schedule", "pause", "tick").out == "tick paused\n"
    table = cli("schedule", "list").out
    assert "0 9 * * 1-5 Europe/Berlin" in table
    assert "paused" in table
    assert "it is paused" in cli("schedule", "add", "tick", "chat", *HELLO, "--every", 90).out
    assert cli("schedule", "resume", "tick").code == 0
    assert cli("schedule", "remove", "tick").code == 0
    gone = cli("schedule", "remove", "tick")
    assert (gone.code, "there is no schedule 'tick'" in gone.err) == (2, True)
    assert "remove" in cli("schedule").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --cron or --every"),
        (("--cron", "x", "--every", 5), "give --cron or --every"),
        (("--cron", "often"), "cron: is not a cron expression: 'often'"),
        (("--cron", "* * * * *", "--timezone", "Mars"), "timezone: is not a time zone this machine knows: 'Mars'"),
        (("--every", 0.1), "--every"),
        (("--every", 5, "--model", "nope"), "nope"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(cli, arguments, says):
    refused = cli("schedule", "add", "s", "chat", *HELLO, *arguments)
    assert refused.code in (2, 78)
    assert says in refused.err


def park(job_id):
    """As when a worker dies in the middle of a call."""
    board = WorkerBoard.open("sqlite:///callboard.db", owner="w")
    intent = CallIntent(
        step="chat", fingerprint="f", provider="p", model="m-1", limit_key="p/m", reserved_tokens=9, reserved_cost=None
    )
    with board.connect() as c:
        with c.write():
            (job,) = claim(
                c, owner="w", slots=1, quotas={"default|chat||": 1}, lease_until=2**50, now=2**41, actor="store"
            )
            assert job.id == job_id
            record_intent(c, job.lease, intent, 1)
        with c.write():
            release(c, job.lease, cause="loss", reason="killed", now=2, actor="store")
    board.close()


def test_parked_jobs_are_reviewed(cli):
    with JobQueue("callboard.db") as queue:
        first = queue.add("chat", options={"on_unknown": "park"}).id
        park(first)
        second = queue.add("chat", options={"on_unknown": "park"}).id
        park(second)
        plain = queue.add("chat").id
    found = [json.loads(line) for line in cli("review", "--json").out.splitlines()]
    assert [(row["id"], [call["model"] for call in row["unknown_calls"]]) for row in found] == [
        (second, ["m-1"]),
        (first, ["m-1"]),
    ]
    shown = cli("review")
    assert "parked for review" in shown.out
    assert "--retry ID" in shown.err
    decided = cli("review", "--retry", first, "--fail", second)
    assert (decided.code, decided.out) == (0, f"{first} sent back\n{second} left failed\n")
    with JobQueue("callboard.db") as queue:
        assert (queue.get(first).state, queue.get(second).state) == ("waiting", "failed")
        assert queue.get(second).error["class"] == "unknown_outcome"
    assert cli("review").err == "nothing to review\n"
    again = cli("review", "--retry", second, "--fail", plain, "--fail", 99)
    assert again.code == 1
    assert f"job {second} is not parked" in again.err
    assert f"job {plain} is not parked" in again.err
    assert "there is no job 99" in again.err
    assert cli("review", "--retry", 1, "--fail", 1).code == 2


def test_what_ended_is_cleaned(cli):
    one, two = ids(cli("add", "chat", *HELLO)), ids(cli("add", "chat", *HELLO))
    cli("cancel", one)
    assert cli("clean", "--older-than", "30d").out == "0 deleted\n"
    assert cli("clean", "--older-than", "0", "--state", "completed").out == "0 deleted\n"
    assert cli("clean", "--older-than", "0").out == "1 deleted\n"
    assert [json.loads(line)["id"] for line in cli("list", "--json").out.splitlines()] == [two]
    assert cli("clean").code == 2
    assert cli("clean", "--older-than", "0", "--state", "active").code == 2


def test_durations_are_read():
    assert [parse_duration(text) for text in ("30d", "12h", "1.5m", "10s", "7", "2w")] == [
        2_592_000,
        43_200,
        90,
        10,
        7,
        1_209_600,
    ]
    for text in ("", "d", "-1", "1y", "1 day", "1h30m"):
        with pytest.raises(InputError):
            parse_duration(text)
