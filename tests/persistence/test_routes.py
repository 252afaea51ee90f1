"""What a host says of a job whose model's key is on hold: from what workers have said of their models, along chains as the dispatcher goes."""

import pytest

from callboard.persistence import limits, routes
from callboard.persistence.routes import DEFAULT, ModelRoute

FREE = "waiting for a free runner"


@pytest.fixture
def published(board):
    def publish(**told):
        with board.c.write():
            routes.publish(
                board.c, {name.replace("__", ":"): ModelRoute(*route) for name, route in told.items()}, board.now
            )

    return publish


def hold(board, key, kind="quota", seconds=60):
    with board.c.write():
        limits.set_hold(board.c, key, board.now + seconds * 1000, f"{kind}: says {key}", board.now, kind)


def why(board, model="small", kind="chat"):
    return board.queue.why(board.add(kind, model=model))


def test_it_says_which_key_since_when_until_when_and_why(board, published):
    published(small=(("acme/small-1",),))
    hold(board, "acme/small-1", "rate")
    board.now += 10_000
    assert why(board) == (
        "the limit key of its model, acme/small-1, is on hold since 2023-11-14T22:13:20+00:00"
        " until 2023-11-14T22:14:20+00:00 (rate): rate: says acme/small-1"
    )
    board.now += 50_000
    assert why(board).startswith(FREE), "it is over"


@pytest.mark.parametrize("kind", ["quota", "auth"])
def test_of_an_account_that_a_person_must_see_to_it_says_how_it_is_lifted(board, published, kind):
    published(small=(("acme/small-1",),))
    hold(board, "acme/other", kind)
    assert why(board).startswith(FREE), "a key of the same account is none of its own"
    hold(board, "acme", kind)
    told = why(board)
    assert told.startswith("the limit key of its model, acme, is on hold since")
    assert told.endswith("; put that right, then: callboard limits --resume acme")


def test_a_job_that_can_go_elsewhere_is_not_held(board, published):
    published(small=(("acme/small-1", "beta/x", "gamma/y"), frozenset({"quota"})))
    hold(board, "acme", "quota")
    assert why(board).startswith(FREE)
    hold(board, "beta/x", "quota")
    assert why(board).startswith(FREE)
    hold(board, "gamma/y", "auth", seconds=90)
    told = why(board)
    assert "acme, is on hold" in told
    assert "; beta/x, to which it would go on, is too, until 2023-11-14T22:14:20+00:00 (quota)" in told
    assert "; gamma/y, to which it would go on, is too, until 2023-11-14T22:14:50+00:00 (auth)" in told


def test_a_chain_that_is_not_gone_along_after_such_a_hold_is_no_way_out(board, published):
    published(small=(("acme/small-1", "beta/x"), frozenset({"breaker"})))
    hold(board, "acme/small-1", "rate")
    told = why(board)
    assert "acme/small-1, is on hold" in told
    assert "beta/x" not in told


def test_the_longer_hold_of_key_and_account_is_told(board, published):
    published(small=(("acme/small-1",),))
    hold(board, "acme", "auth", seconds=10)
    hold(board, "acme/small-1", "rate", seconds=20)
    assert "acme/small-1, is on hold" in why(board)


def test_a_model_that_is_no_alias_is_its_provider_s(board, published):
    hold(board, "acme/m-7")
    assert "acme/m-7, is on hold" in why(board, "acme:m-7"), "as far as anybody can know"
    published(acme__=((),))
    assert "acme/m-7, is on hold" in why(board, "acme:m-7")
    assert why(board, "acme:m-8").startswith(FREE)
    published(acme__=(("acme",),))
    assert why(board, "acme:m-7").startswith(FREE), "all its models have one key, and that one is free"
    hold(board, "acme")
    assert "acme, is on hold" in why(board, "acme:m-8")


def test_a_chat_without_a_model_has_the_default_and_a_handler_s_job_has_none(board, published):
    hold(board, "acme/small-1")
    assert why(board).startswith(FREE), "no worker has said what that alias is"
    published(**{DEFAULT: (("acme/small-1",),)})
    assert "acme/small-1, is on hold" in why(board, None)
    assert why(board, None, "report").startswith(FREE)


def test_what_the_worker_says_that_started_last_is_known(board, published):
    hold(board, "acme/small-1")
    published(small=(("acme/small-1",),))
    published(small=(("beta/small-1",),))
    assert why(board).startswith(FREE)


def test_a_paused_queue_and_what_no_worker_can_run_come_first(board, published):
    published(small=(("acme/small-1",),))
    hold(board, "acme/small-1")
    job = board.add("chat", model="small")
    board.sql(f"UPDATE llm_jobs SET held_by = 'unroutable: no such handler' WHERE id = {job}")
    assert "no worker takes it" in board.queue.why(job)
    board.queue.pause("default")
    assert "is paused" in board.queue.why(job)
