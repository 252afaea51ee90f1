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
    decide,
)


def action(error, on_unknown="retry"):
    return decide(error, on_unknown=on_unknown)


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
