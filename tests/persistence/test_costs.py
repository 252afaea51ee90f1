"""What calls have cost, by what one asks for."""

import pytest

from callboard.persistence import family, job_store, ledger, retention
from callboard.persistence.errors import InvalidJobError
from callboard.persistence.family import Child
from callboard.persistence.model import CallIntent, CallOutcome
from callboard.persistence.new_job import as_new_job, rows_of

DAY = 86_400_000


def call(board, job, step, cost, *, model="m", provider="p", state="completed", reserved=50):
    intent = CallIntent(
        step=step,
        fingerprint="f",
        provider=provider,
        model=model,
        limit_key="k",
        reserved_tokens=1,
        reserved_cost=reserved,
    )
    made = board.move(ledger.record_intent, job.lease, intent, board.now)
    if state != "open":
        usage = {"input_uncached": 3, "cache_write_1h": 1, "output_visible": 2} if state == "completed" else None
        completion = {"text": "x"} if state == "completed" else None
        outcome = CallOutcome(state=state, completion=completion, cost=cost, usage=usage, price_id="abc")
        board.move(ledger.record_outcome, job.lease, made, outcome, board.now)


def by(board, what, **more):
    return {row.name: (row.calls, row.cost, row.unpriced) for row in board.queue.costs(what, **more)}


@pytest.fixture
def spent(board):
    """A parent with a child, a day later a job with another tag and model; one call without a price, one unknown, one open."""
    parent = board.started(tag="a")
    call(board, parent, "one", 100)
    child = Child(*rows_of(as_new_job({"type": "chat"}), board.now), frozenset({"tag"}), "ignore")
    board.move(family.spawn, parent.lease, "children", [child], None, board.now, "x")
    (inner,) = board.claim()
    call(board, inner, "two", 20)
    call(board, inner, "unpriced", None)
    board.now += DAY
    other = board.started(tag="b")
    call(board, other, "three", 7, model="n", provider="q")
    call(board, other, "lost", None, model="n", provider="q", state="unknown")
    call(board, other, "open", None, model="n", provider="q", state="open")
    return parent, inner, other


def test_costs_by_each(board, spent):
    parent, inner, other = spent
    assert by(board, "job") == {
        str(parent.id): (1, 100, 0),
        str(inner.id): (2, 20, 1),
        str(other.id): (3, 7, 0),
    }
    assert by(board, "tree") == {str(parent.id): (3, 120, 1), str(other.id): (3, 7, 0)}
    assert by(board, "tag") == {"a": (3, 120, 1), "b": (3, 7, 0)}
    assert by(board, "model") == {"p:m": (3, 120, 1), "q:n": (3, 7, 0)}
    assert by(board, "provider") == {"p": (3, 120, 1), "q": (3, 7, 0)}
    assert by(board, "day") == {"2023-11-14": (3, 120, 1), "2023-11-15": (3, 7, 0)}
    assert by(board, "type") == {"chat": (6, 127, 1)}
    assert by(board, "queue") == {"default": (6, 127, 1)}
    (total,) = board.queue.costs("all")
    assert (total.input, total.output, total.cache_write_1h) == (16, 8, 4)
    assert (total.reserved, total.unknown, total.unknown_cost) == (50, 1, 50)
    assert by(board, "all", since=board.now) == {"all": (3, 7, 0)}
    assert by(board, "all", before=board.now) == {"all": (3, 120, 1)}
    assert by(board, "model", tag="b") == {"q:n": (3, 7, 0)}
    assert list(by(board, "tag")) == ["a", "b"]  # the dearest first
    with pytest.raises(InvalidJobError, match="by: must be one of all, job"):
        board.queue.costs("moon")


def test_a_tree_s_cost_is_that_of_all_it_created(board, spent):
    parent, inner, _ = spent
    assert board.queue.tree_cost(parent.id)[:4] == (2, 3, 120, 1)
    assert board.queue.tree_cost(inner.id)[:4] == (1, 2, 20, 1)


def test_deleted_jobs_stay_in_the_sums(board, spent):
    _, _, other = spent
    call(board, other, "elsewhere", 1000, model="far", provider="q")
    board.move(job_store.complete, other.lease, None, board.now, "x")
    board.move(retention.delete, [other.id])
    assert by(board, "model")["q:n"] == (3, 7, 0)
    assert by(board, "model")["q:far"] == (1, 1000, 0)
    assert by(board, "provider")["q"] == (4, 1007, 0)
    assert by(board, "tag")["b"] == (4, 1007, 0)
    assert by(board, "day")["2023-11-15"] == (4, 1007, 0)
    assert by(board, "job")["(deleted jobs)"] == (4, 1007, 0)
    assert by(board, "all", since=board.now) == {"all": (4, 1007, 0)}


def test_the_price_and_every_bucket_are_in_the_ledger(board, spent):
    rows = board.sql("SELECT DISTINCT price_id, cache_write_1h FROM llm_calls WHERE state = 'completed'")
    assert rows == [("abc", 1)]
