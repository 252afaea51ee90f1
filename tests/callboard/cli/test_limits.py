"""`callboard limits`, and what doctor says of holds: from the database alone."""

import json
import re
import time

import pytest

from callboard import JobQueue
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import ModelSettings
from callboard.cli.follow import Quiet
from callboard.persistence import limits
from callboard.persistence.limit_rules import Charge, Gate

KEY = "acme/small"


def now_ms():
    return time.time_ns() // 1_000_000


@pytest.fixture
def used(cli):
    """A board on which a worker has used a key, lowered it, and sent a job back to wait."""
    cli("add", "chat", "--data", "{}")
    now = now_ms()
    day = now - now % 86_400_000
    gate = Gate(
        KEY,
        "acme",
        now,
        Charge(1, 10, 5, 15),
        minute=(60, None, None, 1000),
        day=(500, None, None, None),
        days=(day,),
        days_end_ms=day + 86_400_000,
    )
    told = {
        "account": "acme",
        "minute": {"requests": {"limit": 60}, "input": {"limit": None}, "total": {"limit": 1000}},
        "day": {"began_ms": day, "ends_ms": day + 86_400_000, "requests": {"limit": 500}},
        "concurrency": {"limit": 4},
        "waiting": 2,
    }
    with JobQueue("callboard.db") as queue, queue._writer() as connection:
        limits.charge(connection, "w", gate, now)
        limits.lower(connection, KEY, now)
        limits.describe(connection, "w", KEY, told, now)
        connection.script(f"UPDATE llm_jobs SET held_by = '{KEY}', held_until = {now + 60_000}")
    return now


def hold(key, kind):
    with JobQueue("callboard.db") as queue, queue._writer() as connection:
        limits.set_hold(connection, key, now_ms() + 500_000, "402: no money left", now_ms(), kind)


def test_each_key_is_shown(cli, used):
    (shown,) = json.loads(cli("limits", "--json").out)["keys"]
    assert shown["minute"] == {
        "requests": {"limit": 60, "used": 1, "free": 59},
        "total": {"limit": 1000, "used": 15, "free": 985},
    }
    assert shown["day"]["requests"] == {"limit": 500, "used": 1, "free": 499}
    assert shown["concurrency"] == {"limit": 4, "used": 0, "free": 4}
    assert shown["factor"] == pytest.approx(0.8, abs=0.01)
    assert (shown["hold"], shown["waiting"]["in_line"], shown["waiting"]["jobs"]) == (None, 2, 1)
    assert shown["waiting"]["until_ms"] == used + 60_000
    table = cli("limits").out
    for text in (
        "acme/small",
        "requests per minute",
        "985",
        "requests per day",
        "lowered to 80%",
        "one job waits, for ",
    ):
        assert text in table
    assert re.search(r"requests per day until \S+ \d\d:\d\d[+-]\d\d:\d\d ", table), "the end of the day names its zone"


def test_a_board_without_limits(cli):
    assert cli("limits").code == 2, "a mistyped path is an error"
    cli("add", "chat", "--data", "{}")
    assert (cli("limits").out, json.loads(cli("limits", "--json").out)["keys"]) == ("", [])


@pytest.mark.parametrize("key", [KEY, "acme"])
def test_a_hold_is_shown_and_lifted_with_what_waits_for_it(cli, used, key):
    hold(key, "quota")
    (shown,) = json.loads(cli("limits", "--json").out)["keys"]
    assert (shown["hold"]["key"], shown["hold"]["kind"]) == (key, "quota")
    assert f"callboard limits --resume {key}" in cli("limits").out
    found = cli("doctor", "--offline", "--json")
    assert found.code == 1
    assert any(
        one["area"] == f"limits {key}" and "no money left" in one["what"] for one in json.loads(found.out)["findings"]
    )
    assert cli("limits", "--resume", key).out == f"{key} resumed; nothing holds 1 job any more\n"
    assert json.loads(cli("limits", "--json").out)["keys"][0]["hold"] is None
    again = cli("limits", "--resume", key)
    assert (again.code, again.err) == (1, f"callboard: {key} is not on hold; `callboard limits` shows what is\n")
    assert cli("doctor", "--offline").code == 0


def test_a_hold_of_a_key_that_no_worker_here_has_used_is_shown(cli):
    cli("add", "chat", "--data", "{}")
    hold("other", "auth")
    (shown,) = json.loads(cli("limits", "--json").out)["keys"]
    assert (shown["key"], shown["hold"]["kind"]) == ("other", "auth")


def test_a_job_that_waits_for_a_key_on_hold_says_so_and_one_that_can_go_elsewhere_does_not_wait(cli, stage):
    where = ["--database", stage.database]
    stage.simulator.faults({"match": {"model": "m-1"}, "fault": {"kind": "status", "status": 401}})
    company = stage.company(
        models={
            "m": ModelSettings(provider="sim", model="m-1"),
            "either": ModelSettings(provider="sim", model="m-1", fallback=("other",), fallback_on=("auth",)),
            "other": ModelSettings(provider="own", model="m-2"),
        },
        providers={
            name: ProviderSettings(
                name=name, wire="openai-chat", base_url=f"{stage.simulator.url}/v1", allow_private=True
            )
            for name in ("sim", "own")
        },
    )
    first = stage.queue.add("chat", {"prompt": "Hello."})
    stage.until(lambda: stage.queue.why(first).startswith("held by sim"), "the key is refused")
    stage.until(lambda: "sim/m-1" in company.status().held_keys, "the dispatcher knows")
    behind = stage.queue.add("chat", {"prompt": "Hello again."})
    held = r"the limit key of its model, sim, is on hold since \S+\+00:00 until \S+\+00:00 \(auth\): .*401.*callboard limits --resume sim"
    assert re.match(held, behind.why())
    assert re.search(held, " ".join(cli("show", behind.id, *where).out.split()))
    assert re.match(held, json.loads(cli("show", behind.id, "--json", *where).out)["why"])
    assert re.search(held, Quiet(behind).news())
    assert stage.done(stage.queue.add("chat", {"prompt": "Hello."}, model="either")).state == "completed"

    stage.simulator.clear_faults()
    assert cli("limits", "--resume", "sim", *where).code == 0
    assert {stage.done(job).state for job in (first, behind)} == {"completed"}
