"""Jobs that wait on others: added whole or not at all, settled by whatever ends what they wait on, and never parked for ever."""

import re

import pytest

from callboard.persistence import claims, family, flows, job_store
from callboard.persistence.errors import InvalidJobError, JobNotFoundError
from callboard.persistence.flow_plan import FlowJob, flow_nodes
from callboard.persistence.flows import Decision, Group, decide
from callboard.persistence.lifecycle import JobState
from callboard.persistence.new_job import NewJob, rows_of
from callboard.persistence.sql import Prepared

WAITING, PARKED, FAILED = JobState.WAITING, JobState.WAITING_CHILDREN, JobState.FAILED


def job(*needs, **fields):
    return {"type": "chat", "needs": needs, **fields}


def states(board, *jobs):
    return [board.queue.row(getattr(job, "id", job)).state for job in jobs]


def edges(board):
    return board.sql("SELECT job_id, depends_on, state FROM llm_job_edges ORDER BY 1, 2")


def assert_counted(board):
    """`pending` is the number of open edges, of every job."""
    assert (
        board.sql(
            "SELECT id, pending, (SELECT count(*) FROM llm_job_edges WHERE job_id = id AND state = 'open') AS open"
            " FROM llm_jobs WHERE pending <> open"
        )
        == []
    )


def finish(board, *ends):
    """Claim everything that waits, end each as `ends` says by id, and hand back the rest."""
    for claimed in board.claim(100):
        end_one(board, claimed, dict(ends).get(claimed.id, "handback"))
    assert_counted(board)


def end_one(board, claimed, how):
    lease, now = claimed.lease, board.now
    match how:
        case "complete":
            board.move(job_store.complete, lease, {"text": f"answer {claimed.id}"}, now, "runner-1")
        case "fail":
            board.move(job_store.fail, lease, {"class": "x", "message": "broke"}, now, "runner-1", "broke")
        case "handback":
            board.move(job_store.release, lease, cause="handback", reason="r", now=now, actor="runner-1")


# --- adding ------------------------------------------------------------------------------------------------------------------------------


def test_a_flow_is_added_whole_and_only_what_waits_on_nothing_may_start(board):
    added = board.queue.add_flow({"d": job("b", "c"), "b": job("a"), "c": job("a"), "a": job()})
    assert list(added) == ["d", "b", "c", "a"]
    assert states(board, *added.values()) == [PARKED, PARKED, PARKED, WAITING]
    assert [row.pending for row in board.queue.list()] == [2, 1, 1, 0]
    assert [taken.id for taken in board.claim(9)] == [added["a"].id]
    assert_counted(board)


def test_a_flow_may_be_a_list_of_flow_jobs(board):
    added = board.queue.add_flow(
        [FlowJob(name="b", type="chat", needs=["a"], policy="ignore"), {"name": "a", "type": "chat"}]
    )
    assert states(board, added["a"], added["b"]) == [WAITING, PARKED]
    assert board.sql("SELECT name, policy FROM llm_job_edges") == [("a", "ignore")]


@pytest.mark.parametrize(
    ("jobs", "field", "problem"),
    [
        ({"a": job("b"), "b": job("a")}, "jobs.a.needs", "a needs b needs a"),
        ({"a": job("a")}, "jobs.a.needs", "a needs a"),
        ({"z": job("a"), "a": job("b"), "b": job("c"), "c": job("a")}, "jobs.a.needs", "a needs b needs c needs a"),
        ({"a": job("nobody")}, "jobs.a.needs[0]", "'nobody'"),
        ([{"type": "chat", "name": "a"}, {"type": "chat", "name": "a"}], "jobs[1].name", "jobs[0]"),
        ([{"type": "chat"}], "jobs[0].name", "must be text"),
        ({"a": {"type": "chat", "name": "b"}}, "jobs.a.name", "calls it 'a'"),
        ({"a": job(), "b": job("a", "a")}, "jobs.b.needs[1]", "second time"),
        ({"a": job(), "b": job(("a", "hope"))}, "jobs.b.needs[0]", "fail, ignore, continue"),
        ({"a": job(), "b": job(("a", "fail", 1))}, "jobs.b.needs[0]", "pair"),
        ({"a": job(), "b": job("a", policy="hope")}, "jobs.b.policy", "fail, ignore, continue"),
        ({"a": job(), "b": job("a", quorum=2)}, "jobs.b.quorum", "from 1 to 1"),
        ({"a": job(), "b": job("a", quorum=True)}, "jobs.b.quorum", "from 1 to 1"),
        ({"a": job(), "b": {"type": "chat", "needs": "a"}}, "jobs.b.needs", "list"),
        ({"a": job(), "b": job(1.5)}, "jobs.b.needs[0]", "name of a job"),
        ({"a": job(99)}, "jobs.a.needs[0]", "no such job"),
        ({"a": job(data={"x": {1}})}, "jobs.a.data.x", "set"),
        ({"a": job(colour="red")}, "jobs.a.colour", "not a field"),
        ({"a": 5}, "jobs.a", "mapping"),
    ],
)
def test_a_flow_that_cannot_be_is_refused_whole_naming_the_field(board, jobs, field, problem):
    with pytest.raises(InvalidJobError) as refused:
        board.queue.add_flow(jobs)
    assert refused.value.field == field
    assert problem in refused.value.problem
    assert board.sql("SELECT count(*) FROM llm_jobs") == [(0,)]


def test_a_flow_longer_than_the_stack_is_deep(board):
    nodes = flow_nodes({str(n): job(str(n - 1)) if n else job() for n in reversed(range(5000))})
    assert [node.name for node in nodes] == [str(n) for n in range(5000)]
    ring = {str(n): job(str((n + 1) % 5000)) for n in range(5000)}
    with pytest.raises(InvalidJobError, match="circle"):
        flow_nodes(ring)


def test_a_job_may_wait_on_jobs_of_the_board(board):
    first, second = board.add(), board.add()
    last = board.queue.add("chat", needs=[first, (board.queue.get(second), "continue")])
    assert states(board, last) == [PARKED]
    finish(board, (first, "complete"), (second, "fail"))
    (claimed,) = board.claim()
    assert claimed.id == last.id
    assert [(given.job_id, given.ok, given.state) for given in claimed.inputs] == [
        (first, True, "completed"),
        (second, False, "failed"),
    ]
    for needs, problem in (([4711], "no such job"), (["plan"], "id of a job")):
        with pytest.raises(InvalidJobError, match=problem):
            board.queue.add("chat", needs=needs)


def test_what_has_ended_already_settles_at_once(board):
    done, broken = board.add(), board.add()
    finish(board, (done, "complete"), (broken, "fail"))
    assert states(board, board.queue.add("chat", needs=[done])) == [WAITING]
    assert states(board, board.queue.add("chat", needs=[done, (broken, "ignore")])) == [WAITING]
    assert states(board, board.queue.add("chat", needs=[done, broken], quorum="any")) == [WAITING]
    failed = board.queue.add("chat", needs=[done, broken])
    behind = board.queue.add("chat", needs=[failed])
    assert states(board, failed, behind) == [FAILED, FAILED]
    assert failed.error == {
        "class": "dependency",
        "message": f"what it waits on did not complete: job {broken} failed",
        "jobs": [broken],
    }
    assert_counted(board)


def test_a_flow_whose_jobs_have_keys_is_added_once(board):
    flow = {"a": job(key="a"), "b": job("a", key="b"), "c": job("a", "b")}
    first, again = board.queue.add_flow(flow), board.queue.add_flow(flow)
    assert [first[name].id == again[name].id for name in "abc"] == [True, True, False]
    assert board.sql("SELECT count(*) FROM llm_jobs") == [(4,)]
    assert_counted(board)
    finish(board, (first["a"].id, "complete"))
    finish(board, (first["b"].id, "complete"))
    assert states(board, first["c"], again["c"]) == [WAITING, WAITING]


def test_a_delayed_job_waits_for_its_time_and_for_what_it_needs(board):
    first = board.add()
    early, late = (board.queue.add("chat", needs=[first], delay=delay) for delay in (10, 60))
    assert states(board, early, late) == [JobState.DELAYED, JobState.DELAYED]
    board.now += 10_000
    assert board.move(claims.promote_due, board.now, 9) == 1
    assert states(board, early) == [PARKED]
    finish(board, (first, "complete"))
    assert states(board, early, late) == [WAITING, JobState.DELAYED]
    board.now += 50_000
    board.move(claims.promote_due, board.now, 9)
    assert states(board, late) == [WAITING]


def test_a_delayed_job_fails_with_what_it_needs(board):
    first = board.add()
    late = board.queue.add("chat", needs=[first], delay=60)
    finish(board, (first, "fail"))
    assert states(board, late) == [FAILED]


def test_started_within_counts_from_when_it_may_run(board):
    first = board.add()
    last = board.queue.add("chat", needs=[first], start_within=5)
    board.now += 60_000
    finish(board, (first, "complete"))
    assert last.row().start_by == board.now + 5000
    assert board.claim()[0].id == last.id


# --- settling ----------------------------------------------------------------------------------------------------------------------------


def end_by(board, job_id, how):
    """Make a job end, in each way there is."""
    if how == "cancelled":
        board.queue.cancel(job_id)
        return
    if how == "expired":
        board.now += 10_000
        board.move(claims.expire_unstarted, board.now, 9)
        return
    (claimed,) = board.claim()
    assert claimed.id == job_id
    lease, now = claimed.lease, board.now
    match how:
        case "completed" | "failed":
            end_one(board, claimed, {"completed": "complete", "failed": "fail"}[how])
        case "last attempt":
            board.move(job_store.retry_later, lease, {"class": "x"}, now + 9, now, "runner-1", "again")
        case "poison" | "parked":
            if how == "poison":
                board.sql(f"UPDATE llm_jobs SET alone = 1 WHERE id = {job_id}")
            else:
                board.sql(f'UPDATE llm_job_data SET options = \'{{"on_unknown": "park"}}\' WHERE job_id = {job_id}')
                board.sql(
                    "INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens,"
                    f" sent_at) VALUES ({job_id}, 1, 1, 's', 'f', 'p', 'm', 'k', 'open', 1, 1)"
                )
            board.move(job_store.release, lease, cause="loss", reason="r", now=now, actor="x")
        case "rescued as poison":
            board.sql(f"UPDATE llm_jobs SET alone = 1 WHERE id = {job_id}")
            board.move(claims.rescue, now=now, is_dead=lambda _: True, my_owner="other", limit=9)


ENDS = ("completed", "failed", "last attempt", "poison", "parked", "rescued as poison", "expired", "cancelled")


@pytest.mark.parametrize("policy", ["fail", "ignore", "continue"])
@pytest.mark.parametrize("how", ENDS)
def test_every_way_of_ending_settles_in_the_same_transaction(board, how, policy):
    first = board.add(max_attempts=1, start_within=5)
    strict = board.queue.add("chat", needs=[(first, policy)])
    end_by(board, first, how)
    goes_on = how == "completed" or policy != "fail"
    assert states(board, strict) == [WAITING if goes_on else FAILED]
    assert edges(board) == [(strict.id, first, "met" if goes_on else "failed")]
    assert_counted(board)
    if goes_on:
        (claimed,) = board.claim()
        (given,) = claimed.inputs
        assert given.counted
        assert given.ok == (how == "completed")
        assert (given.error is None) == given.ok


def test_a_failure_goes_down_the_flow_and_names_what_failed(board):
    added = board.queue.add_flow({"a": job(), "b": job("a"), "c": job("b"), "d": job(("c", "continue"))})
    finish(board, (added["a"].id, "fail"))
    assert states(board, *added.values()) == [FAILED, FAILED, FAILED, WAITING]
    assert added["b"].row().reason == f"what it waits on did not complete: job {added['a'].id} (a) failed"
    assert added["c"].row().reason == f"what it waits on did not complete: job {added['b'].id} (b) failed"
    assert added["b"].transitions()[-1].actor == "runner-1"
    (claimed,) = board.claim()
    assert claimed.inputs[0].name == "c"
    assert claimed.inputs[0].error["class"] == "dependency"


def test_other_needs_of_a_failed_job_are_moot(board):
    added = board.queue.add_flow({"a": job(), "b": job(), "c": job("a", "b")})
    finish(board, (added["a"].id, "fail"))
    assert [state for *_, state in edges(board)] == ["failed", "moot"]
    finish(board, (added["b"].id, "complete"))
    assert states(board, added["c"]) == [FAILED]


@pytest.mark.parametrize(
    ("quorum", "ends", "expected"),
    [
        ("any", ["complete"], "ready"),
        ("any", ["fail"], "parked"),
        ("any", ["fail", "fail", "complete"], "ready"),
        ("any", ["fail", "fail", "fail"], "failed"),
        (2, ["complete"], "parked"),
        (2, ["complete", "complete"], "ready"),
        (2, ["fail", "complete"], "parked"),
        (2, ["fail", "complete", "complete"], "ready"),
        (2, ["fail", "fail"], "failed"),
        ("all", ["complete", "complete"], "parked"),
        ("all", ["complete", "complete", "complete"], "ready"),
        ("all", ["complete", "fail"], "failed"),
    ],
)
def test_a_quorum_is_reached_or_out_of_reach(board, quorum, ends, expected):
    needs = {f"n{n}": job() for n in range(3)}
    added = board.queue.add_flow({**needs, "last": job(*needs, quorum=quorum)})
    for n, how in enumerate(ends):
        finish(board, (added[f"n{n}"].id, how))
    assert states(board, added["last"]) == [{"ready": WAITING, "parked": PARKED, "failed": FAILED}[expected]]
    left = {state for *_, state in edges(board)}
    assert ("open" in left) == (expected == "parked")


def test_a_late_result_is_not_given_so_that_every_attempt_sees_the_same(board):
    added = board.queue.add_flow({"a": job(), "b": job(), "c": job("a", "b", quorum="any", priority=9)})
    finish(board, (added["b"].id, "complete"))

    def given():
        (claimed,) = board.claim(1)
        board.move(job_store.release, claimed.lease, cause="handback", reason="r", now=board.now, actor="x")
        return [(one.name, one.counted, one.result) for one in claimed.inputs]

    before = given()
    assert before == [("a", False, None), ("b", True, {"text": f"answer {added['b'].id}"})]
    (a,) = [claimed for claimed in board.claim(2) if claimed.id == added["a"].id]
    end_one(board, a, "complete")
    board.now += 60_000
    board.move(claims.rescue, now=board.now, is_dead=lambda _: None, my_owner="other", limit=9)
    assert given() == before


def test_a_settled_edge_stays_settled_when_what_failed_is_sent_back(board):
    added = board.queue.add_flow({"a": job(), "b": job(("a", "continue"))})
    finish(board, (added["a"].id, "fail"))
    assert added["a"].retry()
    assert states(board, added["b"]) == [WAITING]
    assert edges(board) == [(added["b"].id, added["a"].id, "met")]


def test_a_job_sent_back_waits_for_what_is_live_again_and_goes_on_in_spite_of_the_rest(board):
    added = board.queue.add_flow({"a": job(), "b": job(), "c": job(), "d": job("a", "b", "c")})
    finish(board, (added["a"].id, "fail"))
    assert added["d"].retry()  # a failed, b and c are still to come
    assert states(board, added["d"]) == [PARKED]
    assert added["d"].row().pending == 2
    finish(board, (added["b"].id, "complete"), (added["c"].id, "complete"))
    assert states(board, added["d"]) == [WAITING]
    (claimed,) = board.claim()
    assert [(given.name, given.state) for given in claimed.inputs] == [
        ("a", "failed"),
        ("b", "completed"),
        ("c", "completed"),
    ]


def test_a_cancelled_job_that_is_sent_back_waits_again(board):
    added = board.queue.add_flow({"a": job(), "b": job("a")})
    assert added["b"].cancel()
    assert_counted(board)
    assert added["b"].retry()
    assert states(board, added["b"]) == [PARKED]
    finish(board, (added["a"].id, "complete"))
    assert states(board, added["b"]) == [WAITING]


def test_a_long_cascade_takes_many_short_transactions_and_none_too_long(board):
    added = board.queue.add_flow({str(n): job(str(n - 1)) if n else job() for n in range(1000)})
    (claimed,) = board.claim()
    end_one(board, claimed, "fail")
    assert board.sql("SELECT count(*) FROM llm_jobs WHERE state = 'failed'") == [(flows.EDGES_PER_PASS + 1,)]
    passes = 0
    while board.c.unsettled:
        board.move(flows.settle_more, board.now, "store")
        passes += 1
    assert passes == -(-(999 - flows.EDGES_PER_PASS) // flows.EDGES_PER_PASS)
    assert {row.state for row in board.queue.list(limit=2000)} == {FAILED}
    assert_counted(board)
    assert added["999"].row().reason.endswith("(998) failed")


def test_a_host_that_ends_a_long_cascade_goes_on_with_it_itself(board):
    added = board.queue.add_flow({str(n): job(str(n - 1)) if n else job() for n in range(700)})
    assert added["0"].cancel()
    assert states(board, added["699"]) == [FAILED]


def test_ten_thousand_who_wait_on_one_are_told_in_bounded_passes(board):
    added = board.queue.add_flow({"one": job(), **{str(n): job("one") for n in range(1000)}})
    (claimed,) = board.claim()
    end_one(board, claimed, "complete")
    assert board.sql("SELECT count(*) FROM llm_jobs WHERE state = 'waiting'") == [(flows.EDGES_PER_PASS,)]
    while board.c.unsettled:
        board.move(flows.settle_more, board.now, "store")
    assert board.sql("SELECT state, count(*) FROM llm_jobs GROUP BY 1") == [("completed", 1), ("waiting", 1000)]
    assert len(added) == 1001


# --- deciding, pure ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quorum", "groups", "expected"),
    [
        (None, [], Decision(0, (), False)),
        (None, [Group("", 2, 1, 3)], Decision(2, (), False)),
        (None, [Group("", 0, 3, 3)], Decision(0, (), False)),
        (None, [Group("", 1, 1, 3)], Decision(1, (), True)),
        (2, [Group("", 1, 2, 4)], Decision(0, ("",), False)),
        (2, [Group("", 1, 1, 4)], Decision(1, (), False)),
        (2, [Group("", 0, 1, 4)], Decision(0, (), True)),
        (1, [Group("@turn", 1, 0, 1), Group("", 1, 1, 2)], Decision(1, ("",), False)),
        (1, [Group("@turn", 0, 0, 1), Group("", 0, 1, 1)], Decision(0, (), True)),
    ],
)
def test_what_is_decided(quorum, groups, expected):
    assert decide(quorum, groups) == expected


# --- children ----------------------------------------------------------------------------------------------------------------------------


def spawn(board, claimed, count=2, step="children", quorum=None, policy="fail", **fields):
    inherits = frozenset({"queue", "model", "priority", "tag"}) - fields.keys()
    rows = [rows_of(NewJob(type="chat", data={"n": n}, **fields), board.now) for n in range(count)]
    made = [family.Child(row, body, inherits, policy) for row, body in rows]
    return board.move(family.spawn, claimed.lease, step, made, quorum, board.now, "runner-1")


def test_children_take_their_parents_place_and_it_comes_back_with_their_outcomes(board):
    parent = board.started(priority=7, tag="t")
    assert spawn(board, parent)
    row = board.queue.row(parent.id)
    assert (row.state, row.pending, row.lease_epoch, row.failures, row.losses, row.deferrals) == (PARKED, 2, 2, 0, 0, 0)
    children = board.queue.get(parent.id).children()
    assert [(child.row().priority, child.row().tag, child.row().parent_id) for child in children] == [
        (7, "t", parent.id)
    ] * 2
    assert [child.data for child in children] == [{"n": 0}, {"n": 1}]
    assert children[0].transitions()[0].actor == "runner-1"
    finish(board, *((child.id, "complete") for child in children))
    (again,) = board.claim()
    assert (again.id, again.attempt) == (parent.id, 2)
    assert again.memo.values == {"children": [child.id for child in children]}
    assert [(given.job_id, given.ok) for given in again.outcomes("children")] == [
        (child.id, True) for child in children
    ]
    assert again.inputs == ()


def test_who_lost_its_lease_creates_nothing(board):
    parent = board.started()
    assert board.queue.cancel(parent.id)
    assert not spawn(board, parent)
    assert board.sql("SELECT count(*) FROM llm_jobs") == [(1,)]
    assert board.sql("SELECT count(*) FROM llm_steps") == [(0,)]


def test_children_of_children_and_of_a_second_step_with_another_quorum(board):
    parent = board.started()
    spawn(board, parent, step="first", quorum=1)
    first, second = board.queue.get(parent.id).children()
    finish(board, (first.id, "fail"))
    finish(board, (second.id, "complete"))
    (parent,) = board.claim()
    # Two must be met now; that the first step had only one, and a failure, was decided by its own quorum.
    assert spawn(board, parent, count=2, step="second", quorum=2)
    child, sibling = board.queue.get(parent.id).children()[2:]
    claimed, other = board.claim(2)
    assert (claimed.id, other.id) == (child.id, sibling.id)
    spawn(board, claimed, count=1)
    end_one(board, other, "complete")
    (grandchild,) = child.children()
    finish(board, (grandchild.id, "complete"))
    finish(board, (child.id, "complete"))
    (parent,) = board.claim()
    assert [given.ok for given in parent.outcomes("first")] == [False, True]
    assert [given.ok for given in parent.outcomes("second")] == [True, True]


def test_a_childs_failure_fails_its_parent_unless_the_policy_says_otherwise(board):
    for policy, expected in (("fail", FAILED), ("continue", WAITING)):
        parent = board.started()
        spawn(board, parent, count=1, policy=policy)
        (child,) = board.queue.get(parent.id).children()
        finish(board, (child.id, "fail"))
        assert states(board, parent.id) == [expected]
        board.queue.cancel(parent.id)


# --- repair ------------------------------------------------------------------------------------------------------------------------------


def repair(board, after=0, limit=500):
    return board.move(flows.repair, after=after, now=board.now, actor="store", limit=limit)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("UPDATE llm_jobs SET state = 'cancelled' WHERE id = {a}", [FAILED]),
        ("UPDATE llm_jobs SET pending = 7 WHERE id = {b}", [PARKED]),
        ("UPDATE llm_jobs SET pending = 0 WHERE id = {b}", [PARKED]),
        ("DELETE FROM llm_jobs WHERE id = {a}", [WAITING]),
        ("DELETE FROM llm_job_edges", [WAITING]),
    ],
)
def test_no_job_is_parked_for_ever_whatever_other_hands_do(board, damage, expected):
    added = board.queue.add_flow({"a": job(), "b": job("a"), "other": job(), "sound": job("other")})
    board.sql(damage.format(a=added["a"].id, b=added["b"].id))
    fixed = repair(board)
    assert fixed.jobs[0] == added["b"].id
    assert states(board, added["b"]) == expected
    assert_counted(board)
    assert repair(board) == ([], 0)


def test_a_row_inserted_as_parked_that_waits_on_nothing_is_released(board):
    board.sql("INSERT INTO llm_jobs (type, state, pending) VALUES ('chat', 'waiting_children', 3)")
    assert len(repair(board).jobs) == 1
    assert board.queue.list()[0].state == WAITING


def test_the_repair_looks_at_a_part_at_a_time_and_comes_to_every_one(board):
    added = board.queue.add_flow({"a": job(), **{str(n): job("a") for n in range(10)}})
    board.sql(f"UPDATE llm_jobs SET pending = 5 WHERE id = {added['9'].id}")
    after, found = 0, []
    for _ in range(4):
        fixed, after = repair(board, after, limit=4)
        found += fixed
    assert found == [added["9"].id]
    assert after == 0 or after >= added["3"].id
    assert_counted(board)


def test_the_repair_finishes_a_cascade_whose_writer_died(board):
    board.queue.add_flow({str(n): job(str(n - 1)) if n else job() for n in range(1000)})
    (claimed,) = board.claim()
    end_one(board, claimed, "fail")
    board.c.unsettled.clear()  # the process is gone
    for _ in range(20):
        repair(board)
        while board.c.unsettled:
            board.move(flows.settle_more, board.now, "store")
    assert {row.state for row in board.queue.list(limit=2000)} == {FAILED}


# --- trees -------------------------------------------------------------------------------------------------------------------------------


def test_cancelling_a_tree_takes_what_is_there_for_it_and_nothing_else(board):
    added = board.queue.add_flow(
        {
            "deep": job(),
            "only": job("deep"),
            "shared": job(),
            "root": job("only", "shared", priority=-1),
            "other": job("shared"),
            "after": job("root"),
        }
    )
    assert board.queue.cancel(added["root"].id, tree=True)
    assert {name: str(one.state) for name, one in added.items()} == {
        "deep": "cancelled",
        "only": "cancelled",
        "shared": "waiting",
        "root": "cancelled",
        "other": "waiting_children",
        "after": "failed",
    }
    assert_counted(board)
    assert not added["root"].cancel(tree=True)
    with pytest.raises(JobNotFoundError):
        board.queue.cancel(4711, tree=True)


def test_cancelling_a_tree_takes_children_to_any_depth_even_of_those_that_ended(board):
    root = board.started()
    spawn(board, root)
    first, second = board.queue.get(root.id).children()
    (claimed, _) = board.claim(2)
    spawn(board, claimed)
    grandchildren = first.children()
    assert first.cancel()  # the root fails with it; its grandchildren go on
    assert states(board, root.id, second) == [FAILED, JobState.ACTIVE]
    assert board.queue.cancel_tree(root.id, "enough") == 3
    assert states(board, second, *grandchildren) == [JobState.CANCELLED] * 3
    assert second.row().reason == "enough"


def test_a_dependency_that_two_of_the_tree_wait_on_goes_too(board):
    added = board.queue.add_flow({"x": job(), "l": job("x"), "r": job("x", "l"), "root": job("l", "r")})
    assert board.queue.cancel_tree(added["root"].id) == 4


def test_a_large_tree_is_cancelled_in_chunks_from_the_top(board):
    added = board.queue.add_flow({str(n): job(str(n - 1)) if n else job() for n in range(1200)})
    assert board.queue.cancel_tree(added["1199"].id) == 1200
    assert board.sql("SELECT count(*) FROM llm_jobs WHERE state <> 'cancelled'") == [(0,)]


def test_what_a_job_waits_on_is_told(board):
    added = board.queue.add_flow({"plan": job(), "b": job(), "c": job("plan", "b", quorum=2)})
    finish(board, (added["b"].id, "complete"))
    assert added["c"].why() == f"waits on 1 of 2 jobs, 2 needed, 1 done: job {added['plan'].id} (plan) waiting"
    assert [one.id for one in added["c"].dependencies()] == [added["plan"].id, added["b"].id]
    assert [one.id for one in added["plan"].dependents()] == [added["c"].id]


# --- cost --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("analysed", [False, True])
def test_no_statement_reads_a_table_from_end_to_end(board, analysed):
    board.queue.add_flow({str(n): job(str(n - 1)) if n else job() for n in range(50)})
    if analysed:
        board.sql("ANALYZE")
    prepared = {
        name: value
        for module in (flows, family)
        for name, value in vars(module).items()
        if isinstance(value, Prepared) and not value.sql.startswith("INSERT")
    }
    assert len(prepared) > 25
    for name, statement in prepared.items():
        parameters = dict.fromkeys(re.findall(r":(\w+)", statement.sql), 1)
        plan = board.c.run(Prepared.of(f"EXPLAIN QUERY PLAN {statement.sql}"), parameters)
        scans = [line for *_, line in plan if line.startswith("SCAN") and not any(ours in line for ours in HARMLESS)]
        assert scans == [], (name, plan)


HARMLESS = ("VIRTUAL TABLE", "parked", "SCAN (subquery", "llm_jobs_parked", "sqlite_sequence", "CONSTANT ROW")
