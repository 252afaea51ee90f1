"""The OpenAI Chat Completions wire format: requests, replies, unnamed server-sent events closed by `[DONE]`."""

# ruff: noqa: D102 - wire.Wire documents every method

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .buckets import Level, Rejection
from .config import DEFAULT_MODEL, SimulatorConfig
from .extractive import estimate_tokens, pieces
from .tools import Tools
from .wire import IMAGE_TOKENS, Answer, Call, Headers, StreamParts, WireError, dump, last_user_text, text_of

_ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
_KINDS = {
    429: "requests",
    500: "server_error",
    502: "server_error",
    503: "server_error",
    504: "server_error",
    529: "server_error",
}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded", 503: "server_is_overloaded"}
_STATUS_OF_KIND = {
    "server_error": 500,
    "requests": 429,
    "tokens": 429,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
}
_UNITS = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)", "concurrency": "concurrent requests"}
_FINISH = {"stop_sequence": "stop", "refusal": "stop", "tool": "tool_calls"}
# A chunk that ends in the middle of a string, with good framing around it.
_BROKEN = b'data: {"id":"chatcmpl-sim","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"\n\n'


class OpenAIWire:
    """What all of OpenAI's endpoints share. See `wire.Wire` for what each method promises."""

    name = "openai"

    def api_key(self, headers: Mapping[str, str]) -> str:
        return headers.get("authorization", "").partition(" ")[2].strip()

    def model_unknown(self, model: str) -> WireError:
        return WireError(404, f"The model `{model}` does not exist or you do not have access to it.", param="model")

    def key_refused(self, key: str) -> WireError:
        return WireError(
            401,
            "Incorrect API key provided." if key else "You didn't provide an API key: use 'Authorization: Bearer KEY'.",
        )

    def too_many(self, rejection: Rejection, model: str) -> WireError:
        what = f"for {model} on {_UNITS[rejection.dimension]}: Limit {rejection.limit}"
        kind = "tokens" if rejection.dimension == "tokens" else "requests"
        if math.isinf(rejection.wait_seconds):
            return WireError(
                429,
                f"Request too large {what}, Requested {rejection.requested}. Ask for fewer tokens.",
                kind=kind,
                code=_CODES[429],
            )
        used = rejection.limit - rejection.remaining
        wait = go_duration(rejection.wait_seconds)
        return WireError(
            429,
            f"Rate limit reached {what}, Used {used}, Requested {rejection.requested}. Please try again in {wait}.",
            kind=kind,
            code=_CODES[429],
        )

    def error(self, error: WireError, request_id: str) -> bytes:  # noqa: ARG002 - this format has the id in a header only
        return dump(
            _error(
                error.kind or _KINDS.get(error.status),
                error.message,
                error.code if error.kind or error.code else _CODES.get(error.status),
                error.param,
            )
        )

    def error_event(self, kind: str, message: str, code: str | None) -> bytes:
        return _event(_error(kind, message, code, None))

    def error_status(self, kind: str) -> int:
        return _STATUS_OF_KIND.get(kind, 400)

    def headers(self, request_id: str, elapsed_ms: int) -> Headers:
        return [
            ("x-request-id", request_id),
            ("openai-processing-ms", str(elapsed_ms)),
            ("openai-version", "2020-10-01"),
            ("openai-organization", "callboard-simulator"),
        ]

    def models(self, names: tuple[str, ...]) -> bytes:
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "callboard"} for name in names or (DEFAULT_MODEL,)
        ]
        return dump({"object": "list", "data": listed})

    def limit_headers(self, levels: Mapping[str, Level], now_ms: int) -> Headers:  # noqa: ARG002 - durations need no instant
        found: Headers = []
        for name, level in levels.items():
            found += [
                (f"x-ratelimit-limit-{name}", str(level.limit)),
                (f"x-ratelimit-remaining-{name}", str(level.remaining)),
                (f"x-ratelimit-reset-{name}", go_duration(level.reset_seconds)),
            ]
        return found

    def retry_headers(self, wait_seconds: float) -> Headers:
        exact_ms = max(1, math.ceil(wait_seconds * 1000))
        return [("retry-after", str(max(1, math.ceil(wait_seconds)))), ("retry-after-ms", str(exact_ms))]

    def limits(self, config: SimulatorConfig) -> dict[str, int]:
        sizes = {"requests": config.rpm, "tokens": config.tpm}
        return {name: size for name, size in sizes.items() if size is not None}

    def charges(self, call: Call) -> dict[str, int]:
        return {"requests": 1, "tokens": max(call.max_tokens or 0, call.input_tokens)}

    def output_dimension(self) -> str | None:
        return None  # max_tokens was charged at admission


class OpenAIChat(OpenAIWire):
    """Chat Completions."""

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:  # noqa: ARG002 - this format has nothing in its headers
        model = read_model(body)
        if "messages" not in body:
            raise _missing("messages")
        messages = body["messages"]
        if not isinstance(messages, list) or not messages:
            raise WireError(
                400, "Invalid 'messages': expected a non-empty array.", param="messages", code="invalid_type"
            )
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or message.get("role") not in _ROLES:
                at = f"messages[{index}].role"
                raise WireError(
                    400, f"Invalid value for '{at}': expected one of {sorted(_ROLES)}.", param=at, code="invalid_value"
                )
        if body.get("n") not in {None, 1}:
            raise WireError(
                400, "Invalid 'n': the simulator answers with one choice.", param="n", code="unsupported_value"
            )
        stop = body.get("stop")
        stops = [stop] if isinstance(stop, str) else stop or []
        if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(one, str) for one in stops):
            raise WireError(
                400, "Invalid 'stop': expected a string or at most 4 strings.", param="stop", code="invalid_value"
            )
        options = body.get("stream_options")
        all_text = "\n".join(text_of(message.get("content")) for message in messages)
        schema = read_schema(body.get("response_format"), "response_format", nested=True)
        after_tools = messages[-1].get("role") in ("tool", "function")
        return Call(
            model=model,
            text=_tool_texts(messages) if after_tools else last_user_text(messages),
            all_text=all_text,
            input_tokens=max(1, estimate_tokens(all_text)) + IMAGE_TOKENS * count_images(messages, "image_url"),
            max_tokens=_max_tokens(body),
            stream=body.get("stream") is True,
            stop=tuple(stops),
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            tools=read_tools(body, nested=True),
            after_tools=after_tools,
            schema=schema,
            reasons=body.get("reasoning_effort") not in (None, "none"),
        )

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:
        refused = answer.finish == "refusal"
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if refused or answer.calls else answer.text,
            "refusal": answer.text if refused else None,
        }
        if answer.calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, name, arguments in told_calls(answer, number)
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
        reply: dict[str, Any] = {**_envelope(call, number, created, "chat.completion"), "choices": [choice]}
        if answer.with_usage:
            reply["usage"] = _usage(answer)
        return dump(reply)

    def stream(self, call: Call, answer: Answer, number: int, created: int) -> StreamParts:
        field = "refusal" if answer.finish == "refusal" else "content"
        empty = None if field == "refusal" or answer.calls else ""
        first = {"role": "assistant", "content": empty, "refusal": None}
        tail = [_chunk(call, number, created, {}, _finish(answer))]
        if call.include_usage and answer.with_usage:
            envelope = _envelope(call, number, created, "chat.completion.chunk")
            tail.append(_event({**envelope, "choices": [], "usage": _usage(answer)}))
        return StreamParts(
            head=[_chunk(call, number, created, first, None)],
            text=_call_chunks(call, answer, number, created)
            if answer.calls
            else [
                (tokens, _chunk(call, number, created, {field: piece}, None)) for tokens, piece in pieces(answer.text)
            ],
            tail=tail,
            terminal=b"data: [DONE]\n\n",
        )

    def text_event(self, call: Call, text: str, number: int, created: int) -> bytes:
        return _chunk(call, number, created, {"content": text}, None)

    def ping(self) -> bytes:
        return b": keep-alive\n\n"

    def broken_event(self) -> bytes:
        return _BROKEN


def go_duration(seconds: float) -> str:
    """Return a duration as Go prints it and OpenAI's headers have it, rounded up to the millisecond: `12ms`, `1.5s`, `6m0s`."""
    whole_ms = math.ceil(round(seconds * 1000, 3))
    if whole_ms < 1000:
        return f"{whole_ms}ms" if whole_ms else "0s"
    minutes, rest_ms = divmod(whole_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest_ms / 1000:g}s"
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}" if minutes else text


def _max_tokens(body: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise WireError(400, f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type")
        if value < 1:
            raise WireError(
                400,
                f"Invalid '{name}': expected a value >= 1, but got {value}.",
                param=name,
                code="integer_below_min_value",
            )
        return value
    return None


def read_model(body: Any) -> str:
    """Return the model that a body names. Raises WireError."""
    if not isinstance(body, dict):
        raise WireError(400, "We could not parse the JSON body of your request: send a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise WireError(400, "You must provide a model parameter.", param="model")
    return model


def read_tools(body: dict[str, Any], *, nested: bool) -> Tools:
    """Return what a request offers. `nested`: a function stands in an object of its own, as in Chat Completions. Raises WireError."""
    schemas: dict[str, Any] = {}
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        raise WireError(400, "Invalid type for 'tools': expected an array.", param="tools", code="invalid_type")
    for index, tool in enumerate(tools):
        function = tool.get("function") if nested and isinstance(tool, dict) else tool
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            at = f"tools[{index}].function.name" if nested else f"tools[{index}].name"
            raise WireError(400, f"Missing required parameter: '{at}'.", param=at, code="missing_required_parameter")
        schemas[function["name"]] = function.get("parameters")
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not schemas:
            raise WireError(400, f"'{name}' is only allowed when 'tools' are specified.", param=name)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        function = choice.get("function") if nested else choice
        choice = function.get("name") if isinstance(function, dict) else None
        if choice not in schemas:
            raise WireError(400, "Tool choice: the function is not among 'tools'.", param="tool_choice")
    elif choice not in (None, "auto", "none", "required"):
        raise WireError(400, f"Invalid value for 'tool_choice': {choice!r:.40}.", param="tool_choice")
    return Tools(schemas, choice or "auto", parallel=body.get("parallel_tool_calls") is not False)


def read_schema(value: Any, param: str, *, nested: bool) -> Any:
    """Return the schema that a format asks for, None if it asks for none. Raises WireError."""
    if not isinstance(value, dict) or value.get("type") != "json_schema":
        return None
    told = value.get("json_schema") if nested else value
    if not isinstance(told, dict) or not isinstance(told.get("name"), str) or not isinstance(told.get("schema"), dict):
        raise WireError(400, f"Invalid '{param}': a json_schema needs a name and a schema.", param=param)
    if told.get("strict") is True and told["schema"].get("additionalProperties") is not False:
        raise WireError(
            400,
            f"Invalid schema for {param} '{told['name']}': In context=(), 'additionalProperties' is required to be supplied and to be false.",
            param=param,
            code="invalid_json_schema",
        )
    return told["schema"]


def count_images(messages: list[dict[str, Any]], kind: str) -> int:
    """Return how many images messages hold, as parts of this type."""
    return sum(
        isinstance(part, dict) and part.get("type") == kind
        for message in messages
        for part in (message["content"] if isinstance(message.get("content"), list) else ())
    )


def told_calls(answer: Answer, number: int) -> list[tuple[str, str, str]]:
    """Return the tool calls of an answer as the formats write them: id, name, and the arguments as a JSON text."""
    return [
        (f"call_sim_{number}_{index}", name, dump(arguments).decode())
        for index, (name, arguments) in enumerate(answer.calls)
    ]


def _tool_texts(messages: list[dict[str, Any]]) -> str:
    """The results at the end of a conversation."""
    texts: list[str] = []
    for message in reversed(messages):
        if message.get("role") not in ("tool", "function"):
            break
        texts.insert(0, text_of(message.get("content")))
    return "\n".join(texts)


def _call_chunks(call: Call, answer: Answer, number: int, created: int) -> list[tuple[int, bytes]]:
    """Each call begins with its id and name, and its arguments follow in pieces."""
    chunks: list[tuple[int, bytes]] = []
    for index, (call_id, name, arguments) in enumerate(told_calls(answer, number)):
        function = {"name": name, "arguments": ""}
        first = {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
        chunks.append((0, _chunk(call, number, created, first, None)))
        for tokens, piece in pieces(arguments):
            delta = {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            chunks.append((tokens, _chunk(call, number, created, delta, None)))
    return chunks


def _missing(name: str) -> WireError:
    return WireError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def _error(kind: str | None, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind or "invalid_request_error", "param": param, "code": code}}


def _finish(answer: Answer) -> str:
    return _FINISH.get(answer.finish, answer.finish)


def _usage(answer: Answer) -> dict[str, Any]:
    written = answer.output_tokens + answer.reasoning_tokens
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": written,
        "total_tokens": answer.input_tokens + written,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
            "audio_tokens": 0,
        },
    }


def _envelope(call: Call, number: int, created: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-sim-{number}",
        "object": kind,
        "created": created,
        "model": call.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
    }


def _chunk(call: Call, number: int, created: int, delta: dict[str, Any], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk: dict[str, Any] = {**_envelope(call, number, created, "chat.completion.chunk"), "choices": [choice]}
    if call.include_usage:
        chunk["usage"] = None
    return _event(chunk)


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + dump(data) + b"\n\n"
