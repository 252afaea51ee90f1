"""The log as a feed: nothing missed, nothing twice, whoever writes at the same time and wherever one left off."""

import logging
import queue as stdlib_queue
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from callboard.persistence import events, job_store
from callboard.persistence.engine import open_database
from callboard.persistence.errors import DatabaseBusyError
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.lifecycle import JobState

WRITER = """
import sys
from callboard import JobQueue
with JobQueue(sys.argv[1], synchronous="NORMAL") as queue:
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(int(sys.argv[2])):
        if n % 3 == 0:
            queue.add_many([{"type": sys.argv[3]}] * 4)
        job = queue.add(sys.argv[3])
        job.cancel()
"""


@pytest.fixture
def host(path, empty_board):
    path.write_bytes(empty_board.read_bytes())
    with JobQueue(path, synchronous="NORMAL", poll_interval=0.002) as queue:
        yield queue


def told(event):
    return event.job_id, event.from_state, event.to_state


def test_every_transition_is_an_event_in_the_order_of_commits(board):
    first = board.started()
    board.move(job_store.complete, first.lease, "done", board.now + 7, "runner-1")
    second = board.queue.add("embed")
    second.cancel("no longer wanted")
    found = list(board.queue.events())
    assert [told(event) for event in found] == [
        (1, None, "waiting"),
        (1, "waiting", "active"),
        (1, "active", "completed"),
        (2, None, "waiting"),
        (2, "waiting", "cancelled"),
    ]
    assert [event.cursor for event in found] == sorted({event.cursor for event in found})
    done = found[2]
    assert (done.type, done.at, done.epoch, done.attempt, done.actor) == ("chat", board.now + 7, 1, 1, "runner-1")
    assert found[4].reason == "no longer wanted"
    assert board.queue.cursor() == found[-1].cursor


def test_a_reader_that_comes_back_with_its_cursor_misses_nothing_and_sees_nothing_twice(board):
    board.queue.add_many([{"type": "chat"}] * 20)
    whole = list(board.queue.events())
    seen = []
    cursor = None
    while True:
        stream = board.queue.events(cursor)
        part = [event for _, event in zip(range(3), stream, strict=False)]
        if not part:
            break
        seen += part
        assert stream.cursor == part[-1].cursor
        cursor = part[-1].cursor
        board.queue.get(part[0].job_id).cancel()  # more happens while it is away
    assert [event.cursor for event in seen[:20]] == [event.cursor for event in whole]
    assert seen == list(board.queue.events())


def test_filters_pass_what_they_name_and_the_cursor_goes_on_past_the_rest(board, monkeypatch):
    monkeypatch.setattr(events, "PAGE_ROWS", 4)
    board.queue.add_many([{"type": "noise"}] * 11)
    wanted = board.queue.add("chat")
    board.queue.add_many([{"type": "noise"}] * 11)
    wanted.cancel()
    stream = board.queue.events(types=["chat"])
    assert [told(event) for event in stream] == [
        (wanted.id, None, "waiting"),
        (wanted.id, "waiting", "cancelled"),
    ]
    assert stream.cursor == board.queue.cursor()
    nothing = board.queue.events(types="absent")
    assert list(nothing) == []
    assert nothing.cursor == board.queue.cursor()  # who comes back with it reads none of the noise again
    assert [event.job_id for event in board.queue.events(states=["cancelled"])] == [wanted.id]
    assert len(list(board.queue.events(job=wanted.id))) == 2
    assert len(list(board.queue.events(job=wanted.id, states=JobState.WAITING))) == 1
    with pytest.raises(ValueError, match="done"):
        board.queue.events(states=["done"])


def test_between_two_events_nothing_is_held(host):
    """A reader that never comes back keeps nobody from folding the log file: a held snapshot would."""
    host.add_many([{"type": "chat"}] * 10)
    stream = host.events()
    next(stream)
    with open_database(f"sqlite:///{host.name}").connect() as c:
        c.script("UPDATE llm_jobs SET tag = 'x'")
        busy, pages, folded = c.script("PRAGMA wal_checkpoint(TRUNCATE)")[0]
    assert (busy, pages, folded) == (0, 0, 0)
    assert len(list(stream)) == 9


def test_following_waits_for_what_comes_and_ends_when_told(host):
    host.add("chat")
    stream = host.events(follow=True)
    got: stdlib_queue.SimpleQueue = stdlib_queue.SimpleQueue()

    def read():
        for event in stream:
            got.put(event)
        got.put(None)

    reader = threading.Thread(target=read)
    reader.start()
    assert got.get(timeout=10).job_id == 1
    with JobQueue(host.name) as other:
        other.add("chat")
    assert got.get(timeout=10).job_id == 2
    stream.close()
    assert got.get(timeout=10) is None
    reader.join(10)
    assert not reader.is_alive()


def test_following_ends_after_its_time(path):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    with JobQueue(path, sleep=sleep, monotonic=lambda: now[0], poll_interval=0.5) as queue:
        queue.add("chat")
        assert len(list(queue.events(follow=True, timeout=3))) == 1
    assert 3 <= now[0] <= 4


def test_concurrent_writer_processes_and_two_readers(host):
    """Ids are given under the write lock, so a lower one is never seen after a higher: a reader by cursor may trust it."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, host.name, "60", f"type-{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    whole, parts = [], []
    expected = 3 * (60 * 2 + 20 * 4)
    deadline = time.monotonic() + 60
    follower = host.events(follow=True, timeout=60)
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    cursor = 0
    while len(whole) < expected and time.monotonic() < deadline:
        whole.append(next(follower))
        if len(whole) % 7 == 0:  # a subscriber that starts anew all the time
            part = host.event_page(cursor)
            parts += part
            cursor = part[-1].cursor if part else cursor
    for writer in writers:
        writer.communicate(timeout=30)
        assert writer.returncode == 0
    parts += list(host.events(cursor))
    assert len(whole) == expected
    settled = list(host.events())
    assert whole == settled
    assert parts == settled
    assert Counter(event.type for event in settled) == {f"type-{n}": expected // 3 for n in range(3)}


def test_a_cursor_is_never_given_again(board):
    board.queue.add("chat").cancel()
    cursor = board.queue.cursor()
    board.sql("DELETE FROM llm_jobs")
    assert list(board.queue.events()) == []
    board.queue.add("chat")
    (event,) = board.queue.events(cursor)
    assert event.cursor > cursor


def test_callbacks_get_every_event_and_one_that_raises_stops_nobody(host, caplog):
    host.add("before")
    got: stdlib_queue.SimpleQueue = stdlib_queue.SimpleQueue()

    def careless(event):
        raise ZeroDivisionError(event.job_id)

    with (
        caplog.at_level(logging.ERROR),
        host.on(careless) as broken,
        host.on(got.put, types=["chat"]) as working,
    ):
        ids = [host.add("chat").id for _ in range(3)]
        assert [got.get(timeout=10).job_id for _ in ids] == ids
        last = host.cursor()
        deadline = time.monotonic() + 10
        while (broken.cursor, working.cursor) != (last, last):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert broken.alive
        assert working.alive
    assert not broken.alive
    assert not working.alive
    assert got.empty()  # nothing from before the subscription
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError] * 3
    host.add("chat")
    assert [event.job_id for event in host.events(working.cursor)] == [ids[-1] + 1]


def test_a_callback_may_begin_at_a_cursor_and_stop_itself(host):
    host.add_many([{"type": "chat"}] * 5)
    stopped = threading.Event()
    seen = []

    def once(event):
        seen.append(event.cursor)
        subscription.stop()
        stopped.set()

    gate = threading.Event()

    def begin(event):
        gate.wait(10)
        once(event)

    subscription = host.on(begin, after=2)
    gate.set()
    assert stopped.wait(10)
    subscription.stop()
    assert seen == [3]
    assert subscription.cursor == 3


def test_a_subscriber_survives_a_database_that_cannot_be_read_for_a_while(host, monkeypatch, caplog):
    got: stdlib_queue.SimpleQueue = stdlib_queue.SimpleQueue()
    failed = threading.Event()
    real = host.change_mark

    def refused():
        failed.set()
        raise DatabaseBusyError("held by another program")

    with host.on(got.put) as subscription:
        monkeypatch.setattr(subscription._stopped, "wait", lambda _: None)
        monkeypatch.setattr(host, "change_mark", refused)
        assert failed.wait(10)
        monkeypatch.setattr(host, "change_mark", real)
        job = host.add("chat")
        assert got.get(timeout=10).job_id == job.id
    assert "tries again" in caplog.text


def test_closing_the_queue_ends_its_subscriptions(path):
    queue = JobQueue(path, poll_interval=0.002)
    subscription = queue.on(print)
    queue.close()
    subscription._thread.join(10)
    assert not subscription.alive


def test_pages_are_read_by_the_logs_own_id(board):
    for name, more in (("PAGE", {}), ("PAGE_OF_JOB", {"wanted": 1})):
        from callboard.persistence.sql import Prepared

        sql = Prepared(f"events.{name}").sql
        plan = [
            row[3] for row in board.c.run(Prepared.of(f"EXPLAIN QUERY PLAN {sql}"), {"after": 5, "page": 10, **more})
        ]
        assert all(step.startswith("SEARCH") for step in plan), plan
