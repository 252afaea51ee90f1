"""One key one job, one name one live job, the last word, the first word: also when processes race."""

import itertools
import sqlite3

import pytest

from callboard.persistence import claims, errors, job_store
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.sql_text import STATEMENTS


def states(board):
    return dict(board.sql("SELECT id, state FROM llm_jobs"))


def test_a_unique_job_is_one_while_it_is_live(board):
    first = board.add(unique="n")
    assert board.add(unique="n") == first, "it waits"
    (claimed,) = board.claim()
    assert board.add(unique="n") == first, "it runs"
    board.move(job_store.retry_later, claimed.lease, {"class": "x"}, board.now + 5, board.now, "r", "again")
    assert board.add(unique="n") == first, "it is delayed"
    assert board.add(unique="other") != first
    board.queue.cancel(first)
    second = board.add(unique="n")
    assert second != first, "it has ended"
    assert states(board)[second] == "waiting"


def test_a_key_goes_before_a_unique_name(board):
    first = board.add(key="k", unique="n")
    other = board.add(unique="m")
    assert board.add(key="k", unique="m") == first
    assert board.add(key="new", unique="m") == other
    board.queue.cancel(first)
    assert board.add(key="k", unique="n") == first, "a key is for ever"


def test_a_debounced_job_is_the_last_word(board):
    first = board.add(data={"n": 1}, debounce=("k", 10), priority=1)
    board.now += 9_000
    assert board.add("embed", data={"n": 2}, debounce=("k", 10), priority=7, tag="t") == first
    job = board.queue.get(first)
    assert (job.data, job.row().type, job.row().priority, job.row().tag) == ({"n": 2}, "embed", 7, "t")
    assert job.row().run_at == board.now + 10_000, "its time is pushed back"
    assert board.queue.counts()["delayed"] == 1
    assert board.queue.check() == []
    board.now += 10_000
    board.move(claims.promote_due, board.now, 10)
    second = board.add(data={"n": 3}, debounce=("k", 10))
    assert second != first, "it was due"
    assert states(board) == {first: "waiting", second: "delayed"}
    assert board.add(data={"n": 4}, debounce=("k", 10)) == second
    assert [t.to_state for t in board.queue.transitions(first)] == ["delayed", "waiting"]


def test_a_debounced_job_that_has_begun_is_not_replaced(board):
    first = board.add(data={"n": 1}, debounce=("k", 1))
    board.queue.promote(first)
    (claimed,) = board.claim()
    board.move(job_store.retry_later, claimed.lease, {"class": "x"}, board.now + 5, board.now, "r", "again")
    second = board.add(data={"n": 2}, debounce=("k", 1))
    assert second != first
    assert board.queue.get(first).data == {"n": 1}
    assert states(board) == {first: "delayed", second: "delayed"}


def test_a_throttled_job_is_the_first_word(board):
    first = board.add(data={"n": 1}, throttle=("k", 10))
    board.now += 9_999
    assert board.add(data={"n": 2}, throttle=("k", 10)) == first
    board.queue.cancel(first)
    assert board.add(throttle=("k", 10)) == first, "whatever its state"
    board.now += 1
    second = board.add(throttle=("k", 10))
    assert second != first
    board.now += 10_000
    third = board.add(throttle=("k", 10))
    assert states(board) == {first: "cancelled", second: "waiting", third: "waiting"}, "a window, not a lock"


def test_a_throttle_outlives_a_clock_that_is_set_back(board):
    first = board.add(throttle=("k", 10))
    board.now -= 5_000
    assert board.add(throttle=("k", 10)) == first
    board.now -= 3_600_000
    assert board.add(throttle=("k", 10)) != first


def test_the_three_kinds_of_name_never_meet(board):
    ids = {board.add(unique="k"), board.add(debounce=("k", 1)), board.add(throttle=("k", 1))}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"unique": "a", "throttle": ("b", 1)}, "throttle"),
        ({"unique": "a", "debounce": ("b", 1)}, "debounce"),
        ({"unique": ""}, "unique"),
        ({"unique": "debounce:x"}, "unique"),
        ({"debounce": "k"}, "debounce"),
        ({"debounce": ("k", 0)}, "debounce"),
        ({"debounce": ("k", 1), "key": "x"}, "debounce"),
        ({"debounce": ("k", 1), "delay": 1}, "debounce"),
        ({"throttle": ("k", "soon")}, "throttle"),
        ({"throttle": (7, 1)}, "throttle"),
        ({"throttle": ("k" * 200, 1)}, "throttle"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(board, fields, field):
    with pytest.raises(errors.InvalidJobError) as refused:
        board.add(**fields)
    assert refused.value.field == field


def test_names_mean_the_same_in_bulk(board):
    rows = [
        {"type": "chat"},
        {"type": "chat", "unique": "u"},
        {"type": "chat", "key": "k", "unique": "u"},
        {"type": "chat", "unique": "u"},
        {"type": "chat", "key": "k"},
        {"type": "chat", "debounce": ("d", 5), "data": {"n": 1}},
        {"type": "chat", "throttle": ("t", 5)},
        {"type": "chat"},
        {"type": "chat", "debounce": ("d", 5), "data": {"n": 2}},
        {"type": "chat", "throttle": ("t", 5)},
    ]
    ids = board.queue.add_many(rows)
    a, u, u2, u3, k, d, t, b, d2, t2 = ids
    assert (u2, u3, d2, t2) == (u, u, d, t)
    assert len({a, u, k, d, t, b}) == 6
    assert sorted(states(board)) == sorted({a, u, k, d, t, b})
    assert board.queue.get(d).data == {"n": 2}
    assert board.queue.add_many(rows)[4] == k


def test_bulk_tells_its_progress(board):
    told = []
    board.queue.add_many([{"type": "chat"}] * 25, chunk=10, progress=lambda *args: told.append(args))
    assert told == [(10, 25), (20, 25), (25, 25)]
    told.clear()
    board.queue.add_many(({"type": "chat"} for _ in range(3)), progress=lambda *args: told.append(args))
    assert told == [(3, None)]


def test_bulk_lets_others_write_where_the_machine_is_slow(board):
    ticks = itertools.count()
    told, rests = [], []
    board.queue.monotonic = lambda: next(ticks) * 0.02
    board.queue.sleep = rests.append
    ids = board.queue.add_many([{"type": "chat"}] * 1000, progress=lambda done, _: told.append(done))
    assert told == [200, 400, 600, 800, 1000]
    assert len(rests) == 4
    assert len(set(ids)) == 1000


def _race(path, barrier, results, name):
    with JobQueue(path) as queue:
        barrier.wait()
        ids = [
            (
                queue.add("chat", unique=f"u{i}").id,
                queue.add("chat", {"by": name}, debounce=(f"d{i}", 3600)).id,
                queue.add("chat", throttle=(f"t{i}", 3600)).id,
                queue.add("chat", key=f"k{i}").id,
            )
            for i in range(25)
        ]
        results.put(ids)


def test_processes_that_race_come_to_the_same_jobs(path, spawn):
    JobQueue(path).counts()
    barrier, results = spawn.Barrier(2), spawn.Queue()
    racers = [spawn.Process(target=_race, args=(path, barrier, results, name)) for name in ("a", "b")]
    for racer in racers:
        racer.start()
    first, second = results.get(timeout=60), results.get(timeout=60)
    for racer in racers:
        racer.join(60)
    assert first == second
    with JobQueue(path) as queue:
        assert sum(queue.counts().values()) == 100


def test_a_job_that_lost_its_unique_name_is_not_sent_back(board):
    first = board.add(unique="n")
    board.queue.cancel(first)
    second = board.add(unique="n")
    assert not board.queue.retry(first)
    board.queue.cancel(second)
    assert board.queue.retry(first)
    assert board.add(unique="n") == first


def test_a_throttled_job_is_sent_back_beside_a_newer_one(board):
    first = board.add(throttle=("k", 1))
    board.queue.cancel(first)
    board.now += 1000
    second = board.add(throttle=("k", 1))
    assert board.queue.retry(first)
    assert states(board) == {first: "waiting", second: "waiting"}
    assert board.add(throttle=("k", 1)) == second


def test_plain_sql_cannot_break_a_unique_name(board, path):
    board.add(unique="n")
    raw = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute("INSERT INTO llm_jobs (type, unique_key) VALUES ('chat', 'n')")
    raw.close()


def test_names_are_found_by_index(board):
    for name in ("LIVE", "NEWEST", "PASS_ON"):
        plan = board.c._execute(
            "EXPLAIN QUERY PLAN " + STATEMENTS[f"identity.{name}"], {"unique_key": "n", "held_key": "n"}
        ).fetchall()
        assert all("USING" in row[3] and "INDEX llm_jobs_" in row[3] for row in plan), plan
