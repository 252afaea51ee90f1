"""Joining a batch, what its driving job does to the board, and what its members find: each rule by itself, on a real board."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.persistence import batch_orders, batches, family, group_orders, job_store, ledger
from callboard.persistence.batches import Bounds, NewRequest
from callboard.persistence.group_orders import shares
from callboard.persistence.lifecycle import JobState
from callboard.persistence.model import CallOutcome, Lease

AGE = 60_000
BOUNDS = Bounds(requests=3, bytes=1000, tokens=1000, age_ms=AGE)
DRIVERS = "@batches|@batch|m|"


def request(step="main", **more):
    return NewRequest(
        **{
            "step": step,
            "kind": "batch",
            "provider": "p",
            "group_key": "k",
            "endpoint": "/e",
            "model": "m",
            "fingerprint": "f",
            "limit_key": "p/m",
            "request": {"model": "m-1", "messages": []},
            "size": 10,
            "tokens": 5,
            "reserved_cost": 7,
            "tag": "tag",
            "bounds": BOUNDS,
            **more,
        }
    )


def joined(board, *steps, requests=None, **fields):
    """A job that waits in a batch."""
    job = board.started(**fields)
    wanted = requests or [request(step) for step in steps or ("main",)]
    assert board.move(batches.join, job.lease, wanted, board.now, "runner-1")
    return job


def driving(board, **more):
    """The lease of the job that drives the oldest batch under way, claimed as soon as it is due."""
    board.now += AGE
    board.sql("SELECT 1")
    from callboard.persistence import claims

    board.move(claims.promote_due, board.now, 10)
    return board.claim(lane=DRIVERS, **more)[0].lease


def order(board, lease, wanted, **more):
    return board.move(batch_orders.perform, lease, wanted, board.now, "runner-1", **more)


def sent(board, count=2):
    """Members of a batch that is with the provider: their jobs, and the driving job's lease."""
    jobs = [joined(board) for _ in range(count)]
    lease = driving(board)
    order(board, lease, batch_orders.Seal())
    while order(board, lease, batch_orders.Intend()):
        pass
    order(board, lease, batch_orders.Create())
    return jobs, lease


def members(board):
    return board.sql("SELECT id, job_id, state FROM llm_batch_requests ORDER BY id")


def state(board, job):
    return board.queue.row(job.id).state


def answer(request_id, text="hi"):
    outcome = CallOutcome(state="completed", completion={"text": text}, usage={"input_uncached": 4}, cost=9)
    return batch_orders.Answered(request_id, "done", outcome)


def test_requests_of_one_key_join_one_batch_until_it_is_full(board):
    jobs = [joined(board) for _ in range(3)]
    assert board.sql("SELECT run_at FROM llm_jobs WHERE type = '@batch'") == [(board.now,)], (
        "the full one leaves at once"
    )
    jobs.append(joined(board))
    assert [state(board, job) for job in jobs] == [JobState.WAITING_CHILDREN] * 4
    assert board.sql("SELECT requests, bytes, tokens FROM llm_batches ORDER BY id") == [(3, 30, 15), (1, 10, 5)]
    due = board.sql("SELECT run_at FROM llm_jobs WHERE type = '@batch' ORDER BY id")
    assert due == [(board.now,), (board.now + AGE,)]


@pytest.mark.parametrize("much", [{"size": 995}, {"tokens": 996}])
def test_a_batch_without_room_for_a_request_is_let_go_and_another_begun(board, much):
    joined(board)
    joined(board, requests=[request(**much)])
    assert board.sql("SELECT requests FROM llm_batches ORDER BY id") == [(1,), (1,)]
    assert board.sql("SELECT run_at FROM llm_jobs WHERE type = '@batch' ORDER BY id LIMIT 1") == [(board.now,)]


def test_a_request_in_a_hurry_lets_the_batch_go(board):
    joined(board)
    joined(board, requests=[request(hurry=True)])
    assert board.sql("SELECT run_at FROM llm_jobs WHERE type = '@batch'") == [(board.now,)]


def test_the_driving_job_goes_before_those_it_brings_together(board):
    joined(board, priority=5)
    joined(board, priority=70)
    joined(board, priority=20)
    assert board.sql("SELECT priority FROM llm_jobs WHERE type = '@batch'") == [(71,)]


def test_whoever_lost_the_lease_joins_nothing_and_drives_nothing(board):
    job = board.started()
    board.move(job_store.release, job.lease, cause="handback", reason="r", now=board.now, actor="x")
    assert board.move(batches.join, job.lease, [request()], board.now, "x") is False
    assert members(board) == []


def test_a_sealed_batch_takes_nobody_and_leaves_out_who_no_longer_waits(board):
    stays, goes = joined(board), joined(board)
    board.queue.cancel(goes.id)
    lease = driving(board)
    assert order(board, lease, batch_orders.Seal()).requests == 1
    assert [row[2] for row in members(board)] == ["waiting", "left"]
    joined(board)
    assert board.sql("SELECT state, requests FROM llm_batches ORDER BY id") == [("sealed", 1), ("open", 1)]
    assert state(board, stays) == JobState.WAITING_CHILDREN


def test_an_answer_is_booked_once_and_found_by_the_next_attempt(board):
    jobs, lease = sent(board)
    ids = [row[0] for row in members(board)]
    for _ in range(2):  # as after a crash
        order(board, lease, batch_orders.Apply([answer(ids[0])], offset=50))
    assert order(board, lease, batch_orders.Load()).offset == 50
    assert [state(board, job) for job in jobs] == [JobState.WAITING, JobState.WAITING_CHILDREN]
    (again,) = board.claim()
    assert again.memo.completions == {"main": {"text": "hi"}}
    assert again.memo.batched == {}
    (call,) = board.queue.calls(jobs[0].id)
    assert (call.state, call.cost, call.limit_key) == ("completed", 9, "batch:p/m")
    assert board.sql("SELECT requests, origin FROM llm_calls") == [(0, "batch")] * 2


def test_the_calls_of_a_batch_are_another_jobs_business(board):
    """A job that left its batch and goes by itself has an open call that says nothing of its own work."""
    (job,), lease = sent(board, 1)
    order(board, lease, batch_orders.LeaveLate(0))
    board.sql("UPDATE llm_batch_requests SET deadline = 1")
    order(board, lease, batch_orders.LeaveLate(0))
    board.sql('UPDATE llm_job_data SET options = \'{"on_unknown": "park"}\'')
    (again,) = board.claim()
    assert again.memo.batched["main"].late
    assert (
        board.move(job_store.release, again.lease, cause="handback", reason="r", now=board.now, actor="x") == "waiting"
    )
    assert [call.state for call in board.queue.calls(job.id)] == ["open"]
    order(board, lease, batch_orders.Apply([answer(members(board)[0][0])]))
    assert [call.state for call in board.queue.calls(job.id)] == ["completed"], "it is booked, and there"


def test_who_has_no_answer_asks_again_and_it_is_counted(board):
    jobs, lease = sent(board)
    outcome = CallOutcome(state="failed", error_class="no_result", error={"class": "no_result"})
    assert order(board, lease, batch_orders.GiveUp(outcome)) == 2
    assert order(board, lease, batch_orders.GiveUp(outcome)) == 0
    claimed = board.claim(2)
    assert {job.memo.batched["main"].rounds for job in claimed} == {1}
    assert all(board.queue.row(job.id).failures == 0 for job in jobs)


def test_a_refusal_is_told_until_a_person_sends_the_job_back(board):
    (job,), lease = sent(board, 1)
    error = {"class": "invalid", "message": "no"}
    refused = batch_orders.Answered(members(board)[0][0], "failed", CallOutcome(state="failed", error=error), error)
    order(board, lease, batch_orders.Apply([refused]))
    (again,) = board.claim()
    assert again.memo.batched["main"].refused == error
    board.now += 5
    board.move(job_store.fail, again.lease, error, board.now, "x", "no")
    board.now += 5
    board.queue.retry(job.id)
    (again,) = board.claim()
    assert again.memo.batched["main"].refused is None


def test_a_deadline_is_near_by_what_calls_really_take(board):
    done = board.started()
    call = board.sql(
        f"INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, sent_at, finished_at)"
        f" VALUES ({done.id}, 1, 1, 'x', 'f', 'p', 'm', 'p/m', 'completed', 0, 0, 400000) RETURNING id"
    )
    assert call
    joined(board, requests=[request(deadline=board.now + AGE + 1_000_000)])
    lease = driving(board)
    assert order(board, lease, batch_orders.LeaveLate(300_000)) is None, "three times 400 s is more than what is left"
    assert [row[2] for row in members(board)] == ["left"]


def test_a_deadline_that_is_far_says_when_to_look(board):
    deadline = board.now + AGE + 1_000_000
    joined(board, requests=[request(deadline=deadline)])
    lease = driving(board)
    assert order(board, lease, batch_orders.LeaveLate(300_000)) == deadline - 300_000


def test_a_refused_batch_is_divided_in_half_with_everybody_waiting_for_his_half(board):
    jobs, lease = sent(board, 3)
    outcome = CallOutcome(state="failed", error={"class": "invalid"})
    divide = batch_orders.Divide(outcome, ("tag-1", "tag-2"))
    assert order(board, lease, divide) == 3
    assert order(board, lease, divide) == 0
    assert order(board, lease, batch_orders.LetDivided()).state == "failed"
    assert board.sql("SELECT state, requests, tag FROM llm_batches ORDER BY id") == [
        ("failed", 3, "tag"),
        ("sealed", 2, "tag-1"),
        ("sealed", 1, "tag-2"),
    ]
    assert board.move(job_store.complete, lease, None, board.now, "x")
    assert [state(board, job) for job in jobs] == [JobState.WAITING_CHILDREN] * 3
    assert {call.state for job in jobs for call in board.queue.calls(job.id)} == {"failed"}
    half = driving(board)
    assert order(board, half, batch_orders.Seal()).requests == 2


def test_a_driving_job_that_ends_lets_everybody_go(board):
    """Cancelled by a person, say: its members ask anew, and are counted in no batch twice."""
    jobs, lease = sent(board)
    board.queue.cancel(lease.job_id)
    claimed = board.claim(2)
    assert [job.id for job in claimed] == [job.id for job in jobs]
    for job in claimed:
        board.move(batches.join, job.lease, [request()], board.now, "x")
    assert [row[2] for row in members(board)] == ["left", "left", "waiting", "waiting"]


def test_a_quorum_says_nothing_of_a_batch(board):
    first, second = board.add(), board.add()
    waits = board.queue.add("chat", needs=[first, second], quorum=2).id
    for job in board.claim(2):
        board.move(job_store.complete, job.lease, "x", board.now, "x")
    (job,) = board.claim()
    assert job.id == waits
    board.move(batches.join, job.lease, [request()], board.now, "x")
    lease = driving(board)
    order(board, lease, batch_orders.Seal())
    order(board, lease, batch_orders.Intend())
    order(board, lease, batch_orders.Create())
    order(board, lease, batch_orders.Apply([answer(members(board)[0][0])]))
    assert state(board, job) == JobState.WAITING
    (again,) = board.claim()
    assert [given.result for given in again.inputs] == ["x", "x"], "what it was added to wait on is given as before"


def test_cancelling_a_tree_leaves_the_batch_alone(board):
    job = joined(board)
    assert family.tree_of(board.c, job.id) == [job.id]


def test_a_driving_job_is_no_poison_for_having_been_killed(board):
    _, lease = sent(board)
    for _ in range(4):
        board.move(job_store.take_back, lease, cause="loss", reason="killed", now=board.now, actor="x")
        found = board.claim(lane=DRIVERS) or board.claim(lane=DRIVERS, alone=True)
        lease = found[0].lease
        order(board, lease, batch_orders.Move(state="submitted", batch_id="b"))
    assert board.queue.row(lease.job_id).losses == 0


def test_a_member_whose_job_was_deleted_is_passed_over(board):
    (job,), lease = sent(board, 1)
    gone = members(board)[0][0]
    board.queue.cancel(job.id)
    board.sql(f"DELETE FROM llm_jobs WHERE id = {job.id}")
    order(board, lease, batch_orders.Apply([answer(gone)]))
    assert order(board, lease, batch_orders.FindMembers((gone,))) == []


def test_requests_are_kept_until_they_have_come_to_their_end(board):
    _, lease = sent(board, 2)
    ids = [row[0] for row in members(board)]
    assert [member.request["model"] for member in order(board, lease, batch_orders.ListMembers("sent"))] == ["m-1"] * 2
    order(board, lease, batch_orders.Apply([answer(ids[0])]))
    assert board.sql("SELECT request_id FROM llm_batch_bodies") == [(ids[1],)]


def test_what_drives_nothing_is_told_so(board):
    job = board.started()
    assert order(board, job.lease, batch_orders.Load()) is None


def test_alone_means_no_other_job_and_no_open_group(board):
    board.started(kind="chat")
    assert not batches.has_company(board.c, "chat", "k")
    board.add()
    assert batches.has_company(board.c, "chat", "k")
    assert not batches.has_company(board.c, "embed", "k")


def test_a_job_that_was_adopted_is_given_its_memo_at_its_first_claim(board):
    first = joined(board, requests=[request(kind="group")])
    second = board.add()
    board.add(queue="other")
    board.add(group="g", group_limit=1)
    lease = Lease(*board.sql("SELECT id, 0 FROM llm_jobs WHERE type = '@group'")[0])
    (alike,) = order(board, lease, group_orders.ListAlike("chat", 10))
    assert alike.job_id == second
    board.queue.pause("default")
    assert order(board, lease, group_orders.ListAlike("chat", 10)) == []
    board.queue.resume("default")
    assert order(board, lease, group_orders.Adopt([(second, request(kind="group"))])) == 1
    assert order(board, lease, group_orders.Adopt([(second, request(kind="group"))])) == 0, "it is no longer there"
    order(board, lease, batch_orders.Seal())
    _call_of_group(board, lease, tokens=7, cost=101)
    parts = [
        group_orders.Part(row[0], {"vectors": [row[0]]}, weight)
        for row, weight in zip(members(board), (1, 2), strict=True)
    ]
    for _ in range(2):
        order(board, lease, group_orders.ShareOut("group-x", parts))
    claimed = board.claim(5, lane="default|chat||")
    found = {job.id: job.memo.completions for job in claimed if job.id in (first.id, second)}
    assert found == {first.id: {"main": {"vectors": [1]}}, second: {"main": {"vectors": [2]}}}
    assert board.sql("SELECT job_id, input_uncached, cost, requests FROM llm_calls ORDER BY id") == [
        (lease.job_id, None, 0, 1),
        (first.id, 2, 33, 0),
        (second, 5, 68, 0),
    ]
    assert not order(board, lease, group_orders.ListAlike("chat", 10)), "what was begun is not adopted again"


def _call_of_group(board, lease, tokens, cost):
    board.sql(
        f"INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, sent_at, input_uncached, cost)"
        f" VALUES ({lease.job_id}, 1, 1, 'group-x', 'f', 'p', 'm', 'p/m', 'completed', 0, 0, {tokens}, {cost})"
    )


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_shares_are_fair_and_nothing_is_left_over(total, weights):
    parts = shares(total, weights)
    assert sum(parts) == total
    assert all(part >= 0 for part in parts)
    if sum(weights):
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part - total * weight / sum(weights)) <= 1 + 1e-9 * total


def test_the_ledger_is_not_asked_for_more_than_there_is(board):
    job = board.started()
    assert ledger.memo(board.c, [job.id])[job.id].batched == {}
