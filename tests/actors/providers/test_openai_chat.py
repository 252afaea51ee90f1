import json
import re

import pytest

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
    Usage,
)
from callboard.actors.providers.openai_chat import OpenAIChat
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.providers.sse import SSEDecoder

ADAPTER = OpenAIChat()
NOW = 1_790_000_000_000
HELLO = (Message("system", "Be brief."), Message("user", "Gr\u00fc\u00df \u2028Gott \U0001f600"))
ALL = Request(model="gpt-x", messages=HELLO, max_output=64, temperature=0.5, top_p=0.9, stop=("END",), seed=7)


def settings(base_url="https://api.openai.com/v1", **more):
    return ProviderSettings(name="openai", wire="openai-chat", base_url=base_url, **more)


def encode(request, key=None, **more):
    return ADAPTER.encode(request, key=key, settings=settings(**more))


def stream(*data, headers=None, eof=True):
    decoder = ADAPTER.stream_decoder(headers or {"x-request-id": "req_1"}, at_ms=NOW)
    sse = SSEDecoder()
    raw = "".join(f"data: {item if isinstance(item, str) else json.dumps(item)}\n\n" for item in data)
    pieces = [piece for event in sse.feed(raw.encode()) for piece in decoder.feed(event)]
    return pieces, decoder, decoder.finish(eof=eof)


def chunk(content=None, finish=None, **delta):
    if content is not None:
        delta["content"] = content
    return {"id": "chatcmpl-1", "model": "gpt-x-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_body_byte_for_byte():
    sent = encode(ALL)
    assert (sent.method, sent.path) == ("POST", "/chat/completions")
    assert sent.body.decode() == (
        '{"model":"gpt-x","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Gr\u00fc\u00df \u2028Gott \U0001f600"}],'
        '"temperature":0.5,"top_p":0.9,"stop":["END"],"seed":7,"max_completion_tokens":64,'
        '"stream":true,"stream_options":{"include_usage":true}}'
    )


def test_the_least_request():
    assert encode(Request(model="m", messages=(Message("user", "hi"),), stream=False)).body == (
        b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    )


def test_headers():
    sent = encode(ALL, Secret("sk-1"), organization="org-1", project="proj-1", headers={"X-Team": "a"})
    assert sent.headers == (
        ("user-agent", "callboard"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("accept-encoding", "identity"),
        ("x-team", "a"),
        ("authorization", "Bearer sk-1"),
        ("openai-organization", "org-1"),
        ("openai-project", "proj-1"),
    )
    assert "sk-1" not in repr(sent)
    assert "authorization" not in dict(encode(ALL).headers)


@pytest.mark.parametrize(
    ("base_url", "chosen", "field"),
    [
        ("https://api.openai.com/v1", None, "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", None, "max_completion_tokens"),
        ("https://me.openai.azure.com/openai/v1", None, "max_completion_tokens"),
        ("http://localhost:11434/v1", None, "max_tokens"),
        ("https://notopenai.com/v1", None, "max_tokens"),
        ("http://localhost:8000/v1", "max_completion_tokens", "max_completion_tokens"),
        ("https://api.openai.com/v1", "max_tokens", "max_tokens"),
    ],
)
def test_name_of_the_output_limit(base_url, chosen, field):
    body = json.loads(encode(ALL, base_url=base_url, max_tokens_field=chosen).body)
    assert {name: body[name] for name in body if name.startswith("max_")} == {field: 64}


def test_unsupported_fields_are_dropped_or_refused():
    names = frozenset({"seed", "stop", "top_p", "reasoning_effort", "stream_options"})
    request = Request(
        **{
            **{n: getattr(ALL, n) for n in ("model", "messages", "stop", "seed")},
            "extra": {"reasoning_effort": "low", "store": False},
        }
    )
    assert json.loads(encode(request, unsupported=names).body).keys() == {"model", "messages", "stream", "store"}
    refusal = encode(request, unsupported=names, on_unsupported="error")
    assert (refusal.kind, refusal.sent, refusal.billed) == (ErrorClass.INVALID, False, Billed.NO)
    assert refusal.message.startswith("reasoning_effort: provider 'openai' does not support")
    # Only what a request asks for is refused, and stream_options is asked for by us alone.
    plain = Request(model="m", messages=HELLO)
    assert "stream_options" not in json.loads(encode(plain, unsupported=names, on_unsupported="error").body)


@pytest.mark.parametrize(
    "name", ["model", "messages", "stream", "max_tokens", "max_completion_tokens", "n", "stream_options"]
)
def test_extra_may_not_go_round_the_request(name):
    refusal = encode(Request(model="m", messages=HELLO, extra={name: 1}))
    assert (refusal.kind, refusal.sent) == (ErrorClass.INVALID, False)
    assert f"extra.{name}" in refusal.message


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (Request(model="m", messages=()), "no user message"),
        (Request(model="m", messages=(Message("system", "x"),)), "no user message"),
        (Request(model="m", messages=(Message("user", "x"), Message("critic", "x"))), "unknown role 'critic'"),
        (Request(model="m", messages=HELLO, temperature=float("nan")), "JSON"),
        (Request(model="m", messages=HELLO, extra={"x": object()}), "JSON"),
    ],
)
def test_what_no_provider_would_take_is_not_sent(request_, named):
    refusal = encode(request_)
    assert (refusal.kind, refusal.sent) == (ErrorClass.INVALID, False)
    assert named in refusal.message


def test_a_lone_surrogate_does_not_stop_the_call():
    assert b'"a?b"' in encode(Request(model="m", messages=(Message("user", "a\ud800b"),))).body


USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 12,
    "total_tokens": 52,
    "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
BUCKETS = Usage(input_uncached=6, cache_read=30, cache_write=4, output_visible=7, output_reasoning=5)


def body(message=None, finish="stop", **more):
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": message or {"role": "assistant", "content": "4", "refusal": None},
    }
    return json.dumps({"id": "chatcmpl-1", "model": "gpt-x-1", "choices": [choice], "usage": USAGE, **more}).encode()


def test_golden_body():
    assert ADAPTER.decode_body(200, {"x-request-id": "req_1"}, body(), at_ms=NOW) == Completion(
        text="4",
        finish=Finish.STOP,
        raw_finish="stop",
        usage=BUCKETS,
        model="gpt-x-1",
        response_id="chatcmpl-1",
        request_id="req_1",
    )
    assert BUCKETS.total == 52


@pytest.mark.parametrize(
    ("raw", "finish"),
    [
        ("stop", Finish.STOP),
        ("length", Finish.LENGTH),
        ("tool_calls", Finish.TOOL),
        ("function_call", Finish.TOOL),
        ("content_filter", Finish.FILTER),
        ("new_reason", Finish.UNKNOWN),
        (None, Finish.UNKNOWN),
    ],
)
def test_finish_reasons(raw, finish):
    found = ADAPTER.decode_body(200, {}, body(finish=raw), at_ms=NOW)
    assert (found.finish, found.raw_finish) == (finish, raw)


def test_a_refusal_is_a_result():
    found = ADAPTER.decode_body(200, {}, body({"content": None, "refusal": "I cannot."}), at_ms=NOW)
    assert (found.text, found.finish) == ("I cannot.", Finish.REFUSAL)
    pieces, _, streamed = stream(chunk(refusal="I can"), chunk(refusal="not."), chunk(finish="stop"), "[DONE]")
    assert (pieces, streamed.text, streamed.finish) == (["I can", "not."], "I cannot.", Finish.REFUSAL)


@pytest.mark.parametrize(
    ("usage", "buckets"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 3, "completion_tokens": 2}, Usage(input_uncached=3, output_visible=2)),
        (
            {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": None},
            Usage(input_uncached=3, output_visible=2),
        ),
        ({"prompt_tokens": 3, "completion_tokens": None}, Usage(input_uncached=3)),
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(cache_read=3)),
        ({"completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 9}}, Usage(output_reasoning=3)),
        ({"prompt_tokens": -3, "completion_tokens": "x"}, Usage()),
    ],
)
def test_usage(usage, buckets):
    assert ADAPTER.decode_body(200, {}, body(usage=usage), at_ms=NOW).usage == buckets


def test_content_parts_and_null_content():
    parts = {"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}
    assert ADAPTER.decode_body(200, {}, body(parts), at_ms=NOW).text == "ab"
    assert ADAPTER.decode_body(200, {}, body({"content": None, "tool_calls": []}, "tool_calls"), at_ms=NOW).text == ""


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b"null", b"{}", b'{"choices":[]}', b'{"choices":[{"index":0}]}', b"[" * 100_000]
)
def test_a_200_that_is_no_completion(raw):
    found = ADAPTER.decode_body(200, {"x-request-id": "r"}, raw, at_ms=NOW)
    assert (found.kind, found.billed, found.request_id) == (ErrorClass.MALFORMED, Billed.MAYBE, "r")


GOLDEN = (
    {**chunk("", role="assistant"), "usage": None, "obfuscation": "x9"},
    chunk("Hel"),
    chunk("lo \u2028"),
    chunk(finish="stop"),
    {"id": "chatcmpl-1", "model": "gpt-x-1", "choices": [], "usage": USAGE},
    "[DONE]",
)


def test_golden_stream():
    pieces, decoder, found = stream(*GOLDEN)
    assert pieces == ["Hel", "lo \u2028"]
    assert decoder.terminal
    assert decoder.progress == 3  # neither the role nor the usage is a piece of the answer
    assert found == Completion(
        text="Hello \u2028",
        finish=Finish.STOP,
        raw_finish="stop",
        usage=BUCKETS,
        model="gpt-x-1",
        response_id="chatcmpl-1",
        request_id="req_1",
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ((chunk("a"), chunk(finish="stop")), "a"),  # no [DONE]: llama.cpp behind some proxies
        ((chunk("a", finish="stop"), " [DONE] "), "a"),
        ((chunk("a"), {"choices": [{"index": 0, "delta": {"content": None}}]}, chunk(finish="stop"), "[DONE]"), "a"),
        (
            (
                chunk("a"),
                {"choices": None},
                {"choices": [{"index": 1, "delta": {"content": "other"}}]},
                chunk(finish="stop"),
            ),
            "a",
        ),
        ((chunk(reasoning_content="hm"), chunk("a"), chunk(finish="stop")), "a"),
        ((chunk(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), chunk("", finish="tool_calls")), ""),
    ],
)
@pytest.mark.parametrize("eof", [True, False])
def test_complete_with_a_finish_reason(data, text, eof):
    pieces, _, found = stream(*data, eof=eof)
    assert isinstance(found, Completion)
    assert "".join(pieces) == found.text == text


@pytest.mark.parametrize(
    ("data", "eof", "partial", "billed", "how"),
    [
        ((), True, "", Billed.MAYBE, "ended"),
        ((chunk("a"),), True, "a", Billed.YES, "ended"),
        ((chunk("a"),), False, "a", Billed.YES, "broke off"),
        ((chunk("a"), "[DONE]"), True, "a", Billed.YES, r"ended with \[DONE\]"),
    ],
)
def test_truncated(data, eof, partial, billed, how):
    _, _, found = stream(*data, eof=eof)
    assert (found.kind, found.partial, found.billed, found.request_id) == (
        ErrorClass.TRUNCATED,
        partial,
        billed,
        "req_1",
    )
    assert re.search(how, found.message)


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"error": {"message": "x", "type": "server_error", "code": None}}, ErrorClass.SERVER),
        ({"error": {"message": "x", "code": 500}}, ErrorClass.SERVER),
        ({"error": {"message": "x", "code": "503"}}, ErrorClass.OVERLOADED),
        ({"error": {"message": "x", "type": "overloaded_error"}}, ErrorClass.OVERLOADED),
        ({"error": {"message": "x", "code": "rate_limit_exceeded"}}, ErrorClass.RATE),
        ({"error": {"message": "x", "code": "insufficient_quota"}}, ErrorClass.QUOTA),
        ({"error": "x"}, ErrorClass.SERVER),
        ({"object": "error", "message": "x", "code": 400}, ErrorClass.INVALID),
        ("{broken", ErrorClass.MALFORMED),
        ("[1]", ErrorClass.MALFORMED),
    ],
)
def test_errors_in_the_stream(item, kind):
    pieces, decoder, found = stream(chunk("a"), item, chunk("b", finish="stop"), "[DONE]")
    assert decoder.terminal
    assert (pieces, found.kind, found.partial, found.http) == (["a"], kind, "a", None)
    assert found.billed is not Billed.NO


def test_the_error_field_of_old_llama_cpp():
    decoder = ADAPTER.stream_decoder({}, at_ms=NOW)
    for event in SSEDecoder().feed(b'error: {"code":503,"message":"Loading model","type":"unavailable_error"}\n\n'):
        decoder.feed(event)
    assert decoder.finish(eof=True).kind is ErrorClass.OVERLOADED


def test_error_inside_a_200():
    found = ADAPTER.decode_body(200, {}, b'{"error":{"message":"slow down","code":429}}', at_ms=NOW)
    assert isinstance(found, CallError)
    assert (found.kind, found.billed) == (ErrorClass.RATE, Billed.NO)


HEADERS = {
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "6m0s",
}


def test_limits():
    assert ADAPTER.limits(HEADERS, NOW) == LimitSnapshot(
        at_ms=NOW,
        requests_limit=10000,
        requests_remaining=9999,
        requests_reset=0.006,
        tokens_limit=2000000,
        tokens_remaining=0,
        tokens_reset=360.0,
    )
    assert ADAPTER.limits({}, NOW) is None


@pytest.mark.parametrize("unknown", ["-1", "0", "", "x"])
def test_a_limit_that_is_none_says_nothing_of_what_remains(unknown):
    found = ADAPTER.limits({**HEADERS, "x-ratelimit-limit-tokens": unknown}, NOW)
    assert (found.tokens_limit, found.tokens_remaining, found.tokens_reset) == (None, None, None)
    assert found.requests_limit == 10000
