"""What is done about a failed call, by its class."""

import pytest
from callboard.actors.providers.model import Billed, CallError, ErrorClass
from callboard.actors.runner.retry import (
    HOLDS_KEY,
    PASSES,
    GoBack,
    Park,
    ReserveAgain,
    TellHandler,
    TryLater,
    backoff,
    decide,
)
from callboard.actors.settings import RetrySettings
from hypothesis import given
from hypothesis import strategies as st

RETRIES = RetrySettings(base=1.0, cap=60.0)


def action(error, on_unknown="retry", failures=0):
    return decide(error, failures=failures, on_unknown=on_unknown, retries=RETRIES, random_value=0.5)


TABLE = {
    ErrorClass.RATE: ReserveAgain,
    ErrorClass.QUOTA: ReserveAgain,
    ErrorClass.AUTH: ReserveAgain,
    ErrorClass.OVERLOADED: TryLater,
    ErrorClass.SERVER: TryLater,
    ErrorClass.CONNECT: TryLater,
    ErrorClass.TIMEOUT: TryLater,
    ErrorClass.TRUNCATED: TryLater,
    ErrorClass.MALFORMED: TryLater,
    ErrorClass.CONFLICT: TryLater,
    ErrorClass.NOT_FOUND: TellHandler,
    ErrorClass.INVALID: TellHandler,
    ErrorClass.CONTEXT: TellHandler,
    ErrorClass.TOO_LARGE: TellHandler,
    ErrorClass.CANCELLED: GoBack,
}


@pytest.mark.parametrize("kind", ErrorClass)
def test_every_class_has_its_action(kind):
    assert isinstance(action(CallError(kind=kind, message="")), TABLE[kind])


@pytest.mark.parametrize("kind", ErrorClass)
def test_what_may_have_been_billed_is_parked_where_the_job_says_so(kind):
    error = CallError(kind=kind, message="", billed=Billed.MAYBE)
    parked = action(error, on_unknown="park")
    assert isinstance(parked, ReserveAgain if kind in HOLDS_KEY else Park)
    assert isinstance(action(error), TABLE[kind])


@pytest.mark.parametrize("kind", sorted(set(ErrorClass) - HOLDS_KEY - {ErrorClass.CANCELLED}))
def test_the_provider_s_own_word_goes_before_the_class(kind):
    assert isinstance(action(CallError(kind=kind, message="", retryable=True)), TryLater)
    assert isinstance(action(CallError(kind=kind, message="", retryable=False)), TellHandler)


def test_the_classes_do_not_overlap():
    assert HOLDS_KEY.isdisjoint(PASSES)


chance = st.floats(0, 1, exclude_max=True)
settings = st.builds(RetrySettings, base=st.floats(0.001, 100), cap=st.floats(0.001, 1000))


@given(st.integers(0, 10_000), settings, chance)
def test_a_delay_lies_within_its_growing_ceiling(failures, retries, value):
    delay = backoff(failures, retries, None, value)
    assert 0 <= delay <= min(retries.cap, retries.base * 2.0 ** min(failures, 30))
    assert delay <= backoff(failures + 1, retries, None, value)


@given(st.integers(0, 100), settings, st.floats(0, 10_000), chance)
def test_never_sooner_than_the_provider_asked_and_not_much_later(failures, retries, retry_after, value):
    delay = backoff(failures, retries, retry_after, value)
    assert retry_after <= delay <= max(retries.cap, retry_after * 1.1)
