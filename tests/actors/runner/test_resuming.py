"""Which calls of an earlier attempt are taken up, and what is said of a failure of one that goes on."""

import pytest

from callboard.actors.messages import CallRef
from callboard.actors.providers.model import Billed, CallError, EmbeddingRequest, ErrorClass, Message, Request
from callboard.actors.providers.resume import HANDLE_GONE
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.runner import resuming, retry
from callboard.actors.runner.charges import charge_of
from callboard.actors.runner.effects import CallModel
from callboard.actors.runner.work import Call
from callboard.actors.settings import CompanySettings, route
from callboard.persistence.model import KeptCall, Memo

REQUEST = Request(model="m", messages=(Message("user", "hi"),))
HANDLE = {"ref": "resp_1"}


def settings(**more):
    given = {"wire": "openai-responses", "base_url": "https://api.openai.com/v1", "background": True, **more}
    return CompanySettings(database="x", providers={"openai": ProviderSettings(name="openai", **given)})


def kept(**changes):
    fields = {"call_id": 7, "fingerprint": REQUEST.fingerprint(), "provider": "openai", "model": "m", "handle": HANDLE}
    return KeptCall(**{**fields, **changes})


def call(**fields):
    where = route(settings(), "openai:m")
    effect = CallModel(step="one", messages=REQUEST.messages)
    made = Call(CallRef(1, 1, 1), effect, None, where, REQUEST, charge_of(REQUEST, where))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def taken(memo, request=REQUEST, **more):
    configured = settings(**more)
    return resuming.kept_call(memo, "one", request, route(configured, "openai:m"), configured)


def test_exactly_the_same_of_the_same_model_is_taken_up():
    assert taken(Memo(kept={"one": kept()})) == kept()
    for other in (kept(fingerprint="x"), kept(model="m2"), kept(provider="p2")):
        assert taken(Memo(kept={"one": other})) is None
    assert taken(None) is taken(Memo()) is taken(Memo(kept={"two": kept()})) is None
    assert taken(Memo(kept={"one": kept()}), background=False) is None
    assert taken(Memo(kept={"one": kept()}), EmbeddingRequest(model="m", inputs=("hi",))) is None


def test_it_is_taken_up_only_in_its_own_row():
    assert resuming.taken_up(call(kept=kept(), call_id=7)) == kept()
    assert resuming.taken_up(call(kept=kept(), call_id=8)) is None
    assert resuming.taken_up(call(call_id=8)) is None


@pytest.mark.parametrize("held", [{"handle": HANDLE}, {"kept": kept()}], ids=["told of", "taken up"])
def test_what_fails_on_our_side_alone_can_be_taken_up(held):
    cancelled = CallError(kind=ErrorClass.CANCELLED, message="x", billed=Billed.MAYBE)
    never_left = CallError(kind=ErrorClass.AUTH, message="no key", sent=False)
    for error in (cancelled, never_left):
        found = resuming.judged(call(**held), error)
        assert (found.resumable, found.billed) == (True, Billed.MAYBE)
        again = resuming.again(call(**held, call_id=7), found)
        assert (again.call_id, again.handle) == (7, HANDLE)
        assert not isinstance(retry.decide(found, on_unknown="park"), retry.Park)
    for error in (
        CallError(kind=ErrorClass.SERVER, message="x", billed=Billed.MAYBE),
        CallError(kind=ErrorClass.CANCELLED, message="x", code=HANDLE_GONE),
    ):
        assert resuming.judged(call(**held), error) is error
        assert resuming.again(call(**held), error) is None
    assert resuming.judged(call(), cancelled) is cancelled
    assert isinstance(retry.decide(cancelled, on_unknown="park"), retry.Park)


def test_one_that_is_gone_is_made_anew_at_once_unless_a_person_is_to_look():
    gone = CallError(kind=ErrorClass.TRUNCATED, message="x", code=HANDLE_GONE, billed=Billed.MAYBE)
    assert resuming.gone(call(kept=kept()), gone, on_unknown="retry")
    assert not resuming.gone(call(kept=kept()), gone, on_unknown="park")
    assert not resuming.gone(call(handle=HANDLE), gone, on_unknown="retry")  # a first call: that is a failed attempt
    lost = CallError(kind=ErrorClass.TRUNCATED, message="x", resumable=True)
    assert not resuming.gone(call(kept=kept()), lost, on_unknown="retry")


def test_taking_up_takes_a_request_and_no_tokens():
    assert tuple(resuming.CHARGE) == (1, 0, 0, 0)
