"""What was spent is booked always; a step has one completion for ever."""

import pytest

from callboard.persistence import job_store, ledger
from callboard.persistence.errors import DatabaseRefusedError
from callboard.persistence.model import CallIntent, CallOutcome


def intent(step="main", tokens=100, key="p/m"):
    return CallIntent(
        step=step, fingerprint="f", provider="p", model="m", limit_key=key, reserved_tokens=tokens, reserved_cost=5
    )


def done(text="hi", **more):
    return CallOutcome(
        state="completed", completion={"text": text}, usage={"input_uncached": 7, "output_visible": 3}, cost=42, **more
    )


def again(board, job):
    """Give the job to another worker."""
    board.move(job_store.release, job.lease, cause="handback", reason="r", now=board.now, actor="x")
    return board.claim(owner="worker-b")[0]


def test_a_paid_completion_comes_back_with_the_next_claim(board):
    job = board.started()
    call = board.move(ledger.record_intent, job.lease, intent(), board.now)
    assert board.move(ledger.record_outcome, job.lease, call, done(finish="stop", request_id="r1"), board.now + 9)
    board.move(ledger.save_step, job.lease, "plan", [1, 2], board.now)
    next_job = again(board, job)
    assert next_job.memo.completions == {"main": {"text": "hi"}}
    assert next_job.memo.values == {"plan": [1, 2]}
    (record,) = board.queue.calls(job.id)
    assert (record.state, record.cost, record.input_uncached, record.finish, record.request_id) == (
        "completed",
        42,
        7,
        "stop",
        "r1",
    )


def test_a_zombie_is_booked_and_kept_if_it_is_first(board):
    job = board.started()
    call = board.move(ledger.record_intent, job.lease, intent(), board.now)
    again(board, job)
    assert board.move(ledger.record_outcome, job.lease, call, done("zombie's"), board.now) is False
    assert ledger.memo(board.c, [job.id])[job.id].completions == {"main": {"text": "zombie's"}}


def test_the_second_completion_of_a_step_is_booked_and_not_kept(board):
    job = board.started()
    first = board.move(ledger.record_intent, job.lease, intent(), board.now)
    successor = again(board, job)
    second = board.move(ledger.record_intent, successor.lease, intent(), board.now)
    assert board.move(ledger.record_outcome, successor.lease, second, done("mine"), board.now) is True
    assert board.move(ledger.record_outcome, job.lease, first, done("zombie's"), board.now) is False
    assert [call.state for call in board.queue.calls(job.id)] == ["superseded", "completed"]
    assert ledger.memo(board.c, [job.id])[job.id].completions == {"main": {"text": "mine"}}
    assert ledger.first_completion(board.c, first) == {"text": "mine"}  # what the step goes by
    assert ledger.first_completion(board.c, second) is None
    usage = board.queue.usage()
    assert (usage.calls, usage.cost, usage.input_uncached, usage.output_visible) == (2, 84, 14, 6)


def test_the_index_stands_behind_it(board):
    job = board.started()
    for text in ("a", "b"):
        call = board.move(ledger.record_intent, job.lease, intent(), board.now)
        board.move(ledger.record_outcome, job.lease, call, done(text), board.now)
    with pytest.raises(DatabaseRefusedError, match="UNIQUE"):
        board.sql("UPDATE llm_calls SET state = 'completed'")


def test_an_outcome_told_twice_is_booked_once(board):
    job = board.started()
    call = board.move(ledger.record_intent, job.lease, intent(), board.now)
    for text in ("first", "second"):
        board.move(ledger.record_outcome, job.lease, call, done(text), board.now)
    assert board.queue.usage().cost == 42
    assert ledger.memo(board.c, [job.id])[job.id].completions == {"main": {"text": "first"}}


def test_the_first_value_of_a_step_stays(board):
    job = board.started()
    for value in (1, 2):
        assert board.move(ledger.save_step, job.lease, "s", value, board.now)
    assert ledger.memo(board.c, [job.id])[job.id].values == {"s": 1}


def test_an_unknown_price_is_not_zero(board):
    job = board.started(tag="t")
    for step, cost in (("a", None), ("b", None)):
        call = board.move(ledger.record_intent, job.lease, intent(step=step), board.now)
        board.move(
            ledger.record_outcome, job.lease, call, CallOutcome(state="completed", completion={}, cost=cost), board.now
        )
    usage = board.queue.usage("t")
    assert (usage.cost, usage.unpriced, usage.calls) == (None, 2, 2)
    assert board.queue.usage("another").calls == 0
