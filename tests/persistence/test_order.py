"""Order and fairness: whose job is next, among priorities, groups, queues and ages. On real databases, with the clock in the test's hand."""

import random
from collections import Counter

import pytest

from callboard.persistence import claims, job_store, queues
from callboard.persistence.errors import InvalidJobError
from callboard.persistence.lifecycle import JobState

LANE = "default|chat||"


def ids(jobs):
    return [job.id for job in jobs]


def finish(board, job):
    assert board.move(job_store.complete, job.lease, None, board.now, "runner")


def one_after_the_other(board, **more):
    """What a single runner performs, in its order."""
    while taken := board.claim(1, **more):
        yield taken[0]
        finish(board, taken[0])


def test_a_thousand_random_priorities_are_performed_in_their_order(board):
    rng = random.Random(3)
    wanted = [rng.randint(-1000, 1000) for _ in range(1000)]
    added = board.queue.add_many({"type": "chat", "priority": priority} for priority in wanted)
    done = ids(one_after_the_other(board))
    assert done == sorted(added, key=lambda job_id: (-wanted[added.index(job_id)], job_id))


# --- groups


def test_no_more_of_a_group_are_claimed_than_its_limit_by_whoever_claims_and_in_whatever_queue(board):
    for kind, queue in (("chat", "default"), ("embed", "default"), ("chat", "night")):
        for _ in range(3):
            board.add(kind, queue=queue, group="tenant", group_limit=2)
    other = board.add(group="another", group_limit=2)
    quotas = {LANE: 9, "default|embed||": 9, "night|chat||": 9}
    first = board.claim(9, quotas=quotas)
    assert Counter(job.group for job in first) == {"tenant": 2, "another": 1}
    assert other in ids(first)
    assert board.claim(9, owner="worker-b", quotas=quotas) == []
    finish(board, first[0])
    assert len(board.claim(9, owner="worker-b", quotas=quotas)) == 1


def test_a_limit_is_a_promise_of_each_job(board):
    narrow = [board.add(group="g", group_limit=1) for _ in range(2)]
    wide = board.add(group="g", group_limit=3, priority=1)
    unlimited = board.add(group="g", priority=2)
    assert ids(board.claim(9)) == [unlimited, wide]
    assert board.claim(9) == []
    assert board.queue.why(narrow[0]) == "its group 'g' has 2 jobs in work, and its limit is 1"


def test_the_first_of_each_group_goes_before_the_second_of_any(board):
    a = [board.add(group="a") for _ in range(3)]
    alone = [board.add() for _ in range(2)]
    b = [board.add(group="b") for _ in range(2)]
    urgent = [board.add(group="a", priority=1) for _ in range(2)]
    assert ids(board.claim(1)) == urgent[:1]
    # Of the rank of the others a has had two turns before its first: one being worked on, and one claimed together with it.
    assert set(ids(board.claim(4))) == {urgent[1], *alone, b[0]}
    assert set(ids(board.claim(2))) == {b[1], a[0]}
    assert ids(board.claim(9)) == a[1:]


def test_turns_in_the_order_of_single_claims(board):
    a = [board.add(group="a") for _ in range(3)]
    alone = [board.add() for _ in range(2)]
    b = [board.add(group="b") for _ in range(2)]
    taken = [board.claim(1)[0].id for _ in range(7)]
    assert taken == [a[0], *alone, b[0], a[1], b[1], a[2]]


def test_turns_hold_among_more_than_the_quotas_allow(board):
    a, b = [board.add(group="a") for _ in range(3)], [board.add(group="b") for _ in range(2)]
    assert set(ids(board.claim(2, quotas={LANE: 9}))) == {a[0], b[0]}
    assert set(ids(board.claim(2, quotas={LANE: 9}))) == {a[1], b[1]}


def test_a_tenant_with_ten_thousand_jobs_does_not_delay_anothers_first(board):
    board.queue.add_many({"type": "chat", "group": "big"} for _ in range(10_000))
    running = board.claim(3)
    small = board.add(group="small")
    assert ids(board.claim(1)) == [small]
    assert {job.group for job in running} == {"big"}


def test_a_group_at_its_limit_does_not_block_what_is_behind_it(board):
    board.queue.add_many({"type": "chat", "group": "full", "group_limit": 1, "priority": 9} for _ in range(50))
    behind = [board.add(), board.add(group="free")]
    assert len(board.claim(1)) == 1
    assert ids(board.claim(9)) == behind


def test_every_group_has_its_turn_when_there_are_more_than_a_claim_looks_at(board):
    board.queue.add_many({"type": "chat", "group": f"tenant-{n:03}"} for n in range(50) for _ in range(2))
    start, seen = "", Counter()
    for _ in range(20):
        seen.update(job.group for job in board.claim(3, start=start, parts=7))
        start = claims.next_start(board.c, [LANE], start, parts=7)
    assert set(seen.values()) <= {1, 2}
    assert len(seen) > 40
    while taken := board.claim(3, start=start, parts=7):
        seen.update(job.group for job in taken)
        start = claims.next_start(board.c, [LANE], start, parts=7)
    assert seen.total() == 100


def test_lanes_of_one_limit_key_have_their_quota_together(board):
    lanes = {"default|chat|a|": 2, "default|chat|b|": 2, "default|chat|c|": 9}
    jobs = [board.add(model=model) for model in ("a", "b", "a", "c", "b")]
    taken = board.claim(9, quotas=lanes, shared={"default|chat|a|": "key", "default|chat|b|": "key"})
    assert ids(taken) == [jobs[0], jobs[1], jobs[3]]


# --- queues


def test_a_paused_queue_is_not_claimed_and_what_runs_goes_on(board):
    quotas = {"night|chat||": 9, LANE: 9}
    job, waiting = board.add(queue="night"), board.add(queue="night")
    (running,) = board.claim(1, quotas=quotas)
    assert board.queue.pause("night") is True
    assert board.queue.pause("night") is False
    free = board.add()
    assert ids(board.claim(9, quotas=quotas)) == [free]
    assert board.queue.why(waiting) == "its queue 'night' is paused"
    finish(board, running)
    assert board.queue.row(job).state == JobState.COMPLETED
    assert [lane.paused for lane in claims.lanes(board.c)] == [True]
    assert board.queue.resume("night") is True
    assert board.queue.resume("night") is False
    assert ids(board.claim(9, quotas=quotas)) == [waiting]


def test_a_suspect_in_a_paused_queue_or_a_full_group_keeps_nobody_waiting(board):
    for fields in ({"queue": "night"}, {"group": "g", "group_limit": 1}):
        suspect = board.add(**fields)
        board.sql(f"UPDATE llm_jobs SET losses = 2 WHERE id = {suspect}")
    lanes = [LANE, "night|chat||"]
    board.queue.pause("night")
    held = board.add(group="g", group_limit=1)
    assert claims.suspects_waiting(board.c, lanes=lanes)
    assert ids(board.claim()) == [held]
    assert not claims.suspects_waiting(board.c, lanes=lanes)
    assert board.claim(alone=True, quotas=dict.fromkeys(lanes, 1)) == []
    board.queue.resume("night")
    assert claims.suspects_waiting(board.c, lanes=lanes)
    assert len(board.claim(alone=True, quotas=dict.fromkeys(lanes, 1))) == 1


def test_queues_and_their_counts(board):
    board.queue.pause("empty")
    for delay in (None, 5):
        board.add(queue="night", delay=delay)
    board.add("embed")
    board.started(priority=9)
    found = {queue.name: queue for queue in board.queue.queues()}
    assert list(found) == ["default", "empty", "night"]
    assert (found["empty"].paused_at, found["night"].paused_at) == (board.now, None)
    assert {state: n for state, n in found["night"].jobs.items() if n} == {JobState.WAITING: 1, JobState.DELAYED: 1}
    assert {state: n for state, n in found["default"].jobs.items() if n} == {JobState.WAITING: 1, JobState.ACTIVE: 1}


@pytest.mark.parametrize("name", ["", "a|b", "x" * 101, None, 7])
def test_what_is_no_queues_name_is_refused(board, name):
    with pytest.raises(InvalidJobError, match="queue"):
        board.queue.pause(name)


# --- counters


def test_counts_are_kept_by_the_database_and_set_right(board):
    job = board.started()
    board.add("embed", queue="night")
    finish(board, job)
    assert board.queue.counts_by_type() == {
        "chat": dict.fromkeys(JobState, 0) | {JobState.COMPLETED: 1},
        "embed": dict.fromkeys(JobState, 0) | {JobState.WAITING: 1},
    }
    board.sql(f"DELETE FROM llm_jobs WHERE id = {job.id}")
    assert list(board.queue.counts_by_type()) == ["embed"]
    assert board.queue.check() == []
    board.sql("UPDATE llm_job_counts SET jobs = 7 WHERE type = 'embed'")
    board.sql("DELETE FROM llm_job_counts WHERE type = 'chat'")
    board.add()
    board.sql("UPDATE llm_job_counts SET jobs = 0 WHERE type = 'chat'")
    assert board.queue.check() == [
        "the counter of waiting jobs of type 'chat' in queue 'default' says 0, but there are 1",
        "the counter of waiting jobs of type 'embed' in queue 'night' says 7, but there are 1",
    ]
    assert board.queue.repair() == 2
    assert board.queue.check() == []
    assert board.queue.repair() == 0


# --- ageing

AGEING = {"after": 60_000, "step": 10, "every": 30_000, "most": 25, "limit": 100}


def age(board, **more):
    return board.move(claims.age, board.now, **{**AGEING, **more})


def boosts(board):
    return [boost for (boost,) in board.sql("SELECT boost FROM llm_jobs ORDER BY id")]


def test_what_waits_is_raised_in_steps_up_to_the_most(board):
    board.add()
    seen = []
    for seconds in (0, 59, 1, 29, 1, 30, 300):
        board.now += seconds * 1000
        age(board)
        seen += boosts(board)
    assert seen == [0, 0, 10, 10, 20, 25, 25]
    assert age(board) == 0


def test_missed_intervals_are_made_up_for_and_nothing_else_ages(board):
    board.add()
    board.add(delay=3600)
    running = board.started(priority=1)
    board.now += 60_000 + 30_000
    assert age(board, most=1000) == 1
    assert boosts(board) == [20, 0, 0]
    board.move(job_store.release, running.lease, cause="deferral", reason="r", now=board.now, actor="x")
    board.now += 59_000
    age(board, most=1000)
    assert boosts(board) == [30, 0, 0]


def test_a_pass_is_bounded_and_the_oldest_get_to_the_top_first(board):
    board.queue.add_many({"type": "chat"} for _ in range(5))
    board.now += 60_000
    assert [age(board, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    board.now += 30_000
    board.queue.add_many({"type": "chat"} for _ in range(5))
    board.now += 60_000
    assert age(board, limit=5) == 5
    assert boosts(board) == [25] * 5 + [0] * 5


def test_with_ageing_no_job_waits_for_ever_behind_a_stream_of_higher_priorities(board):
    for ageing, expected in ((False, False), (True, True)):
        low = board.add(priority=0)
        performed = False
        for _ in range(100):
            board.add(priority="user")
            board.now += 10_000
            if ageing:
                age(board, most=1000)
            (job,) = board.claim(1)
            finish(board, job)
            performed = performed or job.id == low
        assert performed == expected
        if not performed:
            board.queue.cancel(low)


# --- what a host may say


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"group": ""}, "group: must be text"),
        ({"group_limit": 2}, "group_limit: limits a group, but the job names none"),
        ({"group": "g", "group_limit": 0}, "group_limit: must be a whole number from 1"),
        ({"requires": "gpu"}, "requires: must be a list of names"),
        ({"requires": ["a,b"]}, "requires: must be names without ','"),
        ({"requires": ["a|b"]}, "requires: must be text without"),
        ({"requires": ["x" * 99, "y" * 99, "z" * 99]}, "requires: takes 299 characters"),
        ({"model": "a|b"}, "model: must be text without"),
    ],
)
def test_bad_groups_and_requirements_are_refused(board, fields, problem):
    with pytest.raises(InvalidJobError, match=problem):
        board.add(**fields)


def test_what_a_job_requires_is_sorted_and_reaches_its_runner(board):
    board.add(requires=["vision", "gpu", "gpu"], group="g|h", group_limit=3)
    (job,) = board.claim(quotas={"default|chat||gpu,vision": 1})
    assert (job.requires, job.group, job.lane) == (("gpu", "vision"), "g|h", "default|chat||gpu,vision")
    row = board.queue.row(job.id)
    assert (row.requires, row.group_key, row.group_limit, row.boost) == ("gpu,vision", "g|h", 3, 0)


def test_a_note_that_nobody_could_run_it_is_taken_off(board):
    noted, behind = board.add(requires=["gpu"]), board.add(requires=["gpu"])
    lane = "default|chat||gpu"
    board.move(claims.hold_lane, lane, "unroutable: no runner here has 'gpu'", board.now, limit=1)
    assert [lane.noted for lane in claims.lanes(board.c)] == [True]
    for job in (noted, behind):
        assert board.queue.why(job) == "no worker takes it: unroutable: no runner here has 'gpu'"
    assert board.move(claims.free_lane, lane, board.now) == 1
    assert [lane.noted for lane in claims.lanes(board.c)] == [False]
    assert board.queue.why(noted) == "waiting for a free runner, 0 like it ahead"
    assert board.queue.why(behind) == "waiting for a free runner, 1 like it ahead"


PLANS = {
    "next start": (claims._SPREAD_END, {"llm_jobs_waiting"}),
    "free lane": (claims._FREE_LANE, {"llm_jobs_waiting"}),
    "age": (claims._AGE, {"llm_jobs_ageing"}),
    "ahead": (queues._AHEAD, {"llm_jobs_waiting"}),
    "lane's note": (queues._LANE_NOTE, {"llm_jobs_waiting"}),
    "group in work": (queues._WORKED_ON, {"llm_jobs_group"}),
    "counts": (queues._COUNTS, set()),
    "queues": (queues._QUEUES, set()),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("analyzed", [False, True])
def test_no_statement_reads_every_job(board, name, analyzed):
    board.queue.add_many({"type": "chat", "group": f"g{i % 7}", "delay": i % 3 or None} for i in range(300))
    if analyzed:
        board.sql("ANALYZE")
    prepared, indexes = PLANS[name]
    names = {"quotas": "{}", "start": "", "parts": 1, "lane": "x", "now": 1, "limit": 1, "after": 1, "every": 1}
    names |= {"most": 1, "step": 1, "job_id": 1, "group_key": "g"}
    params = {name: value for name, value in names.items() if f":{name}" in prepared.sql}
    plan = [row[3] for row in board.c._execute("EXPLAIN QUERY PLAN " + prepared.sql, params).fetchall()]
    read_whole = [
        step for step in plan if step.startswith("SCAN") and step.split()[1] in ("llm_jobs", "job", "other", "first")
    ]
    assert read_whole == [], plan
    for index in indexes:
        assert any(index in step for step in plan), plan
