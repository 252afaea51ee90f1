"""What the ledger and the limiter are told about a call."""

import pytest

from callboard.actors.messages import CallRef
from callboard.actors.providers.model import Billed, CallError, Completion, ErrorClass, Finish, Message, Usage
from callboard.actors.runner import booking
from callboard.actors.runner.charges import charge_of
from callboard.actors.runner.effects import CallModel
from callboard.actors.settings import CompanySettings, LimitSettings, PriceSettings, Route
from callboard.persistence.model import ClaimedJob, JobOptions, Lease

CALL = CallRef(1, 2, 3)


def route(**changes):
    fields = {
        "provider": "acme",
        "name": "s1",
        "limit_key": "acme/s",
        "limits": LimitSettings(),
        "price": PriceSettings(input=1.0, output=2.0),
        "max_output": 100,
    }
    return Route(**{**fields, **changes})


def effect(text="Hello", **fields):
    return CallModel(step="one", messages=(Message("user", text),), **fields)


def test_a_request_takes_the_route_s_output_limit_where_the_handler_names_none():
    assert booking.request_of(effect(), route()).max_output == 100
    assert booking.request_of(effect(max_output=7), route()).max_output == 7
    assert booking.request_of(effect(), route(max_output=None)).max_output is None
    assert booking.request_of(effect(model="alias"), route()).model == "s1"


def test_the_intent_names_the_call_before_it_leaves():
    request = booking.request_of(effect(), route())
    charge = charge_of(request, route())
    intent = booking.intent_of(effect(), request, route(), charge)
    assert (intent.step, intent.provider, intent.model, intent.limit_key) == ("one", "acme", "s1", "acme/s")
    assert intent.fingerprint == request.fingerprint()
    assert (intent.reserved_tokens, intent.reserved_input, intent.reserved_output) == (charge.total, charge.input, 100)
    assert intent.reserved_cost >= 100 * 2000
    assert booking.intent_of(effect(), request, route(price=None), charge).reserved_cost is None


def claimed(**options):
    return ClaimedJob(
        lease=Lease(1, 1),
        type="chat",
        queue="default",
        model=None,
        priority=0,
        attempt=1,
        failures=0,
        losses=0,
        max_attempts=3,
        alone=False,
        data={},
        options=JobOptions(**options),
    )


def test_a_job_s_own_deadlines_go_before_the_company_s():
    settings = CompanySettings(
        database="sqlite://", first_token_timeout=1.0, no_progress_timeout=2.0, total_timeout=3.0
    )
    made = booking.timeouts_of(claimed(no_progress_timeout=9.0), settings)
    assert (made.first_token, made.no_progress, made.total) == (1.0, 9.0, 3.0)


USAGE = Usage(input_uncached=10, cache_read=1, output_visible=5, output_reasoning=2)


def answer(usage):
    return Completion(text="text", finish=Finish.STOP, usage=usage, request_id="r1", first_token_ms=12)


def test_an_answered_call_is_booked_with_its_usage_and_cost():
    outcome = booking.completed(answer(USAGE), route())
    assert (outcome.state, outcome.finish, outcome.request_id, outcome.first_token_ms) == (
        "completed",
        "stop",
        "r1",
        12,
    )
    assert sum(outcome.usage.values()) == USAGE.total
    assert outcome.cost == (10 + 1) * 1000 + 7 * 2000
    assert Completion.from_json(outcome.completion) == answer(USAGE)


def test_what_the_provider_did_not_say_is_booked_as_unknown():
    outcome = booking.completed(answer(None), route())
    assert (outcome.usage, outcome.cost) == (None, None)


@pytest.mark.parametrize(
    ("billed", "state"), [(Billed.NO, "failed"), (Billed.YES, "failed"), (Billed.MAYBE, "unknown")]
)
def test_an_outcome_is_unknown_only_where_nobody_can_know_it(billed, state):
    outcome = booking.failed(CallError(kind=ErrorClass.TIMEOUT, message="silence", billed=billed, request_id="r9"))
    assert (outcome.state, outcome.error_class, outcome.request_id) == (state, "timeout", "r9")
