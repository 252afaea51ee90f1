"""Jobs that recur: each occurrence once, whoever adds it, whatever the clock does, however long nobody was there."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from callboard.persistence import schedules
from callboard.persistence.engine import open_database
from callboard.persistence.errors import InvalidJobError
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.sql_text import STATEMENTS

MINUTE = 60_000


def keys(board):
    return [key for (key,) in board.sql("SELECT key FROM llm_jobs ORDER BY id")]


def fire(board):
    return board.move(schedules.fire_due, board.now)


def test_an_occurrence_is_a_job(board):
    made = board.queue.schedule("report", "chat", {"prompt": "p"}, cron="0 9 * * *", tag="daily", priority="user")
    assert (made.next_at > board.now, made.last_at, made.job["tag"]) == (True, None, "daily")
    assert fire(board) == 0
    board.now = made.next_at + 5
    assert fire(board) == 1
    assert fire(board) == 0
    assert keys(board) == [f"schedule:report:{made.next_at}"]
    job = board.queue.get(1)
    assert (job.data, job.row().tag, job.row().priority, job.state) == ({"prompt": "p"}, "daily", 100, "waiting")
    assert job.transitions()[0].actor == "schedule"
    (after,) = board.queue.schedules()
    assert (after.last_at, after.next_at) == (made.next_at, made.next_at + 1440 * MINUTE)


def test_an_interval_keeps_its_grid(board):
    made = board.queue.schedule("tick", "chat", every=60)
    assert made.next_at == board.now + MINUTE
    for late in (5, 700, 40_000):
        board.now = made.next_at + late
        fire(board)
        (made,) = board.queue.schedules()
    assert [int(key.rsplit(":")[-1]) for key in keys(board)] == [made.next_at - i * MINUTE for i in (3, 2, 1)]


@pytest.mark.parametrize(("catch_up", "jobs"), [("latest", 1), ("all", 5)])
def test_what_was_missed(board, catch_up, jobs):
    made = board.queue.schedule("tick", "chat", every=60, catch_up=catch_up)
    board.now = made.next_at + 4 * MINUTE + 1
    assert fire(board) == jobs
    assert keys(board)[-1] == f"schedule:tick:{made.next_at + 4 * MINUTE}"
    assert fire(board) == 0


def test_catching_up_is_done_in_passes(board, monkeypatch):
    monkeypatch.setattr(schedules, "CATCH_UP_LIMIT", 3)
    made = board.queue.schedule("tick", "chat", every=1, catch_up="all")
    board.now = made.next_at + 7_000
    assert [fire(board) for _ in range(4)] == [3, 3, 2, 0]
    assert len(keys(board)) == 8


def test_saying_it_again_changes_what_is_said_and_not_when(board):
    first = board.queue.schedule("s", "chat", {"n": 1}, every=60)
    board.now += 30_000
    second = board.queue.schedule("s", "embed", {"n": 2}, every=60)
    assert (second.next_at, second.job) == (first.next_at, {"type": "embed", "data": {"n": 2}})
    third = board.queue.schedule("s", "embed", every=90)
    assert third.next_at == board.now + 90_000
    assert len(board.queue.schedules()) == 1


def test_resting_and_going_on(board):
    board.queue.schedule("s", "chat", every=60)
    assert board.queue.pause_schedule("s")
    board.now += 10 * MINUTE + 1
    assert fire(board) == 0
    assert board.queue.schedule("s", "chat", every=60).paused_at is not None, "a restarted host does not wake it"
    assert board.queue.resume_schedule("s")
    assert fire(board) == 0, "what was due meanwhile is not made up for"
    board.now += MINUTE
    assert fire(board) == 1
    assert board.queue.unschedule("s")
    assert board.queue.schedules() == []
    assert not board.queue.pause_schedule("s")
    assert not board.queue.resume_schedule("s")
    assert not board.queue.unschedule("s")
    assert len(keys(board)) == 1, "its jobs stay"


def test_a_schedule_made_anew_does_not_add_an_occurrence_again(board):
    made = board.queue.schedule("s", "chat", cron="*/5 * * * *")
    board.now = made.next_at
    fire(board)
    board.queue.unschedule("s")
    board.now -= 1
    board.queue.schedule("s", "chat", cron="*/5 * * * *")
    board.now += 1
    fire(board)
    assert len(keys(board)) == 1


def test_a_unique_schedule_lets_occurrences_go_while_one_is_live(board):
    board.queue.schedule("s", "chat", every=60, unique="one-report")
    for _ in range(3):
        board.now += MINUTE
        fire(board)
    assert len(keys(board)) == 1
    board.queue.cancel(1)
    board.now += MINUTE
    fire(board)
    assert len(keys(board)) == 2


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({}, "cron"),
        ({"cron": "* * * * *", "every": 5}, "cron"),
        ({"cron": "x"}, "cron"),
        ({"every": 0.5}, "every"),
        ({"cron": "* * * * *", "timezone": "Mars/Base"}, "timezone"),
        ({"every": 5, "catch_up": "some"}, "catch_up"),
        ({"every": 5, "key": "k"}, "key"),
        ({"every": 5, "delay": 1}, "delay"),
        ({"every": 5, "debounce": ("k", 1)}, "debounce"),
        ({"every": 5, "priority": "high"}, "priority"),
        ({"every": 5, "colour": "red"}, "colour"),
        ({"every": 5, "name": "a|b"}, "name"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_by_field(board, said, field):
    said = {"name": "s", "type": "chat", **said}
    with pytest.raises(InvalidJobError) as refused:
        board.queue.schedule(**said)
    assert refused.value.field == field
    assert board.queue.schedules() == []


def test_a_schedule_that_cannot_be_read_is_paused_and_in_nobodys_way(board):
    board.queue.schedule("good", "chat", every=60)
    rows = [
        ("zone", "cron, timezone, job", "'* * * * *', 'Mars/Base', '{\"type\":\"chat\"}'"),
        ("cron", "cron, job", "'every day', '{\"type\":\"chat\"}'"),
        ("type", "every_ms, job", "1000, '{}'"),
        ("list", "every_ms, job", "1000, '[1]'"),
    ]
    for name, columns, values in rows:
        board.sql(f"INSERT INTO llm_schedules (name, next_at, {columns}) VALUES ('{name}', 1, {values})")
    board.move(schedules.rearm, board.now)
    board.now += MINUTE
    assert fire(board) == 1
    problems = {s.name: s.problem for s in board.queue.schedules()}
    assert problems.pop("good") is None
    assert all(problems.values()), problems
    assert fire(board) == 0
    repaired = board.queue.schedule("cron", "chat", cron="0 9 * * *")
    assert (repaired.problem, repaired.paused_at) == (None, None)


def test_a_clock_that_ran_ahead_does_not_silence_a_schedule(board):
    made = board.queue.schedule("s", "chat", cron="0 9 * * *")
    right = board.now
    board.now += 400 * 1440 * MINUTE
    fire(board)
    board.now = right
    assert board.move(schedules.rearm, board.now) == 1
    board.now = made.next_at
    assert fire(board) == 1
    assert keys(board)[-1] == f"schedule:s:{made.next_at}"
    assert board.move(schedules.rearm, board.now) == 0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    cron=st.sampled_from([None, "*/5 * * * *", "30 2 * * *"]),
    catch_up=st.sampled_from(["latest", "all"]),
    steps=st.lists(st.integers(-90 * MINUTE, 120 * MINUTE), max_size=30),
    begin=st.sampled_from([1_774_700_000_000, 1_792_830_000_000, 1_800_000_000_000]),
)
@example(cron="30 2 * * *", catch_up="all", begin=1_792_830_000_000, steps=[90 * MINUTE] * 30)
def test_whatever_the_clock_does_an_occurrence_is_one_job_and_none_is_missed(cron, catch_up, steps, begin):
    database = open_database("sqlite://")
    queue = JobQueue(database, clock=lambda: begin)
    every = None if cron else 300
    queue.schedule("s", "chat", cron=cron, every=every, timezone="Europe/Berlin", catch_up=catch_up)
    connection = database.connect()
    now = seen = begin
    due = set()
    rhythm = schedules._rhythm(queue.schedules()[0])
    anchor = queue.schedules()[0].next_at
    for step in steps:
        now = max(begin, now + step)
        with connection.write():
            if now < seen:
                schedules.rearm(connection, now)
            was = queue.schedules()[0].next_at
            while schedules.fire_due(connection, now):
                pass
        if was <= now:
            at = was if catch_up == "all" else rhythm.latest(was, now)
            while at <= now:
                due.add(at)
                at = rhythm.following(at, anchor)
        seen = now
        assert queue.schedules()[0].next_at == rhythm.following(now, anchor)
    found = [int(key.split(":")[-1]) for (key,) in connection.script("SELECT key FROM llm_jobs")]
    assert len(found) == len(set(found))
    assert set(found) == due
    queue.close()
    database.close()


def _fire_in_a_race(path, barrier, now):
    database = open_database(f"sqlite:///{path}")
    with database.connect() as connection:
        barrier.wait()
        for at in range(now, now + 40 * MINUTE, 15_000):
            with connection.write():
                schedules.fire_due(connection, at)
    database.close()


def test_two_workers_that_race_add_each_occurrence_once(board, path, spawn):
    for number in range(5):
        board.queue.schedule(f"s{number}", "chat", every=60, catch_up="all")
    barrier = spawn.Barrier(2)
    workers = [spawn.Process(target=_fire_in_a_race, args=(path, barrier, board.now)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    found = keys(board)
    assert len(found) == len(set(found)) == 5 * 39
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_looking_for_what_is_due_reads_the_index(board):
    plan = board.c._execute("EXPLAIN QUERY PLAN " + STATEMENTS["schedules.DUE"], {"now": 1, "limit": 1}).fetchall()
    assert [row[3] for row in plan] == ["SEARCH llm_schedules USING INDEX llm_schedules_due (next_at<?)"]
