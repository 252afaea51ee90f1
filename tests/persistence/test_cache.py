"""What is kept of answers, who leads a call that others wait for, and what goes first when there is too much."""

import pytest

from callboard.persistence import cache
from callboard.persistence.cache import Flight
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.model import CallIntent, Lease

INTENT = CallIntent(
    step="s", fingerprint="f", provider="p", model="m", limit_key="p/m", reserved_tokens=5, reserved_cost=7
)
ANSWER = {"text": "yes", "finish": "stop"}
NOW = 1_000_000


@pytest.fixture
def board(path):
    """A queue and a connection in a transaction, with two jobs in hand."""
    with JobQueue(path) as queue:
        queue.add_many([{"type": "chat"}] * 2)
        with queue._writer() as c:
            c.script(
                "UPDATE llm_jobs SET state = 'active', lease_owner = 'w', lease_until = 1, lease_epoch = 1, attempt = 1"
            )
            yield c


ONE, TWO = Lease(1, 1), Lease(2, 1)


def give(c, key="k", lease=ONE, age=1000, now=NOW):
    return cache.give(c, key, lease, INTENT, age, now)


def test_an_answer_is_given_while_it_is_young_enough(board):
    assert give(board) is None
    cache.keep(board, "k", ANSWER, 12, NOW)
    assert give(board, now=NOW + 1001) is None
    assert give(board, now=NOW + 1000) == ANSWER
    assert board.script("SELECT state, origin, requests, cost, saved, finish, reserved_cost FROM llm_calls") == [
        ("completed", "cache", 0, 0, 12, "stop", None)
    ]
    assert board.script("SELECT count(*) FROM llm_call_completions") == [(1,)]
    assert cache.status(board) == (1, len('{"text":"yes","finish":"stop"}'), 1, NOW, NOW, 1, 12)


def test_a_void_lease_is_given_nothing_and_leads_nothing(board):
    cache.keep(board, "k", ANSWER, None, NOW)
    assert give(board, lease=Lease(1, 2)) is None
    assert not cache.lead(board, Flight("k", Lease(1, 2), 1), NOW)
    assert board.script("SELECT count(*) FROM llm_calls") == [(0,)]


def test_one_leads_until_it_lands_or_its_lease_is_void(board):
    first, second = Flight("k", ONE, 1), Flight("k", TWO, 1)
    assert cache.lead(board, first, NOW)
    assert cache.lead(board, first, NOW), "who asks again still leads"
    assert not cache.lead(board, second, NOW)
    assert not cache.lead(board, Flight("k", ONE, 2), NOW), "another call of the same job waits like any"
    assert cache.lead(board, Flight("other", TWO, 1), NOW)
    cache.land(board, second)
    assert not cache.lead(board, second, NOW), "only the leader can land"
    cache.land(board, first)
    assert cache.lead(board, second, NOW)
    board.script("UPDATE llm_jobs SET lease_epoch = 2 WHERE id = 2")
    assert cache.lead(board, first, NOW)
    assert cache.forget_flights(board) == 1, "the other one's, of the lease that is void"


@pytest.mark.parametrize(
    ("most", "size", "left"), [(2, 10**6, ["b", "c"]), (9, 61, ["b", "c"]), (9, 29, []), (3, 90, ["a", "b", "c"])]
)
def test_the_least_recently_used_go_first(board, most, size, left):
    for place, key in enumerate("cab"):
        cache.keep(board, key, ANSWER, None, NOW + place)  # 30 bytes each
    give(board, "c", now=NOW + 10)
    cache.prune(board, most, size)
    assert [key for (key,) in board.script('SELECT "key" FROM llm_cache ORDER BY 1')] == left


def test_dropping_goes_in_steps(board):
    for number in range(cache.STEP + 1):
        cache.keep(board, str(number), ANSWER, None, NOW + number)
    assert [cache.clear(board) for _ in range(3)] == [cache.STEP, 1, 0]
