"""The circuit breaker by itself."""

import math

import pytest

from callboard.actors.rate_limiter.breaker import FAILURES, LONGEST_PAUSE, Breaker


def tripped(at=10.0):
    breaker = Breaker()
    for _ in range(FAILURES):
        until = breaker.failed(0.0, at)
    return breaker, until


def test_it_opens_after_failures_in_a_row_only():
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        assert breaker.failed(0.0, 1.0) is None
    assert not breaker.answered(0.5)
    for _ in range(FAILURES - 1):
        assert breaker.failed(1.0, 2.0) is None
    assert breaker.failed(1.0, 2.0) == 3.0


def test_what_was_under_way_when_it_opened_says_nothing_new():
    breaker, until = tripped()
    assert until == 11.0
    assert breaker.failed(9.0, 12.0) is None
    assert not breaker.answered(9.0)
    assert breaker.tripped


def test_the_pause_doubles_while_the_probe_fails_and_ends_with_its_success():
    breaker, until = tripped()
    pauses = []
    for _ in range(10):
        after = breaker.failed(until, until)
        pauses.append(after - until)
        until = after
    assert pauses[:4] == [2.0, 4.0, 8.0, 16.0]
    assert pauses[-1] == LONGEST_PAUSE
    assert breaker.answered(until)
    assert not breaker.tripped
    assert breaker.failed(until, until) is None, "the count begins anew"


@pytest.mark.parametrize(("asked", "pause"), [(7.0, 7.0), (0.1, 1.0), (math.nan, 1.0), (math.inf, LONGEST_PAUSE)])
def test_the_provider_s_own_wish_is_heeded_within_bounds(asked, pause):
    breaker = Breaker(failures=FAILURES - 1)
    assert breaker.failed(0.0, 10.0, asked) == 10.0 + pause
