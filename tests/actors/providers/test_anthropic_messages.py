import json

import pytest

from callboard.actors.providers.anthropic_messages import AnthropicMessages
from callboard.actors.providers.keys import Secret
from callboard.actors.providers.model import (
    Billed,
    CallError,
    Completion,
    ErrorClass,
    Finish,
    LimitSnapshot,
    Message,
    Request,
    Tool,
    Usage,
)
from callboard.actors.providers.parts import Image, Opaque, Text, ToolCall, ToolResult
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.providers.sse import SSEDecoder, SSEEvent

ADAPTER = AnthropicMessages()
NOW = 1_790_000_000_000
ALL = Request(
    model="claude-x",
    messages=(
        Message("system", "Be brief."),
        Message("user", "2+2?"),
        Message("user", "Quick\u2028!"),
        Message("assistant", "4"),
        Message("system", "Be kind."),
        Message("user", "Thanks."),
    ),
    max_output=64,
    temperature=0.5,
    top_p=0.9,
    stop=("END",),
    seed=7,
)


def encode(request, key=None, **more):
    settings = ProviderSettings(
        name="anthropic", wire="anthropic-messages", base_url="https://api.anthropic.com", **more
    )
    return ADAPTER.encode(request, key=key, settings=settings)


def test_body_byte_for_byte():
    sent = encode(ALL)
    assert (sent.method, sent.path) == ("POST", "/v1/messages")
    assert sent.body.decode() == (
        '{"model":"claude-x","max_tokens":64,"system":"Be brief.\\n\\nBe kind.","messages":['
        '{"role":"user","content":"2+2?\\n\\nQuick\u2028!"},{"role":"assistant","content":"4"},{"role":"user","content":"Thanks."}],'
        '"temperature":0.5,"top_p":0.9,"stop_sequences":["END"],"stream":true}'
    )


def test_the_least_request():
    least = Request(model="m", messages=(Message("user", "hi"),), stream=False)
    assert encode(least).body == b'{"model":"m","max_tokens":1024,"messages":[{"role":"user","content":"hi"}]}'
    assert json.loads(encode(least, default_max_output=9).body)["max_tokens"] == 9


def test_headers():
    sent = encode(ALL, Secret("sk-ant-1"), workspace="w-1")
    assert sent.headers == (
        ("user-agent", "callboard"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("accept-encoding", "identity"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-workspace-id", "w-1"),
        ("x-api-key", "sk-ant-1"),
    )
    assert "sk-ant-1" not in repr(sent)


@pytest.mark.parametrize(
    ("version", "kept"), [("2023-06-01", True), ("2026-10-20", True), ("2026-10-21", False), ("2027-01-01", False)]
)
def test_sampling_goes_with_the_version(version, kept):
    request = Request(
        model="m", messages=(Message("user", "hi"),), temperature=0.0, top_p=1.0, extra={"top_k": 5, "metadata": {}}
    )
    body = json.loads(encode(request, version=version).body)
    assert {"temperature", "top_p", "top_k"} & body.keys() == ({"temperature", "top_p", "top_k"} if kept else set())
    assert "metadata" in body
    refusal = encode(request, version=version, on_unsupported="error")
    assert isinstance(refusal, CallError) is not kept
    if not kept:
        assert (refusal.kind, refusal.sent) == (ErrorClass.INVALID, False)
        assert "temperature" in refusal.message


def test_seed_is_never_supported():
    assert b"seed" not in encode(ALL).body
    assert encode(ALL, on_unsupported="error").message.startswith("seed:")


@pytest.mark.parametrize("name", ["model", "messages", "system", "stream", "max_tokens"])
def test_extra_may_not_go_round_the_request(name):
    assert encode(Request(model="m", messages=ALL.messages, extra={name: 1})).kind is ErrorClass.INVALID


USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 900,
    "output_tokens": 30,
    "output_tokens_details": {"thinking_tokens": 20},
}
BUCKETS = Usage(input_uncached=12, cache_read=900, cache_write=5, output_visible=10, output_reasoning=20)


def body(stop="end_turn", **more):
    content = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "4"},
        {"type": "text", "text": "!"},
    ]
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "model": "claude-x-1",
            "content": content,
            "stop_reason": stop,
            "usage": USAGE,
            **more,
        }
    ).encode()


def test_golden_body():
    assert ADAPTER.decode_body(200, {"request-id": "req_1"}, body(), at_ms=NOW) == Completion(
        text="4!",
        opaque=(Opaque(wire="anthropic-messages", data={"type": "thinking", "thinking": "hm"}),),
        finish=Finish.STOP,
        raw_finish="end_turn",
        usage=BUCKETS,
        model="claude-x-1",
        response_id="msg_1",
        request_id="req_1",
    )


@pytest.mark.parametrize(
    ("raw", "finish"),
    [
        ("end_turn", Finish.STOP),
        ("stop_sequence", Finish.STOP),
        ("max_tokens", Finish.LENGTH),
        ("tool_use", Finish.TOOL),
        ("pause_turn", Finish.PAUSE),
        ("refusal", Finish.REFUSAL),
        ("model_context_window_exceeded", Finish.CONTEXT),
        ("new", Finish.UNKNOWN),
        (None, Finish.UNKNOWN),
    ],
)
def test_stop_reasons(raw, finish):
    assert ADAPTER.decode_body(200, {}, body(raw), at_ms=NOW).finish is finish


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"{}", b'{"type":"message","content":"x"}'])
def test_a_200_that_is_no_message(raw):
    assert ADAPTER.decode_body(200, {}, raw, at_ms=NOW).kind is ErrorClass.MALFORMED


def test_missing_usage():
    assert ADAPTER.decode_body(200, {}, body(usage=None), at_ms=NOW).usage is None


def delta(index=0, **fields):
    return {"type": "content_block_delta", "index": index, "delta": fields}


GOLDEN = (
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "model": "claude-x-1",
            "usage": {"input_tokens": 12, "cache_read_input_tokens": 900, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "ping"},
    delta(type="thinking_delta", thinking="hm"),
    delta(type="signature_delta", signature="x"),
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    delta(1, type="text_delta", text="4"),
    {"type": "an_event_of_tomorrow", "x": 1},
    delta(1, type="text_delta", text="\u2028!"),
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {
            "output_tokens": 30,
            "cache_creation_input_tokens": 5,
            "input_tokens": None,
            "output_tokens_details": {"thinking_tokens": 20},
        },
    },
    {"type": "message_stop"},
)


def events(items):
    raw = "".join(f"event: {item['type']}\ndata: {json.dumps(item, ensure_ascii=False)}\n\n" for item in items)
    return SSEDecoder().feed(raw.encode())


def stream(items, eof=True):
    decoder = ADAPTER.stream_decoder({"request-id": "req_1"}, at_ms=NOW)
    pieces = [piece for event in events(items) for piece in decoder.feed(event)]
    return pieces, decoder, decoder.finish(eof=eof)


def test_golden_stream():
    pieces, decoder, found = stream(GOLDEN)
    assert pieces == ["4", "\u2028!"]
    assert decoder.terminal
    assert decoder.progress == 5  # thinking, its signature, two texts and the end; not the ping, not the starts
    assert found == Completion(
        text="4\u2028!",
        opaque=(Opaque(wire="anthropic-messages", data={"type": "thinking", "thinking": "hm", "signature": "x"}),),
        finish=Finish.STOP,
        raw_finish="end_turn",
        usage=BUCKETS,
        model="claude-x-1",
        response_id="msg_1",
        request_id="req_1",
    )


@pytest.mark.parametrize("length", range(len(GOLDEN)))
@pytest.mark.parametrize("eof", [True, False])
def test_nothing_short_of_message_stop_is_complete(length, eof):
    pieces, _, found = stream(GOLDEN[:length], eof)
    assert (found.kind, found.partial) == (ErrorClass.TRUNCATED, "".join(pieces))
    assert found.billed is (Billed.YES if pieces else Billed.MAYBE)


@pytest.mark.parametrize(
    ("kind", "mapped"),
    [
        ("overloaded_error", ErrorClass.OVERLOADED),
        ("rate_limit_error", ErrorClass.RATE),
        ("api_error", ErrorClass.SERVER),
        ("timeout_error", ErrorClass.SERVER),
        ("invalid_request_error", ErrorClass.INVALID),
        ("authentication_error", ErrorClass.AUTH),
        ("billing_error", ErrorClass.QUOTA),
        ("error_of_tomorrow", ErrorClass.SERVER),
    ],
)
def test_errors_in_the_stream(kind, mapped):
    pieces, decoder, found = stream(
        (*GOLDEN[:8], {"type": "error", "error": {"type": kind, "message": "Oh"}}, *GOLDEN[8:])
    )
    assert decoder.terminal
    assert (pieces, found.kind, found.code, found.partial, found.billed, found.http) == (
        ["4"],
        mapped,
        kind,
        "4",
        Billed.MAYBE,
        None,
    )


def test_an_error_before_any_text_that_says_no_is_not_billed():
    _, _, found = stream(({"type": "error", "error": {"type": "rate_limit_error", "message": "Oh"}},))
    assert found.billed is Billed.NO


def test_broken_events():
    decoder = ADAPTER.stream_decoder({}, at_ms=NOW)
    decoder.feed(SSEEvent("ping", "not json"))
    assert not decoder.terminal
    decoder.feed(SSEEvent("content_block_delta", "{broken"))
    assert decoder.finish(eof=True).kind is ErrorClass.MALFORMED


def test_limits():
    headers = {
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-remaining": "999",
        "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:21Z",
        "anthropic-ratelimit-tokens-limit": "80000",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": "2026-09-21T14:13:50Z",
        "anthropic-ratelimit-input-tokens-limit": "2000000",
        "anthropic-ratelimit-output-tokens-limit": "80000",
    }
    assert ADAPTER.limits(headers, NOW) == LimitSnapshot(
        at_ms=NOW,
        requests_limit=1000,
        requests_remaining=999,
        requests_reset=1.0,
        input_limit=2_000_000,
        output_limit=80_000,
    )
    # The tightest of its limits, said again, belongs to neither dimension.
    assert (
        ADAPTER.limits(
            {name: value for name, value in headers.items() if "-tokens-" in name and "put" not in name}, NOW
        )
        is None
    )
    assert ADAPTER.limits({"request-id": "x"}, NOW) is None


def sent(**fields):
    request = Request(**{"model": "m", "messages": (Message("user", "hi"),), "stream": False, **fields})
    return json.loads(encode(request).body)


ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})


@pytest.mark.parametrize(
    ("choice", "parallel", "told"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("add", None, {"type": "tool", "name": "add"}),
    ],
)
def test_tool_choice(choice, parallel, told):
    body = sent(tools=(ADD,), tool_choice=choice, parallel_tools=parallel)
    assert body.get("tool_choice") == told
    assert body["tools"] == [{"name": "add", "input_schema": ADD.parameters, "description": "Adds."}]
    assert "tool_choice" not in sent(tool_choice=choice, parallel_tools=parallel)


def test_a_strict_tool_is_in_the_strict_subset():
    (tool,) = sent(tools=(Tool(name="add", parameters=ADD.parameters, strict=True),))["tools"]
    assert tool["strict"] is True
    assert (tool["input_schema"]["required"], tool["input_schema"]["additionalProperties"]) == (["a"], False)
    odd = {"type": "object", "patternProperties": {"x": {}}}
    assert sent(tools=(Tool(name="odd", parameters=odd, strict=True),))["tools"] == [
        {"name": "odd", "input_schema": odd}
    ]


@pytest.mark.parametrize(
    ("effort", "fields"),
    [
        ("none", {"thinking": {"type": "disabled"}}),
        ("minimal", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        ("xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
    ],
)
def test_effort(effort, fields):
    plain = sent()
    assert sent(effort=effort) == {**plain, **fields}
    without = {name: value for name, value in fields.items() if name != "thinking"}
    assert sent(effort=effort, unsupported=frozenset({"thinking"})) == {**plain, **without}
    if effort != "none":  # a model that must call a tool may not think first
        assert "thinking" not in sent(effort=effort, tools=(ADD,), tool_choice="required")


def test_a_schema_and_an_effort_share_a_field():
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert sent(schema=schema, effort="low")["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": schema},
    }


@pytest.mark.parametrize(
    ("hints", "told"),
    [
        ({"cache_key": "k"}, {"type": "ephemeral"}),
        ({"cache_key": "k", "cache_ttl": "1h"}, {"type": "ephemeral", "ttl": "1h"}),
        ({"cache_ttl": "5m"}, {"type": "ephemeral", "ttl": "5m"}),
        ({}, None),
    ],
)
def test_cache_control(hints, told):
    assert sent(**hints).get("cache_control") == told


def test_results_come_first_in_the_next_user_turn():
    call = ToolCall(id="t1", name="add", arguments={"a": 1})
    broken = ToolCall(id="t2", name="add", raw="{oh")
    messages = (
        Message("user", "2+2?"),
        Message("assistant", (call, broken)),
        Message("user", (Text("By the way"), Image(url="https://example.org/x.png"))),
        Message("tool", (ToolResult(call_id="t1", content="4", name="add"),)),
        Message("tool", (ToolResult(call_id="t2", content="no JSON", is_error=True),)),
        Message("user", ""),
    )
    _, asked, told = sent(messages=messages)["messages"]
    assert asked["content"] == [
        {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
        {"type": "tool_use", "id": "t2", "name": "add", "input": {"invalid_json": "{oh"}},
    ]
    assert told == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "4"},
            {"type": "tool_result", "tool_use_id": "t2", "content": "no JSON", "is_error": True},
            {"type": "text", "text": "By the way"},
            {"type": "image", "source": {"type": "url", "url": "https://example.org/x.png"}},
        ],
    }


def test_an_answer_with_thinking_between_its_parts_goes_back_as_one_piece():
    content = [
        {"type": "thinking", "thinking": "a", "signature": "1"},
        {"type": "text", "text": "Well."},
        {"type": "thinking", "thinking": "b", "signature": "2"},
        {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
    ]
    raw = json.dumps({"id": "r", "content": content, "stop_reason": "tool_use"}).encode()
    found = ADAPTER.decode_body(200, {}, raw, at_ms=NOW)
    assert (found.text, [call.id for call in found.tool_calls]) == ("Well.", ["t1"])
    assert sent(messages=(Message("user", "hi"), found.message()))["messages"][-1]["content"] == content


def test_blocks_of_server_tools_come_back_whole():
    items = (
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "server_tool_use", "id": "s", "input": {}},
        },
        delta(0, type="input_json_delta", partial_json='{"query": '),
        delta(0, type="input_json_delta", partial_json='"x"}'),
        {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}},
        {"type": "message_stop"},
    )
    _, _, found = stream(items)
    block = {"type": "server_tool_use", "id": "s", "input": {"query": "x"}}
    assert (found.finish, [part.data for part in found.opaque]) == (Finish.PAUSE, [block])
    assert sent(messages=(Message("user", "hi"), found.message()))["messages"][-1] == {
        "role": "assistant",
        "content": [block],
    }


def test_arguments_that_are_no_json_are_kept_as_they_came():
    items = (
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "add"}},
        delta(0, type="input_json_delta", partial_json='{"a": '),
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        {"type": "message_stop"},
    )
    _, _, found = stream(items)
    assert found.tool_calls == (ToolCall(id="t", name="add", raw='{"a": '),)
    assert found.finish is Finish.LENGTH


@pytest.mark.parametrize(
    ("by_life", "total", "minutes", "hour"),
    [
        ({"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}, 7, 3, 4),
        ({"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}, None, 3, 4),
        (None, 7, 7, 0),
        ({"ephemeral_1h_input_tokens": 4}, 7, 3, 4),
    ],
)
def test_what_was_kept_for_an_hour_is_counted_apart(by_life, total, minutes, hour):
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation": by_life, "cache_creation_input_tokens": total}
    found = ADAPTER.decode_body(200, {}, body(usage=usage), at_ms=NOW).usage
    assert (found.cache_write, found.cache_write_1h) == (minutes, hour)
