"""What every adapter promises, whatever its wire format. A new one is added to `ADAPTERS` with one golden stream and one golden body."""

import json
import queue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.adapter import adapter_for
from callboard.actors.providers.engine import CallEngine, Failed, Finished, Text
from callboard.actors.providers.keys import Secret
from callboard.actors.providers.model import (
    Billed,
    CallError,
    Completion,
    ErrorClass,
    Finish,
    Message,
    Request,
    Scope,
    Timeouts,
    Usage,
)
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.providers.sse import SSEDecoder, SSEEvent
from callboard.simulator import Simulator, SimulatorConfig

WAIT = 10.0
NOW = 1_790_000_000_000
TEXT = 'Gr\u00fc\u00df\u2028e \U0001f600 {"data: \\n\\n"}'
USAGE = Usage(input_uncached=10, cache_read=2, output_visible=5)


def sse(*items):
    lines = []
    for item in items:
        name = f"event: {item['type']}\n" if isinstance(item, dict) and "type" in item else ""
        lines.append(f"{name}data: {item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)}\n\n")
    return "".join(lines).encode()


def openai_chunk(content=None, finish=None):
    return {
        "id": "r",
        "model": "m1",
        "choices": [{"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}],
    }


OPENAI_USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
ANTHROPIC_USAGE = {"input_tokens": 10, "cache_read_input_tokens": 2, "output_tokens": 5}


def anthropic_delta(text):
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


STREAMS = {
    "openai-chat": sse(
        openai_chunk(""),
        *(openai_chunk(char) for char in TEXT),
        openai_chunk(finish="stop"),
        {"id": "r", "model": "m1", "choices": [], "usage": OPENAI_USAGE},
        "[DONE]",
    ),
    "anthropic-messages": sse(
        {
            "type": "message_start",
            "message": {"id": "r", "model": "m1", "usage": {**ANTHROPIC_USAGE, "output_tokens": 1}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(anthropic_delta(char) for char in TEXT),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ),
}
BODIES = {
    "openai-chat": {
        "id": "r",
        "model": "m1",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": TEXT}}],
        "usage": OPENAI_USAGE,
    },
    "anthropic-messages": {
        "type": "message",
        "id": "r",
        "model": "m1",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "usage": ANTHROPIC_USAGE,
    },
}
BASES = {"openai-chat": "/v1", "anthropic-messages": ""}
ADAPTERS = sorted(STREAMS)
REQUEST = Request(
    model="extractive-1",
    messages=(Message("system", "Sum up."), Message("user", "Cats sleep. Cats sleep all day long. Dogs bark.")),
    max_output=50,
)


@pytest.fixture(params=ADAPTERS)
def wire(request):
    return request.param


@pytest.fixture
def adapter(wire):
    return adapter_for(wire)


def settings(wire, base_url="https://api.example.org", **more):
    return ProviderSettings(name="p", wire=wire, base_url=base_url + BASES[wire], **more)


def decode(adapter, raw, sizes=None, eof=True):
    """Decode a stream in chunks of these sizes (a number, or None for whole); returns the pieces, the decoder and the outcome."""
    decoder, lines = adapter.stream_decoder({}, at_ms=NOW), SSEDecoder()
    size = sizes or len(raw) or 1
    pieces = [
        piece
        for at in range(0, len(raw), size)
        for event in lines.feed(raw[at : at + size])
        for piece in decoder.feed(event)
    ]
    return pieces, decoder, decoder.finish(eof=eof)


def test_the_golden_stream_says_what_the_golden_body_says(wire, adapter):
    _, decoder, streamed = decode(adapter, STREAMS[wire])
    assert decoder.terminal
    assert streamed == Completion(
        text=TEXT, finish=Finish.STOP, raw_finish=streamed.raw_finish, usage=USAGE, model="m1", response_id="r"
    )
    assert adapter.decode_body(200, {}, json.dumps(BODIES[wire]).encode(), at_ms=NOW) == streamed
    assert Completion.from_json(json.loads(json.dumps(streamed.to_json()))) == streamed


def test_every_chunk_size_and_every_split_point(wire, adapter):
    raw = STREAMS[wire]
    whole = decode(adapter, raw)
    for size in (1, 2, 3, 7, 64, 1000):
        assert decode(adapter, raw, size)[::2] == whole[::2]
    for at in range(1, len(raw), 5):
        lines, decoder = SSEDecoder(), adapter.stream_decoder({}, at_ms=NOW)
        pieces = [piece for part in (raw[:at], raw[at:]) for event in lines.feed(part) for piece in decoder.feed(event)]
        assert (pieces, decoder.finish(eof=True)) == whole[::2]


@pytest.mark.parametrize("eof", [True, False])
def test_a_stream_cut_anywhere_is_complete_or_truncated_with_what_had_come(wire, adapter, eof):
    raw = STREAMS[wire]
    for at in range(0, len(raw), 5):
        pieces, decoder, outcome = decode(adapter, raw[:at], eof=eof)
        assert TEXT.startswith("".join(pieces))
        assert decoder.text == "".join(pieces)
        if isinstance(outcome, Completion):
            assert outcome.text == TEXT
        else:
            assert (outcome.kind, outcome.partial) == (ErrorClass.TRUNCATED, "".join(pieces))
            assert outcome.billed is (Billed.YES if pieces else Billed.MAYBE)


def test_what_follows_the_end_is_ignored(wire, adapter):
    raw = STREAMS[wire]
    assert decode(adapter, raw + raw + b"data: {broken\n\n")[::2] == decode(adapter, raw)[::2]


def test_keep_alives_are_no_progress(wire, adapter):
    _, decoder, _ = decode(adapter, b': ping\n\nevent: ping\ndata: {"type": "ping"}\n\n')
    assert decoder.progress == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["message", "error", "ping", "message_start"]), st.text(max_size=30)), max_size=5
    )
)
@pytest.mark.parametrize("wire_", ADAPTERS)
def test_no_event_raises(wire_, events):
    decoder = adapter_for(wire_).stream_decoder({}, at_ms=NOW)
    for name, data in events:
        decoder.feed(SSEEvent(name, data))
    decoder.finish(eof=True)


JSON = st.recursive(
    st.none()
    | st.integers(-5, 5)
    | st.sampled_from(["text", "text_delta", "content_block_delta", "message_delta", "message_start", "error", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "choices",
                    "delta",
                    "content",
                    "message",
                    "usage",
                    "error",
                    "index",
                    "text",
                    "finish_reason",
                    "content_block",
                    "prompt_tokens",
                    "output_tokens",
                    "stop_reason",
                    "refusal",
                    "id",
                    "model",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4))
@pytest.mark.parametrize("wire_", ADAPTERS)
def test_no_json_raises(wire_, values):
    adapter = adapter_for(wire_)
    decoder = adapter.stream_decoder({}, at_ms=NOW)
    pieces = [piece for value in values for piece in decoder.feed(SSEEvent("message", json.dumps(value)))]
    assert decoder.text == "".join(pieces)
    assert isinstance(decoder.finish(eof=True), Completion | CallError)
    for value in values:
        assert isinstance(adapter.decode_body(200, {}, json.dumps(value).encode(), at_ms=NOW), Completion | CallError)


def test_the_key_is_in_one_header_and_nowhere_else(wire, adapter):
    sent = adapter.encode(REQUEST, key=Secret("k-e-y"), settings=settings(wire))
    assert [value for _, value in sent.headers if "k-e-y" in value] in (["k-e-y"], ["Bearer k-e-y"])
    assert b"k-e-y" not in sent.body
    assert "k-e-y" not in sent.path + repr(sent)
    without = adapter.encode(REQUEST, key=None, settings=settings(wire))
    assert len(without.headers) == len(sent.headers) - 1
    assert without.body == sent.body


def test_encoding_is_the_same_every_time(wire, adapter):
    assert adapter.encode(REQUEST, key=None, settings=settings(wire)) == adapter.encode(
        REQUEST, key=None, settings=settings(wire)
    )


@pytest.mark.parametrize("name", ["max_output", "temperature", "top_p", "stop", "seed"])
def test_every_field_can_be_declared_unsupported(wire, adapter, name):
    value = {"max_output": 7, "temperature": 0.25, "top_p": 0.75, "stop": ("QQQ",), "seed": 77}[name]
    request = Request(model="m", messages=(Message("user", "hi"),), **{name: value})
    plain = adapter.encode(Request(model="m", messages=(Message("user", "hi"),)), key=None, settings=settings(wire))
    dropped = adapter.encode(request, key=None, settings=settings(wire, unsupported=frozenset({name})))
    assert dropped.body == plain.body
    refused = adapter.encode(
        request, key=None, settings=settings(wire, unsupported=frozenset({name}), on_unsupported="error")
    )
    assert (refused.kind, refused.sent, refused.billed) == (ErrorClass.INVALID, False, Billed.NO)
    assert refused.message.startswith(f"{name}:")


# Over real HTTP, against the simulator.


@pytest.fixture(scope="module")
def simulator():
    with Simulator(SimulatorConfig(rpm=100_000, tpm=100_000_000)) as running:
        yield running


@pytest.fixture
def ask(simulator, wire):
    simulator.clear_faults()
    engine = CallEngine(settings(wire, simulator.url, key_env="K"), environ={"K": "sk-conformance-123456"})
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
        return text, event

    yield make
    engine.stop()
    simulator.clear_faults()


def test_a_stream_and_a_body_say_the_same(ask):
    text, streamed = ask()
    _, whole = ask(Request(model=REQUEST.model, messages=REQUEST.messages, max_output=50, stream=False))
    assert isinstance(streamed, Finished)
    assert text == streamed.completion.text == whole.completion.text
    assert text
    assert streamed.completion.usage == whole.completion.usage
    assert streamed.completion.usage.total > 0
    assert streamed.completion.finish is whole.completion.finish is Finish.STOP
    assert streamed.completion.request_id
    assert streamed.completion.response_id
    assert streamed.limits.requests_limit == 100_000
    assert streamed.limits.requests_remaining < 100_000
    assert streamed.limits.tokens_limit


@pytest.mark.parametrize("kind", ["bom", "crlf", "cr"])
def test_framings(ask, kind):
    plain, _ = ask()
    text, end = ask(fault={"kind": kind})
    assert isinstance(end, Finished)
    assert text == end.completion.text == plain


@pytest.mark.parametrize(
    ("kind", "finish"), [("content_filter", {Finish.FILTER, Finish.REFUSAL}), ("refusal", {Finish.REFUSAL})]
)
@pytest.mark.parametrize("stream", [True, False])
def test_filters_and_refusals_are_results(ask, kind, finish, stream):
    _, end = ask(
        Request(model=REQUEST.model, messages=REQUEST.messages, max_output=50, stream=stream), fault={"kind": kind}
    )
    assert isinstance(end, Finished)
    assert end.completion.finish in finish


def test_missing_usage_is_not_made_up(ask, wire):
    _, end = ask(fault={"kind": "missing_usage"})
    assert isinstance(end, Finished)
    assert end.completion.usage is None


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
def test_faults(ask, fault, kind, billed, scope):
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
