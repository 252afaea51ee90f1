"""The Anthropic Messages wire format: requests, replies, named server-sent events from `message_start` to `message_stop`."""

# ruff: noqa: D102 - wire.Wire documents every method

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .buckets import Level, Rejection
from .config import DEFAULT_MODEL, SimulatorConfig
from .extractive import estimate_tokens, pieces
from .tools import Tools
from .wire import IMAGE_TOKENS, Answer, Call, Headers, StreamParts, WireError, dump, last_user_text, text_of

_ROLES = frozenset({"user", "assistant", "system"})
_NO_SAMPLING_SINCE = "2026-10-21"
"""From this API version on, sampling parameters are refused."""
_KIND_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUS_OF_KIND = {kind: status for status, kind in _KIND_OF_STATUS.items()}
_FINISH = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal", "tool": "tool_use"}
_THOUGHT = "The request is read, and its most salient sentences are looked for."
_HEADER_NAMES = {"requests": "requests", "input_tokens": "input-tokens", "output_tokens": "output-tokens"}
_COARSE_FROM = 10_000
"""Remaining tokens are reported to the nearest thousand, as the provider does, from a limit of this size on: below it, the
limits of a test would all read 0."""
_BROKEN = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\n\n'


class AnthropicMessages:
    """See `wire.Wire` for what each method promises."""

    name = "anthropic"

    def api_key(self, headers: Mapping[str, str]) -> str:
        return headers.get("x-api-key") or headers.get("authorization", "").partition(" ")[2].strip()

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:
        version = headers.get("anthropic-version", "")
        if not version:
            raise WireError(400, "anthropic-version: header is required")
        if not isinstance(body, dict):
            raise WireError(400, "The request body is not valid JSON: send a JSON object.")
        for name in ("model", "max_tokens", "messages"):
            if name not in body:
                raise WireError(400, f"{name}: Field required")
        model, limit, messages = body["model"], body["max_tokens"], body["messages"]
        if not isinstance(model, str) or not model:
            raise WireError(400, "model: Input should be a valid string")
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise WireError(400, "max_tokens: Input should be an integer greater than or equal to 0")
        if not isinstance(messages, list) or not messages:
            raise WireError(400, "messages: at least one message is required")
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or message.get("role") not in _ROLES:
                raise WireError(400, f"messages.{index}.role: Input should be 'user' or 'assistant'")
        stops = body.get("stop_sequences") or []
        if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
            raise WireError(400, "stop_sequences: Input should be a valid list of strings")
        if version >= _NO_SAMPLING_SINCE:
            for name in ("temperature", "top_p", "top_k"):
                if name in body:
                    raise WireError(400, f"{name}: not supported from anthropic-version {_NO_SAMPLING_SINCE} on")
        _check_results(messages)
        tools, output, thinking = _tools(body), body.get("output_config") or {}, body.get("thinking") or {}
        if not isinstance(output, dict) or not isinstance(thinking, dict):
            raise WireError(400, "output_config, thinking: Input should be an object")
        if thinking.get("type") in ("adaptive", "enabled") and tools.choice not in ("auto", "none"):
            raise WireError(400, "Thinking may not be enabled when tool_choice forces tool use.")
        shape = output.get("format")
        all_text = "\n".join([text_of(body.get("system")), *(text_of(message.get("content")) for message in messages)])
        results = _blocks(messages[-1], "tool_result")
        images = sum(len(_blocks(message, "image")) for message in messages)
        return Call(
            model=model,
            text="\n".join(text_of(one.get("content")) for one in results) if results else last_user_text(messages),
            all_text=all_text,
            input_tokens=max(1, estimate_tokens(all_text)) + IMAGE_TOKENS * images,
            max_tokens=limit,
            stream=body.get("stream") is True,
            stop=tuple(stops),
            include_usage=True,
            tools=tools,
            after_tools=bool(results),
            schema=shape.get("schema") if isinstance(shape, dict) else None,
            reasons=thinking.get("type") in ("adaptive", "enabled"),
        )

    def model_unknown(self, model: str) -> WireError:
        return WireError(404, f"model: {model}")

    def key_refused(self, key: str) -> WireError:
        return WireError(401, "invalid x-api-key" if key else "x-api-key header is required")

    def too_many(self, rejection: Rejection, model: str) -> WireError:
        if rejection.dimension == "concurrency":
            return WireError(
                429, f"Number of concurrent connections has exceeded your rate limit of {rejection.limit} for {model}."
            )
        unit = rejection.dimension.replace("_", " ")
        if math.isinf(rejection.wait_seconds):
            return WireError(
                429,
                f"This request has {rejection.requested} {unit}, more than the limit of {rejection.limit} per minute.",
            )
        return WireError(
            429, f"This request would exceed the rate limit of {rejection.limit} {unit} per minute for {model}."
        )

    def error(self, error: WireError, request_id: str) -> bytes:
        kind = error.kind or _KIND_OF_STATUS.get(
            error.status, "api_error" if error.status >= 500 else "invalid_request_error"
        )
        return dump({**_error(kind, error.message, error.code), "request_id": request_id})

    def error_event(self, kind: str, message: str, code: str | None) -> bytes:
        return _event("error", _error(kind, message, code))

    def error_status(self, kind: str) -> int:
        return _STATUS_OF_KIND.get(kind, 500)

    def headers(self, request_id: str, elapsed_ms: int) -> Headers:  # noqa: ARG002 - this format does not report it
        return [("request-id", request_id), ("anthropic-organization-id", "callboard-simulator")]

    def limit_headers(self, levels: Mapping[str, Level], now_ms: int) -> Headers:
        found: Headers = []
        tightest: Level | None = None
        for name, level in levels.items():
            found += _limit_headers(_HEADER_NAMES[name], level, now_ms, coarse=name != "requests")
            if name != "requests" and (tightest is None or level.remaining < tightest.remaining):
                tightest = level
        if tightest is not None:
            found += _limit_headers("tokens", tightest, now_ms, coarse=True)
        return found

    def retry_headers(self, wait_seconds: float) -> Headers:
        return [("retry-after", str(max(1, math.ceil(wait_seconds))))]

    def limits(self, config: SimulatorConfig) -> dict[str, int]:
        sizes = {
            "requests": config.rpm,
            "input_tokens": config.tpm if config.input_tpm is None else config.input_tpm,
            "output_tokens": config.tpm if config.output_tpm is None else config.output_tpm,
        }
        return {name: size for name, size in sizes.items() if size is not None}

    def charges(self, call: Call) -> dict[str, int]:
        return {"requests": 1, "input_tokens": call.input_tokens}

    def output_dimension(self) -> str | None:
        return "output_tokens"

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:  # noqa: ARG002 - no time in this format
        message = _message(call, number)
        message["content"] = _thought(call, number) + _content(answer, number)
        message["stop_reason"], message["stop_sequence"] = _finish(answer), answer.stop_sequence
        if answer.with_usage:
            message["usage"] = _usage(answer, answer.output_tokens)
        return dump(message)

    def stream(self, call: Call, answer: Answer, number: int, created: int) -> StreamParts:  # noqa: ARG002 - no time in this format
        start = _message(call, number)
        if answer.with_usage:
            # The provider's first count of output tokens is 1: the first token exists when the message starts.
            start["usage"] = _usage(answer, min(1, answer.output_tokens))
        stopping = {"stop_reason": _finish(answer), "stop_sequence": answer.stop_sequence}
        ending: dict[str, Any] = {"type": "message_delta", "delta": stopping}
        if answer.with_usage:
            ending["usage"] = _usage(answer, answer.output_tokens)
        head = [_event("message_start", {"type": "message_start", "message": start})]
        thoughts = _thought(call, number)
        for thought in thoughts:
            head += _block_events(0, {**thought, "thinking": "", "signature": ""}, _thinking_deltas(thought))
        if answer.calls:
            text = [
                event
                for index, block in enumerate(_content(answer, number), len(thoughts))
                for event in _call_events(index, block)
            ]
            tail = []
        else:
            at = len(thoughts)
            head += [_start(at, {"type": "text", "text": ""}), self.ping()]
            text = [
                (tokens, _delta(at, {"type": "text_delta", "text": piece})) for tokens, piece in pieces(answer.text)
            ]
            tail = [_stop(at)]
        return StreamParts(
            head=head,
            text=text,
            tail=[*tail, _event("message_delta", ending)],
            terminal=_event("message_stop", {"type": "message_stop"}),
        )

    def text_event(self, call: Call, text: str, number: int, created: int) -> bytes:  # noqa: ARG002 - deltas name no message
        return _delta(int(call.reasons), {"type": "text_delta", "text": text})

    def ping(self) -> bytes:
        return _event("ping", {"type": "ping"})

    def broken_event(self) -> bytes:
        return _BROKEN

    def models(self, names: tuple[str, ...]) -> bytes:
        names = names or (DEFAULT_MODEL,)
        listed = [
            {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"} for name in names
        ]
        return dump({"data": listed, "has_more": False, "first_id": names[0], "last_id": names[-1]})


def rfc3339(epoch_ms: int) -> str:
    """Return an instant as Anthropic's headers have it, rounded up to the second: `2026-01-02T03:04:05Z`."""
    return datetime.fromtimestamp(math.ceil(epoch_ms / 1000), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _limit_headers(name: str, level: Level, now_ms: int, *, coarse: bool) -> Headers:
    remaining = level.remaining
    if coarse and level.limit >= _COARSE_FROM:
        remaining = min(level.limit, round(remaining / 1000) * 1000)
    return [
        (f"anthropic-ratelimit-{name}-limit", str(level.limit)),
        (f"anthropic-ratelimit-{name}-remaining", str(remaining)),
        (f"anthropic-ratelimit-{name}-reset", rfc3339(now_ms + math.ceil(level.reset_seconds * 1000))),
    ]


def _error(kind: str, message: str, code: str | None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error}


def _finish(answer: Answer) -> str:
    return _FINISH.get(answer.finish, answer.finish)


def _usage(answer: Answer, output_tokens: int) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "input_tokens": answer.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens + answer.reasoning_tokens,
        "service_tier": "standard",
    }
    if answer.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": answer.reasoning_tokens}
    return usage


def _blocks(message: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    content = message.get("content")
    return (
        [block for block in content if isinstance(block, dict) and block.get("type") == kind]
        if isinstance(content, list)
        else []
    )


def _tools(body: dict[str, Any]) -> Tools:
    schemas: dict[str, Any] = {}
    for index, tool in enumerate(body.get("tools") or ()):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise WireError(400, f"tools.{index}.name: Field required")
        schemas[tool["name"]] = tool.get("input_schema")
    if body.get("tool_choice") is None:
        return Tools(schemas)
    wanted: dict[str, Any] = body["tool_choice"] if isinstance(body["tool_choice"], dict) else {}
    kind = wanted.get("type")
    if kind not in ("auto", "any", "tool", "none") or not schemas:
        raise WireError(400, "tool_choice: it needs tools, and a type of auto, any, tool or none")
    if kind == "tool" and wanted.get("name") not in schemas:
        raise WireError(400, f"tool_choice.name: there is no tool {wanted.get('name')!r:.40}")
    choice = wanted["name"] if kind == "tool" else "required" if kind == "any" else kind
    return Tools(schemas, choice, parallel=wanted.get("disable_parallel_tool_use") is not True)


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Refuse results that do not come first in the turn after their calls, one for each. Raises WireError."""
    asked: set[str] = set()
    for index, message in enumerate(messages):
        results = _blocks(message, "tool_result")
        if results and message["content"][: len(results)] != results:
            raise WireError(400, f"messages.{index}: tool_result blocks must come first in the content")
        given = {str(one.get("tool_use_id")) for one in results}
        if given - asked:
            raise WireError(400, f"messages.{index}: unexpected tool_use_id found in tool_result blocks")
        if asked - given:
            raise WireError(400, f"messages.{index - 1}: tool_use ids were found without tool_result blocks after them")
        asked = {str(one.get("id")) for one in _blocks(message, "tool_use")}
    if asked:
        raise WireError(400, "messages: tool_use ids were found without tool_result blocks after them")


def _thought(call: Call, number: int) -> list[dict[str, Any]]:
    return [{"type": "thinking", "thinking": _THOUGHT, "signature": f"c2ltdWxhdGVk{number}"}] if call.reasons else []


def _content(answer: Answer, number: int) -> list[dict[str, Any]]:
    if not answer.calls:
        return [{"type": "text", "text": answer.text}] if answer.text else []
    return [
        {"type": "tool_use", "id": f"toolu_sim_{number}_{index}", "name": name, "input": arguments}
        for index, (name, arguments) in enumerate(answer.calls)
    ]


def _call_events(index: int, block: dict[str, Any]) -> list[tuple[int, bytes]]:
    """A call begins with its id and name; its arguments follow in pieces."""
    events = [(0, _start(index, {**block, "input": {}}))]
    for tokens, piece in pieces(dump(block["input"]).decode()):
        events.append((tokens, _delta(index, {"type": "input_json_delta", "partial_json": piece})))
    return [*events, (0, _stop(index))]


def _thinking_deltas(thought: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "thinking_delta", "thinking": thought["thinking"]},
        {"type": "signature_delta", "signature": thought["signature"]},
    ]


def _block_events(index: int, block: dict[str, Any], deltas: list[dict[str, Any]]) -> list[bytes]:
    return [_start(index, block), *(_delta(index, delta) for delta in deltas), _stop(index)]


def _start(index: int, block: dict[str, Any]) -> bytes:
    return _event("content_block_start", {"type": "content_block_start", "index": index, "content_block": block})


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta})


def _stop(index: int) -> bytes:
    return _event("content_block_stop", {"type": "content_block_stop", "index": index})


def _message(call: Call, number: int) -> dict[str, Any]:
    return {
        "id": f"msg_sim_{number}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + dump(data) + b"\n\n"
