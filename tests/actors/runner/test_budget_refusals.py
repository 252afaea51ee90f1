"""What becomes of a job whose call a budget has no room for."""

import pytest

from callboard.actors.messages import CallRef, Fail, IntentRefused, Release
from callboard.actors.providers.model import Message, Request
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.runner import budget_refusals
from callboard.actors.runner.charges import charge_of
from callboard.actors.runner.effects import CallModel
from callboard.actors.runner.work import Call
from callboard.actors.settings import CompanySettings, ModelSettings, route

SETTINGS = CompanySettings(
    database="sqlite:///x.db",
    providers={"p": ProviderSettings(name="p", wire="openai-chat", base_url="http://127.0.0.1:1/v1")},
    models={name: ModelSettings(provider="p", model=name) for name in ("big", "small")},
)


def refused(action, *, until_ms=None, model=""):
    return IntentRefused(
        call=CallRef(1, 1, 1), cause="budget", key="b", reason="why", until_ms=until_ms, action=action, model=model
    )


def a_call(model, downgrades=0):
    where = route(SETTINGS, model)
    request = Request(model=where.name, messages=(Message("user", "hi"),))
    effect = CallModel(step="s", messages=request.messages)
    call = Call(CallRef(1, 1, 1), effect, None, where, request, charge_of(request, where))
    call.downgrades = downgrades
    return call


@pytest.mark.parametrize("action", ["pause", "wait"])
def test_a_job_waits_at_no_cost_of_an_attempt(action):
    verdict = budget_refusals.verdict(refused(action, until_ms=7))
    assert verdict == Release(cause="deferral", reason="why", held_by="budget b", held_until_ms=7)


@pytest.mark.parametrize("action", ["stop", "downgrade"])
def test_a_job_is_stopped_where_waiting_does_not_help(action):
    assert budget_refusals.verdict(refused(action)) == Fail({"class": "budget", "message": "why", "budget": "b"}, "why")


@pytest.mark.parametrize(
    ("model", "to", "downgrades", "goes_on"),
    [
        ("big", "small", 0, True),
        ("small", "small", 0, False),
        ("small", "p:small", 0, False),
        ("big", "unheard-of", 0, False),
        ("big", "small", budget_refusals.MOST_DOWNGRADES, False),
    ],
)
def test_a_cheaper_model_is_asked_if_there_is_one_and_not_for_ever(model, to, downgrades, goes_on):
    told = refused("downgrade", model=to)
    assert budget_refusals.goes_on(told, a_call(model, downgrades), SETTINGS) is goes_on
    assert budget_refusals.goes_on(refused("stop", model=to), a_call(model), SETTINGS) is False
