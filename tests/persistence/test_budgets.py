"""Budgets in the ledger's transactions: what fits, what is refused and how, and what every outcome leaves."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.persistence import budgets, claims, family, job_store, ledger, retention
from callboard.persistence.budgets import Budget, Refusal
from callboard.persistence.engine import open_database
from callboard.persistence.errors import InvalidJobError, JobNotFoundError
from callboard.persistence.family import Child
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.model import CallIntent, CallOutcome
from callboard.persistence.new_job import as_new_job, rows_of

CENT = Budget(name="cent", cost=10_000_000)


def ask(board, job, *rules, amount=4_000_000, tokens=100, step="main", provider="p", model="m"):
    """What the store does with an intent: its call's id, or the refusal."""
    with board.c.write():
        asked = budgets.claims(
            board.c,
            rules,
            budgets.known(board.c),
            job_id=job.id,
            provider=provider,
            model=model,
            amount=amount,
            tokens=tokens,
            now=board.now,
        )
        refusal = budgets.check(board.c, asked, provider=provider, model=model, now=board.now)
        if refusal is not None:
            return refusal
        intent = CallIntent(
            step=step,
            fingerprint="f",
            provider=provider,
            model=model,
            limit_key="k",
            reserved_tokens=tokens,
            reserved_cost=amount,
        )
        call = ledger.record_intent(board.c, job.lease, intent, board.now)
        budgets.reserve(board.c, asked, call, board.now)
        return call


def ends(board, job, call, state="completed", cost=None, usage=None, **more):
    completion = {"text": "x"} if state == "completed" else None
    outcome = CallOutcome(state=state, completion=completion, cost=cost, usage=usage, **more)
    board.move(ledger.record_outcome, job.lease, call, outcome, board.now)


def standing(board, name="cent", period=""):
    """Spent, reserved, tokens spent, tokens reserved."""
    return next(
        (s.spent, s.reserved, s.tokens_spent, s.tokens_reserved)
        for s in board.queue.budgets()
        if (s.budget, s.period) == (name, period)
    )


def test_a_call_reserves_and_its_real_cost_takes_the_reservation_s_place(board):
    job = board.started()
    call = ask(board, job, CENT)
    assert standing(board) == (0, 4_000_000, 0, 100)
    ends(board, job, call, cost=1_234, usage={"input_uncached": 7, "output_visible": 3})
    assert standing(board) == (1_234, 0, 10, 0)
    ends(board, job, call, cost=1_234)
    assert standing(board) == (1_234, 0, 10, 0)


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        ({"state": "failed", "error": {"class": "rate", "billed": "no"}}, (0, 0, 0, 0)),
        ({"state": "failed", "error": {"class": "truncated", "billed": "yes"}}, (4_000_000, 0, 100, 0)),
        ({"state": "failed", "error": {"class": "refusal"}, "cost": 77}, (77, 0, 100, 0)),
        ({"state": "completed", "cost": None}, (4_000_000, 0, 100, 0)),
        ({"state": "unknown", "error": {"class": "timeout", "billed": "maybe"}}, (0, 4_000_000, 0, 100)),
    ],
)
def test_what_an_outcome_leaves(board, outcome, left):
    job = board.started()
    ends(board, job, ask(board, job, CENT), **outcome)
    assert standing(board) == left


def test_an_unknown_outcome_that_is_known_after_all_is_settled(board):
    job = board.started()
    call = ask(board, job, CENT)
    board.move(job_store.release, job.lease, cause="loss", reason="died", now=board.now, actor="x")
    assert board.sql("SELECT state FROM llm_calls") == [("unknown",)]
    assert standing(board)[:2] == (0, 4_000_000)
    ends(board, job, call, cost=9)  # the zombie was answered
    assert standing(board)[:2] == (9, 0)


def test_what_does_not_fit_is_refused_and_nothing_is_written(board):
    board.queue.add_many([{"type": "chat"}] * 3)
    one, two, three = board.claim(slots=3)
    ends(board, one, ask(board, one, CENT), cost=8_000_000, usage={"input_uncached": 1})
    before = board.snapshot()
    refusal = ask(board, two, CENT)
    assert (refusal.key, refusal.action, refusal.until) == ("cent", "stop", None)
    assert "$0.01" in refusal.reason
    assert "$0.008 spent" in refusal.reason
    assert board.snapshot() == before
    assert isinstance(ask(board, three, CENT, amount=2_000_000), int)


def test_one_that_fits_when_others_give_back_waits_for_them(board):
    board.queue.add_many([{"type": "chat"}] * 3)
    one, two, three = board.claim(slots=3)
    first = ask(board, one, CENT, amount=8_000_000)
    refusal = ask(board, two, CENT)
    assert (refusal.action, refusal.until) == ("wait", board.now + budgets.LOOK_AGAIN_MS)
    ends(board, one, first, state="unknown", error={"class": "timeout"})
    assert ask(board, three, CENT).action == "stop"  # what is unknown is not given back


def test_a_price_that_is_not_known_is_refused_unless_something_is_assumed(board):
    job = board.started()
    assert "price of p:m is not known" in ask(board, job, CENT, amount=None).reason
    by_tokens = Budget(name="t", tokens=1000)
    assert isinstance(ask(board, job, by_tokens, amount=None, step="a"), int)
    assert standing(board, "t") == (0, 0, 0, 100)
    assumed = Budget(name="cent", cost=10_000_000, assume=6_000_000)
    assert isinstance(ask(board, job, assumed, amount=None, step="b"), int)
    assert ask(board, job, assumed, amount=None, step="c").action == "wait"


def test_tokens_are_a_budget_of_their_own(board):
    job = board.started()
    rule = Budget(name="t", tokens=150)
    assert isinstance(ask(board, job, rule, step="a"), int)
    refusal = ask(board, job, rule, step="b")
    assert "150 tokens" in refusal.reason


@pytest.mark.parametrize(
    ("rule", "same", "other"),
    [
        (Budget(name="b", cost=5_000_000, scope="tag", value="x"), {"tag": "x"}, {"tag": "y"}),
        (Budget(name="b", cost=5_000_000, scope="tag"), {"tag": "x"}, {"tag": "y"}),
        (Budget(name="b", cost=5_000_000, scope="tag"), {"tag": "x"}, {}),
        (Budget(name="b", cost=5_000_000, scope="job"), None, {}),
        (Budget(name="b", cost=5_000_000, scope="tree"), None, {}),
        (Budget(name="b", cost=5_000_000, scope="model", value="p:m"), {}, {"model": "n"}),
        (Budget(name="b", cost=5_000_000, scope="provider"), {"model": "n"}, {"provider": "q"}),
    ],
)
def test_scopes(board, rule, same, other):
    board.queue.add_many(
        [{"type": "chat", "tag": (same or {}).get("tag")}] * 2 + [{"type": "chat", "tag": other.get("tag")}]
    )
    one, two, three = board.claim(slots=3)
    where = {name: value for name, value in (same or {}).items() if name != "tag"}
    elsewhere = {name: value for name, value in other.items() if name != "tag"}
    assert isinstance(ask(board, one, rule), int)
    assert isinstance(ask(board, one if same is None else two, rule, step="again", **where), Refusal)
    assert isinstance(ask(board, three, rule, **elsewhere), int)


def test_a_job_s_budget_is_that_of_all_it_creates(board):
    parent = board.started(options={"budget": 0.01})
    children = [Child(*rows_of(as_new_job({"type": "chat"}), board.now), frozenset(), "ignore") for _ in range(2)]
    board.move(family.spawn, parent.lease, "children", children, None, board.now, "runner")
    one, two = board.claim(slots=2)
    grandchild = Child(*rows_of(as_new_job({"type": "chat"}), board.now), frozenset(), "ignore")
    call = ask(board, one, amount=7_000_000)
    ends(board, one, call, cost=7_000_000)
    board.move(family.spawn, one.lease, "more", [grandchild], None, board.now, "runner")
    (three,) = board.claim()
    refusal = ask(board, three)
    assert (refusal.key, refusal.action) == (f"job:{parent.id}", "stop")
    assert board.sql(f"SELECT DISTINCT root_id FROM llm_jobs WHERE id <> {parent.id}") == [(parent.id,)]
    assert isinstance(ask(board, two, amount=3_000_000), int)
    board.queue.set_job_budget(parent.id, 0.02)
    assert isinstance(ask(board, three), int)
    with pytest.raises(JobNotFoundError):
        board.queue.set_job_budget(999, 1)


def test_the_refusal_that_weighs_most_counts(board):
    job = board.started()
    pause, stop = Budget(name="a", cost=1, action="pause"), Budget(name="b", cost=1)
    assert ask(board, job, pause).action == "pause"
    assert ask(board, job, pause, stop).key == "b"
    cheaper = Budget(name="c", cost=1, action="downgrade", downgrade_to="mini")
    assert (ask(board, job, pause, cheaper).action, ask(board, job, cheaper).model) == ("downgrade", "mini")


def test_a_period_begins_anew_at_its_end_in_its_time_zone(board):
    board.now = round(datetime(2026, 3, 29, 0, 30, tzinfo=UTC).timestamp() * 1000)  # a day of 23 hours in Berlin
    rule = Budget(name="day", cost=5_000_000, period="day", timezone="Europe/Berlin", action="pause")
    job = board.started()
    ends(board, job, ask(board, job, rule), cost=4_000_000)
    refusal = ask(board, job, rule, step="b")
    assert refusal.action == "pause"
    assert refusal.until == round(datetime(2026, 3, 29, 22, 0, tzinfo=UTC).timestamp() * 1000)
    board.now = refusal.until - 1
    assert isinstance(ask(board, job, rule, step="b"), Refusal)
    board.now = refusal.until
    assert isinstance(ask(board, job, rule, step="b"), int)
    assert [s.period for s in board.queue.budgets()] == ["2026-03-30", "2026-03-29"]
    assert ask(board, job, rule, step="c", amount=6_000_000).action == "stop"  # no day would be long enough
    month = budgets.period_at(Budget(name="m", cost=1, period="month"), board.now)
    assert month == ("2026-03", round(datetime(2026, 4, 1, tzinfo=UTC).timestamp() * 1000))
    december = budgets.period_at(Budget(name="m", cost=1, period="month"), 1_798_000_000_000)
    assert december == ("2026-12", round(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000))


def test_a_deleted_job_leaves_no_reservation_behind(board):
    job = board.started()
    ask(board, job, CENT)
    board.move(job_store.fail, job.lease, {"class": "x", "message": ""}, board.now, "x", "x")
    assert standing(board)[:2] == (0, 4_000_000)
    board.move(retention.delete, [job.id])
    assert standing(board) == (4_000_000, 0, 100, 0)  # it may have been paid for
    assert board.sql("SELECT count(*) FROM llm_budget_reservations") == [(0,)]


def test_the_count_of_a_job_s_own_budget_goes_with_the_job(board):
    job = board.started(options={"budget": 1})
    ends(board, job, ask(board, job, CENT), cost=7)
    assert {s.budget: s.spent for s in board.queue.budgets()} == {"cent": 7, f"job:{job.id}": 7}
    assert len(board.queue.budgets(limit=1)) == 1
    board.move(job_store.complete, job.lease, None, board.now, "x")
    board.move(retention.delete, [job.id])
    assert {s.budget: s.spent for s in board.queue.budgets()} == {"cent": 7}


def test_budgets_on_the_board_hold_for_every_worker_and_can_be_raised(board):
    board.queue.set_budget("run", dollars=0.005, scope="tag", value="x", action="pause")
    board.queue.add_many([{"type": "chat", "tag": "x"}] * 2)
    one, two = board.claim(slots=2)
    ends(board, one, ask(board, one), cost=4_000_000)
    refusal = ask(board, two)
    board.move(
        job_store.release,
        two.lease,
        cause="deferral",
        reason=refusal.reason,
        now=board.now,
        actor="x",
        held_by=f"{budgets.HELD_BY}{refusal.key}",
        held_until=refusal.until,
    )
    assert board.claim() == []
    assert "budget run" in board.queue.why(two.id)
    board.queue.set_budget("run", dollars=0.02, scope="tag", value="x", action="pause")
    (two,) = board.claim()
    assert isinstance(ask(board, two), int)
    board.queue.set_budget("run", dollars=0.02, scope="tag", value="x", spent=15_000_000)
    assert standing(board, "run")[0] == 15_000_000  # for what was spent while it was not there
    board.queue.set_budget("run", dollars=0.02, scope="tag", value="x", spent=3)
    assert standing(board, "run")[0] == 15_000_000
    assert board.queue.drop_budget("run") is True
    assert board.queue.drop_budget("run") is False


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "dollars"),
        ({"dollars": 1, "scope": "moon"}, "scope"),
        ({"dollars": 1, "action": "downgrade"}, "downgrade_to"),
        ({"dollars": 1, "timezone": "Mars/Base"}, "timezone"),
        ({"dollars": 1, "name": "job:7"}, "name"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(board, fields, field):
    with pytest.raises(InvalidJobError) as told:
        board.queue.set_budget(**{"name": "b", **fields})
    assert told.value.field == field


amounts = st.integers(0, 4_000_000)
outcomes = st.sampled_from(["completed", "failed", "billed", "unknown", "unpriced", "dies", "deleted", "still open"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(amounts, outcomes, st.integers(0, 100)), max_size=25), st.integers(0, 12_000_000))
def test_no_order_of_calls_and_ends_exceeds_a_budget(tmp_path_factory, calls, cap):
    """Spent and reserved are what a plain model says, and together never above the cap: each call costs at most what it reserved."""
    path = tmp_path_factory.mktemp("budget") / "board.db"
    database = open_database(f"sqlite:///{path}", create=True, synchronous="NORMAL")
    board = SimpleNamespace(now=1, c=database.connect(), queue=JobQueue(database, clock=lambda: 1))
    board.c.pragma("synchronous", "OFF")

    def move(function, *args, **named):
        with board.c.write():
            return function(board.c, *args, **named)

    board.move = move
    rule = Budget(name="cent", cost=cap)
    spent = reserved = 0
    for amount, end, share in calls:
        job_id = board.queue.add("chat").id
        (job,) = move(claims.claim, owner="w", slots=1, quotas={"default|chat||": 1}, lease_until=99, now=1, actor="s")
        assert job.id == job_id
        answer = ask(board, job, rule, amount=amount)
        assert isinstance(answer, int) == (spent + reserved + amount <= cap)
        if isinstance(answer, Refusal):
            move(job_store.complete, job.lease, None, 1, "x")
            continue
        reserved += amount
        if end == "completed":
            ends(board, job, answer, cost=amount * share // 100)
            spent, reserved = spent + amount * share // 100, reserved - amount
        elif end in ("billed", "unpriced"):
            ends(board, job, answer, "failed" if end == "billed" else "completed", error={"billed": "yes"})
            spent, reserved = spent + amount, reserved - amount
        elif end == "failed":
            ends(board, job, answer, "failed", error={"billed": "no"})
            reserved -= amount
        elif end == "unknown":
            ends(board, job, answer, "unknown")
        if end in ("dies", "deleted"):
            move(job_store.fail, job.lease, {"class": "x", "message": ""}, 1, "x", "x")
        elif end != "still open":
            move(job_store.complete, job.lease, None, 1, "x")
        if end == "deleted":
            move(retention.delete, [job.id])
            spent, reserved = spent + amount, reserved - amount
        assert standing(board)[:2] == (spent, reserved)
        assert spent + reserved <= cap
        assert board.c.script("SELECT coalesce(sum(amount), 0) FROM llm_budget_reservations") == [(reserved,)]
    board.queue.close()
    board.c.close()
    database.close()
