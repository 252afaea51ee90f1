"""What a running company does by itself: schedules, pruning, and trying again by policy."""

from callboard import Supervisor
from callboard.actors.settings import RetryPolicy, RetrySettings
from callboard.persistence import schedules


def fails(ctx):
    raise ValueError("always")


def overdue(stage, name, by=1):
    """As if its time had come."""
    with stage.queue._writer() as c:
        c.script(f"UPDATE llm_schedules SET next_at = next_at - {by} * 3600000 WHERE name = '{name}'")


def test_a_schedule_that_is_due_is_performed_once(stage):
    made = stage.queue.schedule("s", "echo", {"n": 1}, cron="0 * * * *")
    overdue(stage, "s")
    supervisor = stage.company({"echo": lambda ctx: ctx.job.data["n"] + 1})
    stage.until(lambda: stage.queue.counts()["completed"])
    (row,) = stage.queue.list()
    assert row.key == f"schedule:s:{made.next_at - 3600000}"
    assert stage.queue.get(row.id).result == 2
    (after,) = stage.queue.schedules()
    assert after.next_at == made.next_at
    stage.until(lambda: supervisor.status().settled)
    assert len(stage.queue.list()) == 1


def test_a_schedule_comes_due_while_the_company_waits(stage):
    supervisor = stage.company({"echo": lambda ctx: 1})
    stage.until(lambda: supervisor.status().settled)
    stage.queue.schedule("s", "echo", every=1)
    overdue(stage, "s")
    stage.until(lambda: stage.queue.counts()["completed"] >= 2)  # the first is late, the second comes due
    keys = [row.key for row in stage.queue.list()]
    assert len(keys) == len(set(keys))


def test_a_schedule_is_looked_at_while_every_runner_is_busy(stage):
    import threading

    let_go = threading.Event()
    stage.company({"block": lambda ctx: let_go.wait(20), "echo": lambda ctx: 1}, profile="solo")
    blocked = stage.queue.add("block")
    stage.until(lambda: blocked.state == "active")
    stage.queue.schedule("s", "echo", cron="0 * * * *")
    overdue(stage, "s")
    stage.until(lambda: len(stage.queue.list()) == 2)
    assert blocked.state == "active"
    let_go.set()


def test_a_clock_that_ran_ahead_before_the_start_is_noticed(stage):
    made = stage.queue.schedule("s", "echo", cron="0 * * * *")
    overdue(stage, "s", by=-10_000)
    stage.company({"echo": lambda ctx: 1})
    stage.until(lambda: stage.queue.schedules()[0].next_at == made.next_at)


def test_what_ended_long_ago_is_pruned(stage):
    old, new = stage.queue.add("echo"), stage.queue.add("echo")
    stage.queue.cancel(old.id)
    stage.queue.cancel(new.id)
    with stage.queue._writer() as c:
        c.script(f"UPDATE llm_jobs SET finished_at = finished_at - 31 * 86400000 WHERE id = {old.id}")
    stage.company()
    stage.until(lambda: [row.id for row in stage.queue.list()] == [new.id])


def test_nothing_is_pruned_where_that_is_said(stage):
    job = stage.queue.add("echo")
    stage.queue.cancel(job.id)
    with stage.queue._writer() as c:
        c.script("UPDATE llm_jobs SET finished_at = 1")
    supervisor = stage.company({"echo": lambda ctx: 1}, retention_days=0)
    assert stage.done(stage.queue.add("echo")).state == "completed"
    stage.until(lambda: supervisor.status().settled)
    assert stage.queue.get(job.id).state == "cancelled"


def test_the_policy_of_its_type_says_how_often_and_when(stage):
    retries = RetrySettings(
        base=0.01,
        cap=0.02,
        types={"often": RetryPolicy(kind="fixed", base=0.01, max_attempts=5), "once": RetryPolicy(max_attempts=1)},
    )
    stage.company({"often": fails, "once": fails, "other": fails}, retries=retries)
    often, once, other = (stage.queue.add(kind) for kind in ("often", "once", "other"))
    assert [stage.done(job).failures for job in (often, once, other)] == [5, 1, 3]
    assert [job.row().max_attempts for job in (often, once, other)] == [5, 1, 3]


def test_a_hosts_own_policy_decides(stage):
    asked = []

    def policy(attempt, error):
        asked.append((attempt, error["class"], error["message"]))
        return 0.0 if attempt < 4 else None

    supervisor = Supervisor(stage.config(), handlers={"often": fails}, retry_policies={"often": policy})
    stage.stack.callback(lambda: supervisor.stop(0.0))
    supervisor.start()
    row = stage.done(stage.queue.add("often", max_attempts=9))
    assert (row.state, row.failures) == ("failed", 4)
    assert row.reason == "given up by its retry policy: ValueError: always"
    assert asked == [(n, "handler", "ValueError: always") for n in (1, 2, 3, 4)]


def test_a_parked_job_calls_again_only_when_a_person_says_so(stage):
    stage.simulator.faults({"fault": {"kind": "stall", "n": 0}, "times": 1})
    stage.company(first_token_timeout=0.2)
    job = stage.queue.add("chat", {"prompt": "Say something."}, options={"on_unknown": "park"})
    assert stage.done(job).state == "failed"
    assert [row.id for row in stage.queue.parked()] == [job.id]
    assert stage.queue.retry_parked(job.id)
    assert stage.done(job.refresh()).state == "completed"
    assert not stage.queue.retry_parked(job.id)
    assert stage.queue.parked() == []


def test_a_schedule_nobody_can_read_stops_nobody(stage):
    stage.queue.schedule("s", "echo", every=1)
    with stage.queue._writer() as c:
        c.script("UPDATE llm_schedules SET job = '{\"type\": 7}'")
    stage.company({"echo": lambda ctx: 1})
    stage.until(lambda: stage.queue.schedules()[0].problem)
    assert stage.done(stage.queue.add("echo")).state == "completed"
    assert isinstance(stage.queue.schedules()[0], schedules.Schedule)
