"""A call that its provider goes on with has one row, whichever attempts followed it."""

import pytest

from callboard.persistence import handles, host_store, job_store, ledger
from callboard.persistence.model import CallIntent, CallOutcome

HANDLE = {"ref": "resp_1"}
LOST = CallOutcome(state="unknown", error={"class": "truncated", "resumable": True}, error_class="truncated")
OVER = CallOutcome(state="unknown", error={"class": "server"}, error_class="server")
DONE = CallOutcome(state="completed", completion={"text": "hi"}, usage={"input_uncached": 7}, cost=42)


def intend(board, job):
    intent = CallIntent(
        step="main", fingerprint="f", provider="p", model="m", limit_key="p/m", reserved_tokens=9, reserved_cost=5
    )
    return board.move(ledger.record_intent, job.lease, intent, board.now)


def held(board, job):
    call = intend(board, job)
    board.move(handles.keep, call, HANDLE)
    return call


def again(board, job, **options):
    """Give the job to another worker."""
    board.move(
        job_store.release, job.lease, cause=options.get("cause", "handback"), reason="r", now=board.now, actor="x"
    )
    claimed = board.claim(owner="worker-b")
    return claimed[0] if claimed else None


def test_the_next_attempt_is_told_of_it(board):
    job = board.started()
    call = held(board, job)
    kept = again(board, job).memo.kept["main"]
    assert (kept.call_id, kept.fingerprint, kept.provider, kept.model, kept.handle) == (call, "f", "p", "m", HANDLE)


def test_one_that_was_lost_is_told_of_and_one_that_is_over_is_not(board):
    for outcome, told in ((LOST, True), (OVER, False)):
        job = board.started()
        call = held(board, job)
        assert board.move(ledger.record_outcome, job.lease, call, outcome, board.now)
        successor = again(board, job)
        assert ("main" in successor.memo.kept) is told
        assert successor.memo.unknown == {"main"}
        board.move(job_store.complete, successor.lease, None, board.now, "x")


def test_without_a_handle_there_is_nothing_to_take_up(board):
    job = board.started()
    call = intend(board, job)
    successor = again(board, job)
    assert successor.memo.kept == {}
    assert board.move(handles.take_up, successor.lease, call) is False


def test_it_goes_on_in_its_own_row_and_is_booked_once(board):
    job = board.started()
    call = held(board, job)
    successor = again(board, job)
    assert board.move(handles.take_up, job.lease, call) is False  # a lease that is lost takes nothing up
    assert board.move(handles.take_up, successor.lease, call) is True
    assert board.move(handles.take_up, successor.lease, call) is False
    (record,) = board.queue.calls(job.id)
    assert record.state == "open"
    assert board.move(ledger.record_outcome, successor.lease, call, DONE, board.now) is True
    (record,) = board.queue.calls(job.id)
    assert (record.state, record.cost, record.input_uncached) == ("completed", 42, 7)
    assert again(board, successor).memo.completions == {"main": {"text": "hi"}}


def test_whoever_had_it_before_may_have_its_answer_first(board):
    job = board.started()
    call = held(board, job)
    successor = again(board, job)
    board.move(handles.take_up, successor.lease, call)
    assert board.move(ledger.record_outcome, job.lease, call, LOST, board.now) is False  # its failure is its own
    assert board.queue.calls(job.id)[0].state == "open"
    assert board.move(ledger.record_outcome, job.lease, call, DONE, board.now) is False
    assert board.queue.calls(job.id)[0].state == "completed"
    assert board.move(ledger.record_outcome, successor.lease, call, DONE, board.now) is True
    assert ledger.memo(board.c, [job.id])[job.id].completions == {"main": {"text": "hi"}}


@pytest.mark.parametrize("kept", [True, False])
def test_what_can_be_taken_up_is_not_parked(board, kept):
    job = board.started(options={"on_unknown": "park"})
    call = intend(board, job)
    if kept:
        board.move(handles.keep, call, HANDLE)
    successor = again(board, job, cause="loss")
    assert (successor is not None) is kept


def test_a_cancelled_job_gives_up_its_call_once(board):
    job = board.started()
    call = held(board, job)
    board.move(ledger.record_outcome, job.lease, call, LOST, board.now)
    assert board.move(handles.give_up, call) is None
    board.move(host_store.cancel, job.id, "r", board.now)
    assert board.move(handles.give_up, call) == ("p", HANDLE)
    assert handles.kept(board.c, [job.id]) == {}


def test_when_a_person_sends_the_job_back_it_is_still_there(board):
    job = board.started()
    call = held(board, job)
    board.move(ledger.record_outcome, job.lease, call, LOST, board.now)
    board.move(job_store.fail, job.lease, {"class": "unknown_outcome"}, board.now, "x", "parked")
    assert board.move(host_store.retry_parked, job.id, "r", board.now)
    assert board.claim(owner="worker-b")[0].memo.kept["main"].call_id == call
