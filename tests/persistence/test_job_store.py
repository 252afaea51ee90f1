"""Every write of a worker is fenced, and does what it says when its lease stands."""

import json

import pytest

from callboard.persistence import claims, job_store, ledger
from callboard.persistence.lifecycle import JobState
from callboard.persistence.model import CallIntent, CallOutcome, Lease

INTENT = CallIntent(
    step="main", fingerprint="f", provider="p", model="m", limit_key="p/m", reserved_tokens=100, reserved_cost=None
)

WRITES = {
    "complete": lambda c, lease, now: job_store.complete(c, lease, {}, now, "r"),
    "fail": lambda c, lease, now: job_store.fail(c, lease, {}, now, "r", "why"),
    "retry_later": lambda c, lease, now: job_store.retry_later(c, lease, {}, now + 5, now, "r", "why"),
    "release": lambda c, lease, now: job_store.release(c, lease, cause="handback", reason="why", now=now, actor="r"),
    "release a loss": lambda c, lease, now: job_store.release(c, lease, cause="loss", reason="why", now=now, actor="r"),
    "append_chunks": lambda c, lease, now: job_store.append_chunks(c, lease, [(1, "main", "x")], now),
    "set_progress": lambda c, lease, now: job_store.set_progress(c, lease, 5, "x", now),
    "record_intent": lambda c, lease, now: ledger.record_intent(c, lease, INTENT, now),
    "save_step": lambda c, lease, now: ledger.save_step(c, lease, "s", 1, now),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("lost_by", ["a later claim", "an earlier epoch", "cancel", "completion", "another job"])
def test_a_lost_lease_changes_nothing(board, write, lost_by):
    lease = board.started().lease
    match lost_by:
        case "a later claim":
            board.move(job_store.release, lease, cause="handback", reason="r", now=board.now, actor="x")
            board.claim()
        case "an earlier epoch":
            lease = Lease(lease.job_id, lease.epoch - 1)
        case "cancel":
            board.queue.cancel(lease.job_id)
        case "completion":
            board.move(job_store.complete, lease, {}, board.now, "x")
        case _:
            lease = Lease(lease.job_id + 1, lease.epoch)
    before = board.snapshot()
    assert not board.move(WRITES[write], lease, board.now + 1)
    assert board.snapshot() == before


@pytest.mark.parametrize("write", WRITES)
def test_a_standing_lease_may_write(board, write):
    assert board.move(WRITES[write], board.started().lease, board.now + 1)


def test_complete_keeps_the_result_and_says_who(board):
    job = board.started()
    board.now += 50
    assert board.move(job_store.complete, job.lease, {"text": "done", "big": 2**80}, board.now, "runner-1")
    handle = board.queue.get(job.id)
    assert handle.result == {"text": "done", "big": 2**80}
    row = handle.row()
    assert (row.state, row.progress, row.finished_at, row.lease_epoch) == (
        JobState.COMPLETED,
        100,
        board.now,
        job.lease.epoch,
    )
    last = handle.transitions()[-1]
    assert (last.actor, last.to_state, last.at, last.epoch) == (
        "runner-1",
        JobState.COMPLETED,
        board.now,
        job.lease.epoch,
    )


def test_failures_are_counted_and_the_last_attempt_fails_for_good(board):
    job = board.started(max_attempts=2)
    assert (
        board.move(job_store.retry_later, job.lease, {"class": "server"}, board.now + 100, board.now, "r", "503")
        == JobState.DELAYED
    )
    handle = board.queue.get(job.id)
    assert (handle.row().run_at, handle.row().failures, handle.error, handle.row().reason) == (
        board.now + 100,
        1,
        {"class": "server"},
        "503",
    )
    board.now += 100
    assert board.move(claims.promote_due, board.now, 10) == 1
    (again,) = board.claim()
    assert again.attempt == 2
    assert (
        board.move(job_store.retry_later, again.lease, {"class": "x"}, board.now + 100, board.now, "r", "again")
        == JobState.FAILED
    )
    assert (handle.state, handle.error, handle.row().finished_at) == (JobState.FAILED, {"class": "x"}, board.now)


def test_completing_after_a_failure_leaves_no_error(board):
    job = board.started()
    board.move(job_store.retry_later, job.lease, {"class": "x"}, board.now + 1, board.now, "r", "why")
    board.now += 1
    board.move(claims.promote_due, board.now, 10)
    (again,) = board.claim()
    board.move(job_store.complete, again.lease, "ok", board.now, "r")
    assert board.queue.outcome(job.id) == ("ok", None)


@pytest.mark.parametrize(("cause", "losses", "deferrals"), [("loss", 1, 0), ("deferral", 0, 1), ("handback", 0, 0)])
def test_three_causes_three_counters(board, cause, losses, deferrals):
    job = board.started()
    state = board.move(
        job_store.release,
        job.lease,
        cause=cause,
        reason="r",
        now=board.now,
        actor="x",
        held_by="p/m",
        held_until=board.now + 9,
    )
    row = board.queue.row(job.id)
    assert state == row.state == JobState.WAITING
    assert (row.losses, row.deferrals, row.failures) == (losses, deferrals, 0)
    assert (row.held_by, row.held_until, row.lease_epoch) == ("p/m", board.now + 9, job.lease.epoch + 1)


def test_an_open_call_becomes_unknown_when_its_job_leaves(board):
    job = board.started()
    call = board.move(ledger.record_intent, job.lease, INTENT, board.now)
    board.move(job_store.release, job.lease, cause="loss", reason="r", now=board.now, actor="x")
    (found,) = board.queue.calls(job.id)
    assert (found.id, found.state) == (call, "unknown")
    (again,) = board.claim()
    assert again.memo is not None
    assert again.memo.unknown == {"main"}
    # Whoever knows better says so, even though its lease is lost; and then the step is done.
    outcome = CallOutcome(state="completed", completion={"text": "late"})
    assert board.move(ledger.record_outcome, job.lease, call, outcome, board.now) is False
    memo = ledger.memo(board.c, [job.id])[job.id]
    assert (memo.unknown, memo.completions) == (frozenset(), {"main": {"text": "late"}})


@pytest.mark.parametrize("cause", ["loss", "handback", "deferral"])
def test_a_job_that_asks_for_it_is_parked_when_a_call_is_unknown(board, cause):
    job = board.started(options={"on_unknown": "park"})
    board.move(ledger.record_intent, job.lease, INTENT, board.now)
    assert (
        board.move(job_store.release, job.lease, cause=cause, reason="r", now=board.now, actor="x") == JobState.FAILED
    )
    handle = board.queue.get(job.id)
    assert handle.error["class"] == "unknown_outcome"
    assert handle.row().failures == 0
    assert handle.retry()
    assert board.claim()[0].memo.unknown == {"main"}


def test_without_an_open_call_nothing_is_parked(board):
    job = board.started(options={"on_unknown": "park"})
    call = board.move(ledger.record_intent, job.lease, INTENT, board.now)
    board.move(ledger.record_outcome, job.lease, call, CallOutcome(state="failed"), board.now)
    assert (
        board.move(job_store.release, job.lease, cause="loss", reason="r", now=board.now, actor="x") == JobState.WAITING
    )


def test_chunks_may_be_told_twice_and_hold_any_text(board):
    job = board.started()
    pieces = [(1, "main", "a\ud83d"), (2, "main", "é🎭")]
    assert board.move(job_store.append_chunks, job.lease, pieces, board.now)
    assert board.move(job_store.append_chunks, job.lease, [*pieces, (3, "main", "!")], board.now)
    assert board.move(job_store.append_chunks, job.lease, [], board.now)
    assert [chunk.text for chunk in board.queue.chunks(job.id)] == ["a?", "é🎭", "!"]


def test_progress_is_monotonic_within_an_attempt_and_clamped(board):
    job = board.started()
    seen = []
    for percent in (10, 5, 300, -4):
        board.move(job_store.set_progress, job.lease, percent, None, board.now)
        seen.append(board.queue.row(job.id).progress)
    assert seen == [10, 10, 100, 100]
    board.move(job_store.release, job.lease, cause="handback", reason="r", now=board.now, actor="x")
    board.claim()
    assert board.queue.row(job.id).progress == 0


def test_a_result_with_half_a_surrogate_pair_is_kept_exactly(board):
    job = board.started()
    board.move(job_store.complete, job.lease, {"text": "cut \ud83d"}, board.now, "r")
    assert board.queue.get(job.id).result == {"text": "cut \ud83d"}
    assert json.loads(board.sql("SELECT result FROM llm_job_results")[0][0]) == {"text": "cut \ud83d"}


def test_a_transaction_is_all_or_nothing(board):
    job = board.started()
    before = board.snapshot()

    def breaks(c):
        job_store.complete(c, job.lease, {}, board.now, "r")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        board.move(breaks)
    assert board.snapshot() == before
    assert not board.c.writing


def test_only_our_own_tables_are_touched(board):
    touched = set()

    def sees(action, table, *_):
        if action in {9, 18, 20, 23}:  # delete, insert, read, update
            touched.add(table)
        return 0

    board.c._driver.set_authorizer(sees)
    for write in WRITES.values():
        job = board.started()
        board.move(write, job.lease, board.now)
        board.queue.cancel(job.id)
    board.move(claims.rescue, now=board.now, is_dead=lambda _: True, my_owner="me", limit=9)
    board.move(claims.sweep_orphans, "me", frozenset(), board.now, board.now)
    board.move(claims.expire_unstarted, board.now, 9)
    claims.lanes(board.c)
    board.c._driver.set_authorizer(None)
    in_memory = {"json_each", "lanes", "owners", "lane", "ranked", ""}
    assert {table for table in touched if not table.startswith(("llm_", "sqlite_"))} <= in_memory
    assert "llm_jobs" in touched
