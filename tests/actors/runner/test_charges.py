"""What a call takes from its limits, by each provider's own formula."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.messages import Charge
from callboard.actors.providers.model import CallError, EmbeddingRequest, ErrorClass, Message, Request, Usage
from callboard.actors.runner import charges
from callboard.actors.settings import CompanySettings, LimitSettings, ModelSettings, ProviderSettings, Route, route

USAGE = Usage(input_uncached=10, cache_read=100, cache_write=3, cache_write_1h=4, output_visible=5, output_reasoning=2)
WIRES = ("openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama")


def through(wire):
    provider = ProviderSettings(name="acme", wire=wire, base_url="https://api.acme.test")
    settings = CompanySettings(
        database="sqlite://", providers={"acme": provider}, models={"m": ModelSettings(provider="acme", model="s1")}
    )
    return route(settings, "m")


def request(text="Hello", max_output=None):
    return Request(model="s1", messages=(Message("user", text),), max_output=max_output)


@given(st.text(max_size=2000), st.none() | st.integers(1, 5000), st.sampled_from(WIRES))
def test_what_is_reserved_covers_the_answer(text, max_output, wire):
    charge = charges.charge_of(request(text, max_output), through(wire))
    assert charge.requests == 1
    assert charge.output == (max_output or charges.ASSUMED_OUTPUT)
    together = charge.input + charge.output
    assert charge.total == (max(charge.input, charge.output) if wire.startswith("openai") else together)
    assert charges.assumed_output(request(text, max_output)) == (0 if max_output else charges.ASSUMED_OUTPUT)


def test_vectors_are_no_output():
    charge = charges.charge_of(EmbeddingRequest(model="e", inputs=("some text",)), through("openai-chat"))
    assert (charge.output, charge.total) == (0, charge.input)


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ("openai-chat", Charge(1, 117, 7, 500)),
        ("openai-responses", Charge(1, 117, 7, 500)),
        ("anthropic-messages", Charge(1, 17, 7, 24)),
        ("gemini", Charge(1, 117, 7, 124)),
        ("ollama", Charge(1, 117, 7, 124)),
    ],
)
def test_what_an_answered_call_took(wire, expected):
    """OpenAI gives nothing back of its total; Anthropic does not count what was read from its cache."""
    assert charges.used_by(USAGE, Charge(1, 20, 500, 500), through(wire)) == expected
    assert charges.used_by(None, Charge(1, 20, 500, 500), through(wire)) is None


@pytest.mark.parametrize("kind", ErrorClass)
def test_a_failed_call_is_refunded_what_the_model_never_saw(kind):
    assert charges.used_by_failed(CallError(kind=kind, message="", sent=False)) == Charge(0)
    refused = {"invalid", "not_found", "auth", "quota", "rate", "too_large", "context"}
    assert charges.used_by_failed(CallError(kind=kind, message="")) == (Charge(1) if kind in refused else None)


def test_a_route_of_one_s_own_making_counts_both():
    where = Route(provider="p", name="n", limit_key="k", limits=LimitSettings(), price=None, max_output=None)
    assert charges.charge_of(request(max_output=9), where).total > 9
