"""What every wire format promises, byte for byte and without a network. A format's data are in `wires/`; `conftest.py` says which."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.adapter import adapter_for, line_decoder
from callboard.actors.providers.keys import Secret
from callboard.actors.providers.model import (
    Billed,
    CallError,
    Completion,
    ErrorClass,
    Finish,
    Message,
    Request,
    Tool,
    Usage,
)
from callboard.actors.providers.parts import Image, Opaque, Text, ToolCall, ToolResult
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.providers.sse import SSEEvent

NOW = 1_790_000_000_000
TEXT = 'Gr\u00fc\u00df\u2028e \U0001f600 {"data: \\n\\n"}'
USAGE = Usage(input_uncached=10, cache_read=2, output_visible=5)
OLLAMA_USAGE = Usage(input_uncached=12, output_visible=5)
CALLS = [("c1", "add", {"a": 1, "b": "\u2028 \u00fc {}"}), ("c2", "now", {})]
ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
SCHEMA = {"type": "object", "properties": {"v": {"type": "integer"}}, "required": ["v"], "additionalProperties": False}
PLAIN = Request(model="m", messages=(Message("system", "Sum up."), Message("user", "Cats sleep.")), max_output=50)


@pytest.fixture
def adapter(wire):
    return adapter_for(wire.WIRE)


def settings(wire, **more):
    return ProviderSettings(name="p", wire=wire.WIRE, base_url="https://api.example.org" + wire.BASE, **more)


def encoded(wire, request, **more):
    """The body that a request becomes, or the refusal."""
    sent = adapter_for(wire.WIRE).encode(request, key=None, settings=settings(wire, **more))
    return sent if isinstance(sent, CallError) else json.loads(sent.body)


def decode(adapter, raw, size=None, *, eof=True):
    """Decode a stream in chunks of this size (None for whole); returns the pieces, the decoder and the outcome."""
    decoder = adapter.stream_decoder({}, at_ms=NOW)
    lines = line_decoder(decoder.framing)
    size = size or len(raw) or 1
    pieces = [
        piece
        for at in range(0, len(raw), size)
        for event in lines.feed(raw[at : at + size])
        for piece in decoder.feed(event)
    ]
    if eof:
        pieces += [piece for event in lines.close() for piece in decoder.feed(event)]
    return pieces, decoder, decoder.finish(eof=eof)


def body(adapter, value):
    return adapter.decode_body(200, {}, json.dumps(value, ensure_ascii=False).encode(), at_ms=NOW)


def framed(wire, raw, framing):
    """The same stream as another server would write its lines. JSON holds no raw line end, so bytes can be replaced."""
    if framing == "bom":
        return b"\xef\xbb\xbf" + raw
    if framing == "lf" or wire.FRAMING != "sse":
        return raw.replace(b"\n", b"\r\n") if framing == "crlf" else raw
    return raw.replace(b"\n", b"\r\n" if framing == "crlf" else b"\r")


# What an answer says.


def test_the_golden_stream_says_what_the_golden_body_says(wire, adapter):
    _, decoder, streamed = decode(adapter, wire.text_stream(TEXT))
    assert decoder.terminal or wire.WIRE == "gemini"
    assert (streamed.text, streamed.finish, streamed.model) == (TEXT, Finish.STOP, "m1")
    assert streamed.usage == (OLLAMA_USAGE if wire.WIRE == "ollama" else USAGE)
    assert streamed.response_id == ("r" if wire.RESPONSE_ID else None)
    assert (streamed.tool_calls, streamed.opaque) == ((), ())
    assert body(adapter, wire.text_body(TEXT)) == streamed
    assert Completion.from_json(json.loads(json.dumps(streamed.to_json()))) == streamed


def test_tool_calls_are_whole_whatever_their_pieces(wire, adapter):
    pieces, decoder, streamed = decode(adapter, wire.calls_stream(CALLS))
    assert isinstance(streamed, Completion), streamed
    assert [(call.id, call.name, call.arguments, call.raw) for call in streamed.tool_calls] == [
        (*call, None) for call in CALLS
    ]
    assert (streamed.finish, streamed.text, pieces) == (Finish.TOOL, "", [])
    assert decoder.progress >= 2
    whole = body(adapter, wire.calls_body(CALLS))
    assert (whole.tool_calls, whole.finish, whole.opaque) == (streamed.tool_calls, streamed.finish, streamed.opaque)
    assert Completion.from_json(json.loads(json.dumps(streamed.to_json()))) == streamed


def test_reasoning_is_progress_but_no_text_and_comes_back_unchanged(wire, adapter):
    pieces, decoder, streamed = decode(adapter, wire.reasoned_stream())
    whole = body(adapter, wire.reasoned_body())
    for found in (streamed, whole):
        assert (found.text, found.opaque) == ("4", wire.OPAQUE)
    assert pieces == ["4"]
    assert decoder.progress > decode(adapter, wire.finish_stream(next(iter(wire.FINISHES))))[1].progress
    again = Request(model="m", messages=(*PLAIN.messages, streamed.message(), Message("user", "And?")))
    sent = json.dumps(encoded(wire, again), ensure_ascii=False)
    for part in wire.OPAQUE:
        assert json.dumps(part.data, ensure_ascii=False) in sent
    elsewhere = replace(streamed, opaque=(Opaque(wire="another", data={"type": "text", "text": "SECRET"}),)).message()
    assert "SECRET" not in json.dumps(
        encoded(wire, replace(again, messages=(*PLAIN.messages, elsewhere, again.messages[-1])))
    )


def test_every_reason_to_stop(wire, adapter):
    for raw, finish in wire.FINISHES.items():
        _, _, streamed = decode(adapter, wire.finish_stream(raw))
        whole = body(adapter, wire.finish_body(raw))
        assert [(found.finish, found.raw_finish) for found in (streamed, whole)] == [(finish, raw)] * 2


def test_missing_usage_is_not_made_up(wire, adapter):
    assert decode(adapter, wire.text_stream(TEXT, usage=False))[2].usage is None
    assert body(adapter, wire.text_body(TEXT, usage=False)).usage is None


# How it comes.


@pytest.mark.parametrize("framing", ["lf", "crlf", "cr", "bom"])
def test_every_chunk_size_and_every_split_point(wire, adapter, framing):
    for plain in (wire.text_stream(TEXT), wire.calls_stream(CALLS), wire.reasoned_stream()):
        raw = framed(wire, plain, framing)
        expected = decode(adapter, plain)[::2]
        for size in (1, 2, 3, 7, 64, len(raw)):
            assert decode(adapter, raw, size)[::2] == expected, size
        for at in range(1, len(raw), 7 if framing == "lf" else 61):
            decoder = adapter.stream_decoder({}, at_ms=NOW)
            lines = line_decoder(decoder.framing)
            pieces = [p for part in (raw[:at], raw[at:]) for event in lines.feed(part) for p in decoder.feed(event)]
            assert (pieces, decoder.finish(eof=True)) == expected, at


@pytest.mark.parametrize("eof", [True, False])
def test_a_stream_cut_anywhere_is_complete_or_truncated_with_what_had_come(wire, adapter, eof):
    raw = wire.text_stream(TEXT)
    for at in range(0, len(raw), 5):
        pieces, decoder, outcome = decode(adapter, raw[:at], eof=eof)
        assert TEXT.startswith("".join(pieces))
        assert decoder.text == "".join(pieces)
        if isinstance(outcome, Completion):
            assert outcome.text == TEXT
        else:
            # A line of JSON without its end is no line; only in lines does half a line show as broken.
            kinds = {ErrorClass.TRUNCATED} | ({ErrorClass.MALFORMED} if wire.FRAMING == "ndjson" and eof else set())
            assert outcome.kind in kinds
            assert outcome.partial == "".join(pieces)
            assert outcome.billed is (Billed.YES if pieces else Billed.MAYBE)


def test_without_its_terminal_marker_an_answer_is_truncated(wire, adapter):
    if not wire.END:
        pytest.skip("a finish reason completes an answer of this format")
    pieces, decoder, outcome = decode(adapter, wire.text_stream(TEXT)[: -wire.END])
    assert not decoder.terminal
    assert (outcome.kind, outcome.partial, outcome.billed) == (ErrorClass.TRUNCATED, TEXT, Billed.YES)
    assert "".join(pieces) == TEXT


def test_what_follows_the_end_is_ignored(wire, adapter):
    raw = wire.text_stream(TEXT)
    assert decode(adapter, raw + raw + b"data: {broken\n\n")[::2] == decode(adapter, raw)[::2]


def test_keep_alives_are_no_progress(wire, adapter):
    _, decoder, _ = decode(adapter, wire.KEEP_ALIVES)
    assert (decoder.progress, decoder.terminal) == (0, False)


def test_errors_in_the_middle_keep_what_had_come(wire, adapter):
    first = wire.text_stream("4")[: -wire.END or None] if wire.END else _until_text(wire)
    for raw, kind in wire.STREAM_ERRORS:
        for size in (1, None):
            pieces, decoder, outcome = decode(adapter, first + raw, size)
            assert (pieces, outcome.partial) == (["4"], "4"), raw
            assert (outcome.kind, outcome.billed, outcome.http) == (kind, Billed.MAYBE, None), raw
            assert decoder.terminal
    _, _, nothing = decode(adapter, wire.STREAM_ERRORS[0][0])
    assert (nothing.kind, nothing.partial) == (wire.STREAM_ERRORS[0][1], "")


def _until_text(wire):
    """A stream to its first piece of text, by whole events."""
    raw = wire.text_stream("4")
    return raw[: raw.index(b"\n\n", raw.index(b"4")) + 2]


def test_an_error_in_a_200(wire, adapter):
    value = json.loads(wire.ERRORS[0][1])
    found = body(adapter, value)
    assert isinstance(found, CallError)
    assert found.http is None


def test_refusals_by_class(wire, adapter):
    for status, raw, kind, scope in wire.ERRORS:
        found = adapter.classify(status, {}, raw, at_ms=NOW)
        assert (found.kind, found.scope, found.http) == (kind, scope, status), raw
        assert adapter.decode_body(status, {}, raw, at_ms=NOW) == found


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"{}", b"null", b'"x"', b'{"choices":[]}', b"[" * 5000])
def test_a_200_that_holds_no_answer(adapter, raw):
    assert adapter.decode_body(200, {}, raw, at_ms=NOW).kind is ErrorClass.MALFORMED


@given(
    st.lists(
        st.tuples(st.sampled_from(["message", "error", "ping", "message_start"]), st.text(max_size=30)), max_size=5
    )
)
def test_no_event_raises(wire, events):
    decoder = adapter_for(wire.WIRE).stream_decoder({}, at_ms=NOW)
    for name, data in events:
        decoder.feed(SSEEvent(name, data))
    decoder.finish(eof=True)


def _mutations(wire):
    """The values of a format's golden replies, with parts of them replaced by others: what a broken server would send."""
    whole = [wire.text_body("4"), wire.calls_body(CALLS), wire.reasoned_body(), json.loads(wire.ERRORS[0][1])]
    for raw in (wire.text_stream("4"), wire.calls_stream(CALLS[:1]), wire.reasoned_stream()):
        decoder = line_decoder(wire.FRAMING)
        whole += [json.loads(event.data) for event in decoder.feed(raw) if event.data.startswith("{")]
    return whole


WRONG = [None, True, -1, 1.5, "x", [], {}, [None], [[]], {"x": 1}, ["x"]]


def _paths(value, at=()):
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from _paths(inner, (*at, name))


def _put(value, path, new):
    if not path:
        return new
    if isinstance(value, dict):
        return {name: _put(inner, path[1:], new) if name == path[0] else inner for name, inner in value.items()}
    return [_put(inner, path[1:], new) if index == path[0] else inner for index, inner in enumerate(value)]


def test_a_wrong_value_anywhere_raises_nothing(wire, adapter):
    for value in _mutations(wire):
        for path in _paths(value):
            for wrong in WRONG:
                broken = _put(value, path, wrong)
                assert isinstance(body(adapter, broken), Completion | CallError)
                decoder = adapter.stream_decoder({}, at_ms=NOW)
                pieces = decoder.feed(SSEEvent("message", json.dumps(broken)))
                assert decoder.text == "".join(pieces)
                assert isinstance(decoder.finish(eof=True), Completion | CallError)


# What is asked.


def test_the_key_is_in_one_header_and_nowhere_else(wire, adapter):
    sent = adapter.encode(PLAIN, key=Secret("k-e-y"), settings=settings(wire))
    assert [value for _, value in sent.headers if "k-e-y" in value] in (["k-e-y"], ["Bearer k-e-y"])
    assert b"k-e-y" not in sent.body
    assert "k-e-y" not in sent.path + repr(sent)
    without = adapter.encode(PLAIN, key=None, settings=settings(wire))
    assert len(without.headers) == len(sent.headers) - 1
    assert without.body == sent.body


def test_encoding_is_the_same_every_time(wire):
    assert encoded(wire, PLAIN) == encoded(wire, PLAIN)


IMAGE = Image(data="aGk=", media_type="image/png")
ALL = {
    "max_output": 7,
    "temperature": 0.25,
    "top_p": 0.75,
    "stop": ("QQQ",),
    "seed": 77,
    "tools": (ADD,),
    "schema": SCHEMA,
    "effort": "low",
    "cache_key": "k",
}


@pytest.mark.parametrize("name", [*ALL, "images"])
def test_every_field_can_be_declared_unsupported(wire, name):
    if name == "images":
        value = {"messages": (Message("user", (Text("hi"), IMAGE)),)}
    else:
        value = {"messages": (Message("user", "hi"),), name: ALL[name]}
    plain = encoded(wire, Request(model="m", messages=(Message("user", "hi"),)))
    asked = Request(model="m", **value)
    assert (encoded(wire, asked) == plain) is (name in wire.NEVER)
    assert encoded(wire, asked, unsupported=frozenset({name})) == plain
    assert encoded(wire, replace(asked, unsupported=frozenset({name}))) == plain
    refused = encoded(wire, asked, unsupported=frozenset({name}), on_unsupported="error")
    if name == "cache_key":  # a hint: it changes what a call costs and not what it answers
        assert refused == plain
    else:
        assert (refused.kind, refused.sent, refused.billed) == (ErrorClass.INVALID, False, Billed.NO)
        assert refused.message.startswith(f"{name}:")


def test_what_the_format_has_not_is_dropped_or_refused(wire):
    values = {"seed": 7, "stop": ("QQQ",), "parallel_tools": False, "cache_key": "k", "tool_choice": "required"}
    for name in wire.NEVER:
        asked = replace(PLAIN, tools=(ADD,), **{name: values[name]})
        assert encoded(wire, asked) == encoded(wire, replace(PLAIN, tools=(ADD,)))
        if name != "cache_key":
            assert encoded(wire, asked, on_unsupported="error").kind is ErrorClass.INVALID


def test_a_conversation_with_tools_and_an_image(wire):
    messages = (
        Message("system", "Be brief."),
        Message("user", (Text("What is it?"), IMAGE)),
        Message(
            "assistant",
            (Text("Well."), ToolCall(id="c1", name="add", arguments={"a": 1}), ToolCall(id="c2", name="now")),
        ),
        Message(
            "tool",
            (
                ToolResult(call_id="c1", content="2", name="add"),
                ToolResult(call_id="c2", content="broken", name="now", is_error=True),
            ),
        ),
        Message("user", "So?"),
    )
    request = Request(model="m", messages=messages, tools=(ADD, Tool(name="now")), schema=SCHEMA)
    told = encoded(wire, request)
    said = wire.said(told)
    assert said["tools"] == ["add", "now"]
    assert said["schema"] == SCHEMA
    assert said["system"] == "Be brief."
    kinds = [kind for _, parts in said["turns"] for kind in parts]
    assert kinds == ["text", "image", "text", "tool_call", "tool_call", "tool_result", "tool_result", "text"]
    assert not any(role == "system" for role, _ in said["turns"])


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (Message("system", "x"),),
        (Message("robot", "x"),),
    ],
)
def test_what_no_provider_would_take_is_not_sent(wire, messages):
    refused = encoded(wire, Request(model="m", messages=messages))
    assert (refused.kind, refused.sent) == (ErrorClass.INVALID, False)


def test_a_body_that_json_cannot_hold_is_not_sent(wire):
    refused = encoded(wire, replace(PLAIN, temperature=float("nan")))
    assert (refused.kind, refused.sent) == (ErrorClass.INVALID, False)
