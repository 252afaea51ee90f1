"""What every wire format promises over real HTTP, against the simulator that speaks it."""

import json
import queue

import pytest

from callboard.actors.providers.adapter import embedder_for
from callboard.actors.providers.engine import CallEngine, Failed, Finished, Text
from callboard.actors.providers.model import (
    Billed,
    EmbeddingRequest,
    ErrorClass,
    Finish,
    Message,
    Request,
    Scope,
    Timeouts,
    Tool,
)
from callboard.actors.providers.parts import Image, ToolResult
from callboard.actors.providers.settings import ProviderSettings
from callboard.simulator import Simulator, SimulatorConfig

WAIT = 10.0
REQUEST = Request(
    model="extractive-1",
    messages=(Message("system", "Sum up."), Message("user", "Cats sleep. Cats sleep all day long. Dogs bark.")),
    max_output=50,
)
ADD = Tool(
    name="add",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "enum": [3, 4]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
)


@pytest.fixture(scope="module")
def simulator():
    with Simulator(SimulatorConfig(rpm=100_000, tpm=100_000_000)) as running:
        yield running


def settings(wire, url):
    return ProviderSettings(name="p", wire=wire.WIRE, base_url=url + wire.BASE, key_env="K")


@pytest.fixture
def ask(simulator, wire):
    simulator.clear_faults()
    engine = CallEngine(settings(wire, simulator.url), environ={"K": "sk-conformance-123456"})
    engine.start()

    def make(request=REQUEST, timeouts=None, fault=None):
        if fault is not None:
            simulator.faults({"fault": fault, "times": 1})
        heard = queue.Queue()
        engine.submit(object(), request, timeouts or Timeouts(), heard.put)
        text = ""
        while isinstance(event := heard.get(timeout=WAIT), Text):
            text += event.text
        assert heard.empty()
        return text + (event.rest if isinstance(event, Finished) else ""), event

    yield make
    engine.stop()
    simulator.clear_faults()


def test_a_stream_and_a_body_say_the_same(ask, wire):
    text, streamed = ask()
    _, whole = ask(Request(model=REQUEST.model, messages=REQUEST.messages, max_output=50, stream=False))
    assert isinstance(streamed, Finished)
    assert text == streamed.completion.text == whole.completion.text
    assert text
    assert streamed.completion.usage == whole.completion.usage
    assert streamed.completion.usage.total > 0
    assert streamed.completion.finish is whole.completion.finish is Finish.STOP
    assert bool(streamed.completion.request_id) is wire.REQUEST_ID
    assert bool(streamed.completion.response_id) is wire.RESPONSE_ID
    assert (streamed.limits is not None) is wire.LIMITS
    if wire.LIMITS:
        assert streamed.limits.requests_limit == 100_000
        assert streamed.limits.requests_remaining < 100_000
        assert streamed.limits.tokens_limit or streamed.limits.input_limit


@pytest.mark.parametrize("kind", ["bom", "crlf", "cr"])
def test_framings(ask, wire, kind):
    if kind in wire.CANNOT:
        pytest.skip("this format knows no such lines")
    plain, _ = ask()
    text, end = ask(fault={"kind": kind})
    assert isinstance(end, Finished)
    assert text == end.completion.text == plain


@pytest.mark.parametrize(("kind", "finish"), [("content_filter", "FILTERED"), ("refusal", "REFUSED")])
@pytest.mark.parametrize("stream", [True, False])
def test_filters_and_refusals_are_results(ask, wire, kind, finish, stream):
    _, end = ask(
        Request(model=REQUEST.model, messages=REQUEST.messages, max_output=50, stream=stream), fault={"kind": kind}
    )
    assert isinstance(end, Finished)
    assert end.completion.finish in getattr(wire, finish)


def test_a_last_line_of_json_needs_no_end_and_a_last_event_does(ask, wire):
    _, end = ask(fault={"kind": "unclosed_event"})
    whole = wire.FRAMING == "ndjson" or not wire.END
    assert isinstance(end, Finished) is whole, end


def test_missing_usage_is_not_made_up(ask):
    _, end = ask(fault={"kind": "missing_usage"})
    assert isinstance(end, Finished)
    assert end.completion.usage is None


@pytest.mark.parametrize("stream", [True, False])
def test_tools_are_called_and_their_results_sent_back(ask, simulator, stream):
    turns = (*REQUEST.messages[:1], Message("user", 'Please call add {"a": 1, "b": 2} and call add {"a": 3, "b": 4}.'))
    request = Request(model="m", messages=turns, tools=(ADD,), max_output=50, stream=stream)
    text, end = ask(request)
    assert isinstance(end, Finished), end
    calls = end.completion.tool_calls
    assert [(call.name, call.arguments) for call in calls] == [("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4})]
    assert (text, end.completion.finish, len({call.id for call in calls})) == ("", Finish.TOOL, 2)
    results = tuple(ToolResult(call_id=call.id, content=f"sum {call.id}", name=call.name) for call in calls)
    after = Request(
        model="m", messages=(*turns, end.completion.message(), Message("tool", results)), tools=(ADD,), stream=stream
    )
    text, end = ask(after)
    assert isinstance(end, Finished), end
    assert (end.completion.finish, end.completion.tool_calls) == (Finish.STOP, ())
    assert text.startswith("sum ") or end.completion.text.startswith("sum ")


def test_a_tool_that_must_be_called_is_called(ask, wire):
    if "tool_choice" in wire.NEVER:
        pytest.skip("this format cannot say so")
    _, end = ask(Request(model="m", messages=REQUEST.messages, tools=(ADD,), tool_choice="required", max_output=50))
    assert [(call.name, call.arguments) for call in end.completion.tool_calls] == [("add", {"a": 0, "b": 3})]


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_follows_a_schema(ask, stream):
    schema = {**ADD.parameters}
    _, end = ask(Request(model="m", messages=REQUEST.messages, schema=schema, max_output=50, stream=stream))
    assert json.loads(end.completion.text) == {"a": 0, "b": 3}


def test_images_are_sent_and_counted(ask):
    plain = ask(Request(model="m", messages=(Message("user", "What is it?"),)))[1].completion
    image = Image(data="aGk=", media_type="image/png")
    content = ask(Request(model="m", messages=(Message("user", (*Message("user", "What is it?").parts, image)),)))[1]
    assert content.completion.usage.input == plain.usage.input + 256


def test_an_effort_is_sent_and_its_reasoning_counted(ask):
    _, end = ask(Request(model="m", messages=REQUEST.messages, effort="low"))
    assert end.completion.usage.total > end.completion.usage.input


def test_a_model_may_be_called_anything(ask, simulator):
    _, end = ask(Request(model="a?b:c#d&e%2f", messages=REQUEST.messages))
    assert isinstance(end, Finished), end
    assert simulator.journal()[-1]["model"] == "a?b:c#d&e%2f"


def test_embeddings_are_in_the_order_of_their_texts(ask, wire):
    if embedder_for(wire.WIRE) is None:
        pytest.skip("this provider has none")
    texts = ("rain and wind", "flour water salt", "rain and wind")
    _, end = ask(EmbeddingRequest(model="m", inputs=texts, dimensions=32))
    assert isinstance(end, Finished), end
    first, other, again = end.completion.vectors
    assert first == again != other
    assert len(first) == 32
    _, end = ask(EmbeddingRequest(model="m", inputs=texts), fault={"kind": "status", "status": 429, "retry_after": 2})
    assert (end.error.kind, end.error.retry_after) == (ErrorClass.RATE, 2.0)
    _, end = ask(EmbeddingRequest(model="m", inputs=texts), fault={"kind": "cut", "n": 1})
    assert end.error.kind is ErrorClass.TRUNCATED


E, B, S = ErrorClass, Billed, Scope
FAULTS = [
    ({"kind": "status", "status": 400}, E.INVALID, B.NO, S.REQUEST),
    ({"kind": "status", "status": 401}, E.AUTH, B.NO, S.CREDENTIAL),
    ({"kind": "status", "status": 402}, E.QUOTA, B.NO, S.CREDENTIAL),
    ({"kind": "status", "status": 404}, E.NOT_FOUND, B.NO, None),
    ({"kind": "status", "status": 408}, E.TIMEOUT, B.MAYBE, S.REQUEST),
    ({"kind": "status", "status": 413}, E.TOO_LARGE, B.NO, S.REQUEST),
    ({"kind": "status", "status": 429, "retry_after": 2}, E.RATE, B.NO, S.MODEL),
    ({"kind": "status", "status": 429, "retry_after_ms": 2000}, E.RATE, B.NO, S.MODEL),
    (
        {"kind": "status", "status": 429, "type": "insufficient_quota", "code": "insufficient_quota"},
        E.QUOTA,
        B.NO,
        S.CREDENTIAL,
    ),
    ({"kind": "status", "status": 500}, E.SERVER, B.NO, S.REQUEST),
    ({"kind": "status", "status": 502}, E.SERVER, B.MAYBE, S.PROVIDER),
    ({"kind": "status", "status": 503}, E.OVERLOADED, B.NO, S.MODEL),
    ({"kind": "status", "status": 529}, E.OVERLOADED, B.NO, S.MODEL),
    ({"kind": "html", "status": 502}, E.SERVER, B.MAYBE, S.PROVIDER),
    ({"kind": "html", "status": 200}, E.MALFORMED, B.MAYBE, S.REQUEST),
    ({"kind": "empty", "status": 503}, E.OVERLOADED, B.NO, S.MODEL),
    ({"kind": "redirect", "url": "http://127.0.0.1:9/"}, E.INVALID, B.NO, S.PROVIDER),
    ({"kind": "malformed_json"}, E.MALFORMED, B.YES, S.REQUEST),
    ({"kind": "cut", "n": -1}, E.CONNECT, B.MAYBE, S.PROVIDER),
    ({"kind": "cut", "n": 1}, E.TRUNCATED, B.YES, S.REQUEST),
    ({"kind": "no_terminal", "n": 1}, E.TRUNCATED, B.YES, S.REQUEST),
    ({"kind": "huge_line"}, E.MALFORMED, B.MAYBE, S.REQUEST),
    ({"kind": "error_event", "n": 1, "type": "api_error"}, E.SERVER, B.MAYBE, S.REQUEST),
]


@pytest.mark.parametrize(
    ("fault", "kind", "billed", "scope"),
    FAULTS,
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_faults(ask, wire, fault, kind, billed, scope):
    if fault.get("type") in wire.CANNOT:
        pytest.skip("this format has no such error")
    text, end = ask(fault=fault)
    assert isinstance(end, Failed), end
    assert end.error.kind is kind, end.error
    assert end.error.billed is billed, end.error
    assert scope in (None, end.error.scope), end.error
    assert end.error.partial == text
    assert end.error.sent
    if "retry_after" in fault or "retry_after_ms" in fault:
        assert end.error.retry_after == 2.0
    _, after = ask()
    assert isinstance(after, Finished)  # the engine is none the worse


@pytest.mark.parametrize(
    ("fault", "deadline"),
    [
        ({"kind": "slow_first_byte", "seconds": 30}, "first_token"),
        ({"kind": "ping_only", "interval": 0.005}, "first_token"),
        ({"kind": "stall", "n": 1}, "no_progress"),
    ],
)
def test_silence_and_pings(ask, simulator, fault, deadline):
    seen = len(simulator.journal())
    text, end = ask(fault=fault, timeouts=Timeouts(first_token=0.15, no_progress=0.1))
    assert (end.error.kind, end.error.code, end.error.partial) == (ErrorClass.TIMEOUT, deadline, text)
    simulator.wait_for(lambda journal: journal[seen]["ended_at"] is not None)
    assert "sk-conformance" not in json.dumps(simulator.journal())
