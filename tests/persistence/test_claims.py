"""Claims: the right jobs, in the right order, at a cost that does not grow with the board. And getting back what the dead held."""

import re

import pytest

from callboard.persistence import batch_orders, budgets, cache, claims, job_store, ledger, limits
from callboard.persistence.job_store import _COMPLETE
from callboard.persistence.lifecycle import JobState
from callboard.persistence.model import CallIntent, Lease

LANE = "default|chat||"
LANES = {"a": "default|chat|a|", "b": "default|chat|b|"}
INTENT = CallIntent(
    step="main", fingerprint="f", provider="p", model="m", limit_key="k", reserved_tokens=1, reserved_cost=None
)


def ids(jobs):
    return [job.id for job in jobs]


def test_highest_priority_first_then_oldest(board):
    added = [board.add(priority=priority) for priority in (0, 5, 5, "user", -3)]
    assert ids(board.claim(3)) == [added[3], added[1], added[2]]
    assert ids(board.claim(9)) == [added[0], added[4]]


def test_quotas_bound_each_lane_and_leave_out_the_rest(board):
    jobs = {name: [board.add(model=name, priority=p) for p in (1, 3, 2)] for name in ("a", "b", "c")}
    taken = board.claim(4, quotas={LANES["a"]: 2, LANES["b"]: 1})
    assert ids(taken) == [jobs["a"][1], jobs["b"][1], jobs["a"][2]]
    assert board.claim(4, quotas={LANES["a"]: 0}) == []
    assert ids(board.claim(1, quotas={LANES["a"]: 9, LANES["b"]: 9})) == [jobs["b"][2]]


def test_lanes_and_their_depth(board):
    for model in ("a", "a", "b", None):
        board.add(model=model)
    board.add("embed", queue="night", model="x}y", delay=5)
    for group in (None, "g", "h|i", "h}"):
        board.add("embed", queue="night", model="x}y", group=group, requires=["vision", "gpu"])
    board.queue.pause("night")
    assert claims.lanes(board.c, cap=1) == [
        ("default|chat|a|", "default", "chat", "a", 1, (), False, False),
        ("default|chat|b|", "default", "chat", "b", 1, (), False, False),
        ("default|chat||", "default", "chat", None, 1, (), False, False),
        ("night|embed|x}y|gpu,vision", "night", "embed", "x}y", 1, ("gpu", "vision"), True, False),
    ]
    assert [lane.waiting for lane in claims.lanes(board.c)] == [2, 1, 1, 4]


def test_a_claim_brings_everything_a_runner_needs(board):
    board.add(data={"n": 2**70}, priority=7, options={"job_timeout": 5, "on_unknown": "park"}, max_attempts=2)
    (job,) = board.claim(owner="w")
    assert (job.data, job.priority, job.attempt, job.max_attempts) == ({"n": 2**70}, 7, 1, 2)
    assert (job.options.job_timeout, job.options.on_unknown, job.memo, job.lease.epoch) == (5, "park", None, 1)
    assert board.sql("SELECT lease_owner, lease_until, started_at FROM llm_jobs") == [
        ("w", board.now + 30_000, board.now)
    ]


def test_held_jobs_wait_for_their_time(board):
    job = board.started()
    board.move(
        job_store.release,
        job.lease,
        cause="deferral",
        reason="r",
        now=board.now,
        actor="x",
        held_by="k",
        held_until=board.now + 10,
    )
    assert board.claim() == []
    assert claims.next_due(board.c, board.now) == board.now + 10
    board.now += 10
    assert claims.next_due(board.c, board.now) is None
    assert ids(board.claim()) == [job.id]
    assert (board.queue.row(job.id).held_by, board.queue.row(job.id).held_until) == (None, None)


def test_next_due_is_the_earliest_of_all_reasons(board):
    assert claims.next_due(board.c) is None
    board.add(delay=30)
    assert claims.next_due(board.c, board.now) == board.now + 30_000
    board.add(start_within=20)
    assert claims.next_due(board.c, board.now) == board.now + 20_000


def test_due_jobs_are_promoted_in_order_and_bounded(board):
    late, early = board.add(delay=2), board.add(delay=1)
    assert board.move(claims.promote_due, board.now + 999, 9) == 0
    assert board.move(claims.promote_due, board.now + 5000, 1) == 1
    assert [board.queue.row(i).state for i in (late, early)] == [JobState.DELAYED, JobState.WAITING]


def test_what_nobody_started_in_time_fails(board):
    job_id = board.add(start_within=1)
    delayed = board.add(start_within=1, delay=60)
    board.now += 1000
    assert board.claim() == []
    assert board.move(claims.expire_unstarted, board.now, 9) == 1
    handle = board.queue.get(job_id)
    assert (handle.state, handle.error["class"], handle.row().reason) == (
        JobState.FAILED,
        "expired",
        "not started by its deadline",
    )
    assert board.queue.row(delayed).state == JobState.DELAYED


def test_suspects_run_alone_and_a_loss_while_alone_convicts(board):
    poison, innocent = board.add(priority=9), board.add()
    for _ in range(2):
        taken = board.claim(2)
        assert poison in ids(taken)
        for job in taken:
            board.move(
                job_store.release,
                job.lease,
                cause="loss" if job.id == poison else "handback",
                reason="r",
                now=board.now,
                actor="x",
            )
    assert claims.suspects_waiting(board.c, lanes=[LANE])
    assert not claims.suspects_waiting(board.c, lanes=[LANES["a"]])
    assert ids(board.claim(2)) == [innocent]
    assert board.claim(5, alone=True, quotas={"another|lane||": 5}) == []
    (suspect,) = board.claim(5, alone=True)
    assert (suspect.id, suspect.alone) == (poison, True)
    assert not claims.suspects_waiting(board.c, lanes=[LANE])
    assert (
        board.move(job_store.release, suspect.lease, cause="loss", reason="SIGSEGV", now=board.now, actor="x")
        == JobState.FAILED
    )
    handle = board.queue.get(poison)
    assert handle.error["class"] == "poison"
    assert "SIGSEGV" in handle.error["message"]
    assert (handle.row().losses, handle.row().failures) == (3, 0)


def test_a_suspect_that_is_handed_back_is_not_convicted(board):
    job = board.add()
    board.sql(f"UPDATE llm_jobs SET losses = 2 WHERE id = {job}")
    (suspect,) = board.claim(alone=True)
    assert (
        board.move(job_store.release, suspect.lease, cause="handback", reason="r", now=board.now, actor="x")
        == JobState.WAITING
    )
    assert board.sql("SELECT alone FROM llm_jobs") == [(0,)]


def test_lane_nobody_runs_is_noted(board):
    job_id = board.add(model="a")
    assert board.move(claims.hold_lane, LANES["a"], "no worker knows the model a", board.now) == 1
    assert board.move(claims.hold_lane, LANES["a"], "again", board.now) == 0
    assert board.queue.why(job_id) == "no worker takes it: no worker knows the model a"
    assert ids(board.claim(lane=LANES["a"])) == [job_id]


def test_renew_and_lost(board):
    for _ in range(3):
        board.add()
    a, b = board.claim(2, owner="a")
    (other,) = board.claim(1, owner="b")
    assert board.move(claims.renew, "a", 99) == 2
    assert board.sql("SELECT DISTINCT lease_until FROM llm_jobs WHERE lease_owner = 'a'") == [(99,)]
    board.queue.cancel(a.id)
    gone = Lease(other.id, 9)
    assert claims.lost(board.c, [a.lease, b.lease, other.lease, gone]) == [a.lease, gone]


def rescue(board, *, dead=lambda _: None, me="me", limit=100):
    return board.move(claims.rescue, now=board.now, is_dead=dead, my_owner=me, limit=limit)


def test_jobs_of_the_dead_come_back_at_once(board):
    for _ in range(3):
        board.add()
    dead, alive = board.claim(2, owner="dead"), board.claim(1, owner="alive")
    assert rescue(board, dead=lambda owner: owner == "dead") == [(job.id, JobState.WAITING) for job in dead]
    row = board.queue.row(dead[0].id)
    assert (row.losses, row.failures, row.lease_epoch) == (1, 0, 2)
    assert "died" in row.reason
    assert board.queue.row(alive[0].id).state == JobState.ACTIVE


@pytest.mark.parametrize("answer", [None, False])
def test_otherwise_a_lease_must_expire(board, answer):
    job = board.started()
    board.now += 29_999
    assert rescue(board, dead=lambda _: answer) == []
    board.now += 1
    assert rescue(board, dead=lambda _: answer) == [(job.id, JobState.WAITING)]


def test_own_jobs_are_never_rescued(board):
    board.started()
    board.now += 99_000_000
    assert rescue(board, dead=lambda _: True, me="worker-a") == []


def test_a_rescue_is_bounded_and_goes_on(board):
    for _ in range(5):
        board.add()
    board.claim(3, owner="a")
    board.claim(2, owner="b")
    back = [rescue(board, dead=lambda _: True, limit=2) for _ in range(4)]
    assert [len(b) for b in back] == [2, 2, 1, 0]


def test_rescue_parks_what_asked_for_it(board):
    job = board.started(options={"on_unknown": "park"})
    board.move(ledger.record_intent, job.lease, INTENT, board.now)
    assert rescue(board, dead=lambda _: True) == [(job.id, JobState.FAILED)]
    assert board.queue.get(job.id).error["class"] == "unknown_outcome"
    assert board.queue.calls(job.id)[0].state == "unknown"


def test_orphans_are_handed_back(board):
    for _ in range(3):
        board.add()
    kept, orphan = board.claim(2)
    claimed_first = board.now + 1
    board.now += 10
    (fresh,) = board.claim(1)
    swept = board.move(claims.sweep_orphans, "worker-a", frozenset({kept.lease}), claimed_first, board.now)
    assert swept == [orphan.lease]
    assert [board.queue.row(j.id).state for j in (kept, orphan, fresh)] == [
        JobState.ACTIVE,
        JobState.WAITING,
        JobState.ACTIVE,
    ]
    assert board.queue.row(orphan.id).losses == 0


PLANS = {
    "claim": (claims._CLAIM, {"llm_jobs_waiting"}),
    "claim alone": (claims._CLAIM_ALONE, {"llm_jobs_suspect"}),
    "suspects": (claims._SUSPECTS, {"llm_jobs_suspect"}),
    "lanes": (claims._LANES, {"llm_jobs_waiting"}),
    "owners": (claims._OWNERS, {"llm_jobs_active"}),
    "owned": (claims._OWNED, {"llm_jobs_active"}),
    "renew": (claims._RENEW, {"llm_jobs_active"}),
    "promote": (claims._PROMOTE, {"llm_jobs_delayed"}),
    "expire": (claims._EXPIRE, {"llm_jobs_start_by"}),
    "due": (claims._DUE, {"llm_jobs_delayed", "llm_jobs_start_by", "llm_jobs_held"}),
    "hold lane": (claims._HOLD_LANE, {"llm_jobs_waiting"}),
    "lost": (claims._LOST, set()),
    "complete": (_COMPLETE, set()),
    "limits, what stands": (limits._STANDING, set()),
    "limits, calls in flight": (limits._IN_FLIGHT, {"llm_calls_in_flight"}),
    "budgets, what stands": (budgets._STANDING, set()),
    "budgets, the job": (budgets._JOB, set()),
    "a kept answer": (cache._FIND, set()),
    "members of a batch": (batch_orders._MEMBERS, {"llm_batch_requests_batch"}),
    "memo": (ledger._COMPLETIONS, {"llm_calls_once"}),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("analyzed", [False, True])
def test_no_statement_of_the_worker_reads_a_whole_table(board, name, analyzed):
    board.queue.add_many({"type": "chat", "delay": i % 3 or None} for i in range(300))
    if analyzed:
        board.sql("ANALYZE")
    prepared, indexes = PLANS[name]
    names = {"now", "lane", "owner", "ids", "leases", "quotas", "slots", "limit", "limit_key"}
    params = dict.fromkeys(names | set(re.findall(r":(\w+)", prepared.sql)), 1) | {
        "ids": "[]",
        "leases": "[]",
        "lanes": "[]",
        "quotas": "{}",
    }
    plan = [row[3] for row in board.c._execute("EXPLAIN QUERY PLAN " + prepared.sql, params).fetchall()]
    tables = (
        "llm_jobs",
        "mine",
        "job",
        "llm_calls",
        "llm_limit_usage",
        "llm_budget_usage",
        "llm_cache",
        "llm_batch_requests",
    )
    read_whole = [
        step for step in plan if step.startswith("SCAN") and step.split()[1] in tables and "USING" not in step
    ]
    assert read_whole == [], plan
    for index in indexes:
        assert any(index in step for step in plan), plan
