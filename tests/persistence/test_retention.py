"""Old jobs go, whole and in small steps; what is live, what is waited on and what was spent stay."""

import pytest

from callboard.persistence import job_store, ledger, retention
from callboard.persistence.errors import InvalidJobError
from callboard.persistence.model import CallIntent, CallOutcome
from callboard.persistence.sql_text import STATEMENTS

DAY = 86_400_000
USAGE = {"input_uncached": 3, "cache_read": 0, "cache_write": 1, "output_visible": 4, "output_reasoning": 0}


def spent(board, job, cost):
    """A call of a job that completed."""
    intent = CallIntent(
        step="main", fingerprint="f", provider="p", model="m", limit_key="p/m", reserved_tokens=9, reserved_cost=None
    )
    call = board.move(ledger.record_intent, job.lease, intent, board.now)
    outcome = CallOutcome(state="completed", completion={"text": "t"}, usage=USAGE, cost=cost)
    board.move(ledger.record_outcome, job.lease, call, outcome, board.now)


def ended(board, cost=7, **fields):
    """A job with a bit of everything that completed now."""
    job = board.started(**fields)
    spent(board, job, cost)
    board.move(ledger.save_step, job.lease, "plan", [1], board.now)
    board.move(job_store.append_chunks, job.lease, [(1, "main", "text")], board.now)
    board.move(job_store.complete, job.lease, "done", board.now, "r")
    return job.id


def ids(board):
    return [i for (i,) in board.sql("SELECT id FROM llm_jobs ORDER BY id")]


def test_what_ended_long_ago_goes_whole(board):
    old = ended(board)
    live = board.add()
    board.now += 31 * DAY
    new = ended(board, kind="chat", priority=5)
    assert board.move(retention.prune, board.now - 30 * DAY) == 1
    assert ids(board) == [live, new]
    for table in ("job_data", "job_results", "job_transitions", "job_chunks", "steps", "calls"):
        assert board.sql(f"SELECT count(*) FROM llm_{table} WHERE job_id = {old}") == [(0,)], table
        assert board.sql(f"SELECT count(*) FROM llm_{table} WHERE job_id = {new}") != [(0,)], table
    assert board.sql("SELECT count(*) FROM llm_call_completions") == [(1,)]
    assert board.move(retention.prune, board.now - 30 * DAY) == 0
    assert board.queue.counts()["completed"] == 1
    assert board.queue.check() == []


def test_what_was_spent_stays_in_the_totals(board):
    for cost, tag in ((5, "a"), (None, "a"), (7, None)):
        ended(board, cost, tag=tag)
    board.now += DAY
    ended(board, 11, tag="a")
    everything, of_a = board.queue.usage(), board.queue.usage("a")
    assert (everything.calls, everything.cost, everything.unpriced, of_a.cost) == (4, 23, 1, 16)
    assert board.queue.clean(older_than=0.0) == 3, "one ended this very moment"
    assert (board.queue.usage(), board.queue.usage("a")) == (everything, of_a)
    board.now += 1
    assert board.queue.clean(older_than=0.0) == 1
    assert (board.queue.usage(), board.queue.usage("a")) == (everything, of_a)
    assert board.sql("SELECT tag, count(*) FROM llm_usage_deleted GROUP BY tag") == [("", 1), ("a", 2)]


def test_nothing_live_goes_and_nothing_that_a_live_job_waits_on(board):
    first = ended(board)
    other = ended(board)
    waiting = board.queue.add("merge", needs=[first]).id
    still = board.add(delay=1e9)
    board.now += 100 * DAY
    assert board.move(retention.prune, board.now) == 1
    assert ids(board) == [first, waiting, still]
    assert other not in ids(board)
    board.queue.cancel(waiting)
    board.now += 1
    assert board.move(retention.prune, board.now) == 2
    assert ids(board) == [still]


def test_a_job_that_came_back_to_life_in_between_is_kept(board):
    one, two = board.add(), board.add()
    board.queue.cancel(one)
    board.queue.cancel(two)
    found, _ = retention.ended(board.c, board.now + 1)
    assert found == [one, two]
    board.queue.retry(one)
    assert board.move(retention.delete, found) == 1
    assert ids(board) == [one]


def test_a_step_is_bounded_by_jobs_and_by_rows(board, monkeypatch):
    monkeypatch.setattr(retention, "STEP_JOBS", 3)
    for job_id in board.queue.add_many([{"type": "chat"}] * 8):
        board.queue.cancel(job_id)
    assert board.move(retention.prune, board.now + 1) == 3
    job = board.started()
    board.move(job_store.append_chunks, job.lease, [(i, "main", "t") for i in range(3000)], board.now)
    board.move(job_store.complete, job.lease, 1, board.now, "r")
    assert [board.move(retention.prune, board.now + 1) for _ in range(5)] == [3, 2, 1, 0, 0], "the big one by itself"


def test_cleaning_by_hand_goes_by_state_and_age(board, monkeypatch):
    monkeypatch.setattr(retention, "STEP_JOBS", 2)
    done = [ended(board) for _ in range(3)]
    dropped = board.queue.add_many([{"type": "chat"}] * 5)
    for job_id in dropped:
        board.queue.cancel(job_id)
    board.now += 10_000
    late = board.add()
    board.queue.cancel(late)
    told = []
    assert board.queue.clean(state="cancelled", older_than=10, progress=told.append) == 0
    board.now += 1
    assert board.queue.clean(state="cancelled", older_than=10, progress=told.append) == 5
    assert told == [2, 4, 5]
    assert ids(board) == [*done, late]
    for state in ("active", "waiting", "nonsense"):
        with pytest.raises(InvalidJobError, match="state"):
            board.queue.clean(state=state, older_than=0)
    with pytest.raises(InvalidJobError, match="older_than"):
        board.queue.clean(older_than=-1)


def test_a_deleted_jobs_id_is_not_given_again_and_its_key_is_free(board):
    old = board.add(key="k")
    board.queue.cancel(old)
    board.now += 1
    board.queue.clean(older_than=0)
    assert board.add(key="k") > old


def test_what_ended_is_found_by_index(board):
    params = {"before": 1, "at": -1, "job_id": -1, "states": "[]", "limit": 1}
    plan = [
        row[3] for row in board.c._execute("EXPLAIN QUERY PLAN " + STATEMENTS["retention.ENDED"], params).fetchall()
    ]
    assert plan[0].startswith("SEARCH llm_jobs USING INDEX llm_jobs_ended (finished_at>"), plan
    assert not any("SCAN" in line and "json_each" not in line for line in plan), plan
    assert not any("TEMP B-TREE" in line for line in plan), plan
