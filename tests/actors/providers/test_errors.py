import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.anthropic_messages import AnthropicMessages
from callboard.actors.providers.errors import classify_reply, parse_error_bytes
from callboard.actors.providers.model import Billed, CallError, ErrorClass, Scope
from callboard.actors.providers.openai_chat import OpenAIChat

NOW = 1_790_000_000_000
OA, A = OpenAIChat(), AnthropicMessages()


def openai(message="x", kind="invalid_request_error", code=None):
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def anthropic(kind, message="x", **details):
    error = {"type": kind, "message": message, **({"details": details} if details else {})}
    return json.dumps({"type": "error", "error": error, "request_id": "req_b"}).encode()


HTML = b"<html><head><style>p{}</style><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
E, S = ErrorClass, Scope

TABLE = [
    (OA, 400, openai("bad"), E.INVALID, S.REQUEST, Billed.NO),
    (
        OA,
        400,
        openai("This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
        E.CONTEXT,
        S.REQUEST,
        Billed.NO,
    ),
    (OA, 400, openai("busy", code="conversation_locked"), E.CONFLICT, S.REQUEST, Billed.NO),
    (
        OA,
        400,
        b'{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}',
        E.CONTEXT,
        S.REQUEST,
        Billed.NO,
    ),
    (
        A,
        400,
        anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
        E.CONTEXT,
        S.REQUEST,
        Billed.NO,
    ),
    (
        A,
        400,
        anthropic("invalid_request_error", "Your credit balance is too low to access the API."),
        E.QUOTA,
        S.CREDENTIAL,
        Billed.NO,
    ),
    (
        A,
        400,
        anthropic("invalid_request_error", "You have reached your specified API usage limits."),
        E.QUOTA,
        S.CREDENTIAL,
        Billed.NO,
    ),
    (A, 400, anthropic("invalid_request_error", "max_tokens: Field required"), E.INVALID, S.REQUEST, Billed.NO),
    (OA, 400, openai("API key not valid. Please pass a valid API key."), E.AUTH, S.CREDENTIAL, Billed.NO),
    (OA, 401, openai("Incorrect API key provided", code="invalid_api_key"), E.AUTH, S.CREDENTIAL, Billed.NO),
    (A, 401, anthropic("authentication_error", "invalid x-api-key"), E.AUTH, S.CREDENTIAL, Billed.NO),
    (OA, 401, b"", E.AUTH, S.CREDENTIAL, Billed.NO),
    (A, 403, anthropic("permission_error"), E.AUTH, S.CREDENTIAL, Billed.NO),
    (OA, 403, openai("Country, region, or territory not supported"), E.AUTH, S.CREDENTIAL, Billed.NO),
    (A, 402, anthropic("billing_error"), E.QUOTA, S.CREDENTIAL, Billed.NO),
    (OA, 402, b"", E.QUOTA, S.CREDENTIAL, Billed.NO),
    (OA, 404, openai("The model `x` does not exist", code="model_not_found"), E.NOT_FOUND, S.MODEL, Billed.NO),
    (A, 404, anthropic("not_found_error", "model: claude-z"), E.NOT_FOUND, S.MODEL, Billed.NO),
    (OA, 404, b'{"error":"model \'m\' not found, try pulling it first"}', E.NOT_FOUND, S.MODEL, Billed.NO),
    (OA, 404, b"<html>Not Found</html>", E.NOT_FOUND, S.PROVIDER, Billed.NO),
    (OA, 404, b'{"detail":"Not Found"}', E.NOT_FOUND, S.PROVIDER, Billed.NO),
    (OA, 405, b"", E.INVALID, S.REQUEST, Billed.NO),
    (OA, 408, b"", E.TIMEOUT, S.REQUEST, Billed.MAYBE),
    (OA, 409, openai(), E.CONFLICT, S.REQUEST, Billed.NO),
    (A, 409, anthropic("conflict_error"), E.CONFLICT, S.REQUEST, Billed.NO),
    (OA, 413, HTML, E.TOO_LARGE, S.REQUEST, Billed.NO),
    (A, 413, anthropic("request_too_large"), E.TOO_LARGE, S.REQUEST, Billed.NO),
    (OA, 422, b'{"detail":[{"loc":["body","messages"],"msg":"field required"}]}', E.INVALID, S.REQUEST, Billed.NO),
    (OA, 429, openai("Rate limit reached", "tokens", "rate_limit_exceeded"), E.RATE, S.MODEL, Billed.NO),
    (OA, 429, openai("slow down", "requests", "slow_down"), E.RATE, S.MODEL, Billed.NO),
    (OA, 429, b"", E.RATE, S.MODEL, Billed.NO),
    (OA, 429, HTML, E.RATE, S.MODEL, Billed.NO),
    (A, 429, anthropic("rate_limit_error", "would exceed your organization's rate limit"), E.RATE, S.MODEL, Billed.NO),
    (A, 429, anthropic("rate_limit_error", error_code="ramp_limit_exceeded"), E.RATE, S.MODEL, Billed.NO),
    (
        A,
        429,
        anthropic("rate_limit_error", error_code="enforced_spend_limit_reached"),
        E.QUOTA,
        S.CREDENTIAL,
        Billed.NO,
    ),
    (
        A,
        429,
        anthropic("rate_limit_error", error_code="contract_spend_limit_reached"),
        E.QUOTA,
        S.CREDENTIAL,
        Billed.NO,
    ),
    *(
        (OA, 429, openai("x", "insufficient_quota", code), E.QUOTA, S.CREDENTIAL, Billed.NO)
        for code in (
            "insufficient_quota",
            "billing_hard_limit_reached",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
        )
    ),
    (
        OA,
        429,
        openai("You exceeded your current quota, please check your plan", None),
        E.RATE,
        S.MODEL,
        Billed.NO,
    ),  # heals by waiting at Google
    (OA, 500, openai("The server had an error", "server_error"), E.SERVER, S.REQUEST, Billed.NO),
    (A, 500, anthropic("api_error"), E.SERVER, S.REQUEST, Billed.NO),
    (OA, 500, b"", E.SERVER, S.PROVIDER, Billed.MAYBE),
    (OA, 502, HTML, E.SERVER, S.PROVIDER, Billed.MAYBE),
    (OA, 504, b"", E.SERVER, S.PROVIDER, Billed.MAYBE),
    (A, 504, anthropic("timeout_error"), E.SERVER, S.PROVIDER, Billed.MAYBE),
    (OA, 520, HTML, E.SERVER, S.PROVIDER, Billed.MAYBE),
    (OA, 503, openai("Overloaded", "server_error", "server_is_overloaded"), E.OVERLOADED, S.MODEL, Billed.NO),
    (
        OA,
        503,
        b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}',
        E.OVERLOADED,
        S.MODEL,
        Billed.NO,
    ),
    (OA, 503, HTML, E.OVERLOADED, S.MODEL, Billed.NO),
    (A, 529, anthropic("overloaded_error"), E.OVERLOADED, S.MODEL, Billed.NO),
    (OA, 307, b"", E.INVALID, S.PROVIDER, Billed.NO),
]


@pytest.mark.parametrize(("adapter", "status", "body", "kind", "scope", "billed"), TABLE)
def test_table(adapter, status, body, kind, scope, billed):
    found = adapter.decode_body(status, {"x-request-id": "req_h", "request-id": "req_h"}, body, at_ms=NOW)
    assert isinstance(found, CallError)
    assert (found.kind, found.scope, found.billed, found.http, found.sent) == (kind, scope, billed, status, True)
    assert found.request_id == "req_h"
    assert found.message.startswith(f"HTTP {status}: ")
    assert found == adapter.classify(status, {"x-request-id": "req_h", "request-id": "req_h"}, body, at_ms=NOW)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"m","type":"t","code":"c"}}', "m", "c"),
        (b'{"error":{"message":"m","type":"t","code":null}}', "m", "t"),
        (b'{"error":{"message":"m","type":"t","code":400}}', "m", "400"),
        (b'{"error":"m"}', "m", None),
        (b'{"object":"error","message":"m","type":"t","code":400}', "m", "400"),
        (b'{"message":"m"}', "m", None),
        (b'{"detail":"m"}', "m", None),
        (b'{"error":{"message":{"a":1}}}', '{"a": 1}', None),
        (b'"m"', "m", None),
        (b"  plain  words ", "plain words", None),
        (HTML, "502 Bad Gateway Bad Gateway", None),
        (b"", "no error message in the reply", None),
        (b"[" * 100_000, "[[[[", None),
        (b"\xff\xfe", "\ufffd\ufffd", None),
    ],
)
def test_shapes(body, message, code):
    found = classify_reply(418, {}, body, at_ms=NOW)
    assert found.message.startswith(f"HTTP 418: {message}")
    assert found.code == code


def test_waits_and_advice():
    headers = {"retry-after": "7", "retry-after-ms": "1500", "x-should-retry": "false"}
    found = classify_reply(429, headers, b"", at_ms=NOW)
    assert (found.retry_after, found.retryable) == (1.5, False)
    assert classify_reply(429, {"retry-after": "inf"}, b"", at_ms=NOW).retry_after == 86400.0


def test_the_request_id_of_the_body_serves_where_there_is_no_header():
    assert A.classify(500, {}, anthropic("api_error"), at_ms=NOW).request_id == "req_b"


def test_a_redirect_says_what_to_do():
    found = classify_reply(302, {"location": "https://evil.example/?key=sk-0123456789"}, b"", at_ms=NOW)
    assert "Redirects are not followed" in found.message
    assert "base_url" in found.message
    assert "0123456789" not in found.message


def test_messages_are_redacted_and_short():
    found = classify_reply(
        401, {}, openai("Incorrect API key provided: sk-abcdef123456. " + "\u00e9" * 5000 + "\x1b[31m"), at_ms=NOW
    )
    assert "abcdef" not in found.message
    assert "\x1b" not in found.message
    assert len(found.message.encode()) <= 4096


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_reply_is_some_error(status, body):
    found = classify_reply(status, {}, body, at_ms=NOW)
    assert found.kind in ErrorClass
    parse_error_bytes(body)


@given(
    st.integers(400, 599),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["error", "message", "type", "code", "details", "error_code", "detail"]), x
            )
        ),
        max_leaves=8,
    ),
)
def test_any_json_is_some_error(status, value):
    found = classify_reply(status, {}, json.dumps(value).encode(), at_ms=NOW)
    assert len(found.message.encode()) <= 4096


def google(code, status, *details):
    return json.dumps({"error": {"code": code, "status": status, "message": "Oh", "details": list(details)}}).encode()


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "14.5s"}


def quota(*names):
    violations = [{"quotaId": name} for name in names]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}


@pytest.mark.parametrize(
    ("details", "headers", "code", "wait"),
    [
        ((RETRY,), {}, "RESOURCE_EXHAUSTED", 14.5),
        ((quota("GenerateRequestsPerMinutePerProjectPerModel"), RETRY), {}, "RESOURCE_EXHAUSTED", 14.5),
        ((RETRY,), {"retry-after": "3"}, "RESOURCE_EXHAUSTED", 3.0),
        ((), {}, "RESOURCE_EXHAUSTED", None),
        # 14:13:20 UTC is 07:13:20 in Los Angeles: its midnight is 16 h 46 min 40 s away.
        ((quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), RETRY), {}, "quota_per_day", 60400.0),
        ((quota("x", "InputTokensPerDay"),), {}, "quota_per_day", 60400.0),
        (
            ("broken", {"violations": ["x", {}]}, {"retryDelay": 14}, {"retryDelay": "soon"}),
            {},
            "RESOURCE_EXHAUSTED",
            14,
        ),
    ],
)
def test_google_says_its_waits_in_the_body(details, headers, code, wait):
    found = classify_reply(429, headers, google(429, "RESOURCE_EXHAUSTED", *details), at_ms=NOW)
    assert (found.kind, found.scope, found.code, found.retry_after) == (ErrorClass.RATE, Scope.MODEL, code, wait)


def test_google_names_the_reason():
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    found = classify_reply(400, {}, google(400, "INVALID_ARGUMENT", info), at_ms=NOW)
    assert (found.kind, found.code) == (ErrorClass.AUTH, "API_KEY_INVALID")
