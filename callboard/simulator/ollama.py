"""Ollama's own wire format: lines of JSON, streamed unless the request says otherwise, and no limit but how much is open at once."""

# ruff: noqa: D102 - wire.Wire documents every method

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .buckets import Level, Rejection
from .config import DEFAULT_MODEL, SimulatorConfig
from .extractive import estimate_tokens, pieces
from .tools import Tools
from .vectors import DIMENSIONS, embed
from .wire import IMAGE_TOKENS, Answer, Call, Headers, StreamParts, WireError, dump, last_user_text, text_of

_ROLES = frozenset({"system", "user", "assistant", "tool"})
_BROKEN = b'{"model":"m","message":{"role":"assistant","content":"\n'
_FINISH = {"length": "length"}
"""A local model filters nothing, and what it refuses it refuses in words."""


class Ollama:
    """`/api/chat`. See `wire.Wire` for what each method promises."""

    name = "ollama"

    def api_key(self, headers: Mapping[str, str]) -> str:
        return headers.get("authorization", "").partition(" ")[2].strip()

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:  # noqa: ARG002 - this format has nothing in its headers
        model = _model(body)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise WireError(400, "messages is required")
        for message in messages:
            if not isinstance(message, dict) or message.get("role") not in _ROLES:
                raise WireError(400, f"invalid role: expected one of {', '.join(sorted(_ROLES))}")
        options = body.get("options") or {}
        if not isinstance(options, dict):
            raise WireError(400, "invalid options")
        limit, stop = options.get("num_predict"), options.get("stop") or []
        shape = body.get("format")
        all_text = "\n".join(text_of(message.get("content")) for message in messages)
        images = sum(len(message.get("images") or ()) for message in messages)
        after_tools = messages[-1].get("role") == "tool"
        return Call(
            model=model,
            text=_results(messages) if after_tools else last_user_text(messages),
            all_text=all_text,
            input_tokens=max(1, estimate_tokens(all_text)) + IMAGE_TOKENS * images,
            max_tokens=limit if isinstance(limit, int) and limit > 0 else None,
            stream=body.get("stream") is not False,
            stop=tuple(one for one in stop if isinstance(one, str)) if isinstance(stop, list) else (),
            include_usage=True,
            tools=_tools(body),
            after_tools=after_tools,
            schema=shape if isinstance(shape, dict) else {"type": "object"} if shape == "json" else None,
            reasons=bool(body.get("think")),
        )

    def model_unknown(self, model: str) -> WireError:
        return WireError(404, f"model '{model}' not found")

    def key_refused(self, key: str) -> WireError:  # noqa: ARG002 - it says the same of any
        return WireError(401, "unauthorized")

    def too_many(self, rejection: Rejection, model: str) -> WireError:  # noqa: ARG002 - it says the same of any
        return WireError(503, "server busy, please try again.  maximum pending requests exceeded")

    def error(self, error: WireError, request_id: str) -> bytes:  # noqa: ARG002 - this format has no such id
        return dump({"error": error.message})

    def error_event(self, kind: str, message: str, code: str | None) -> bytes:  # noqa: ARG002 - a text is all there is
        return _line({"error": message})

    def error_status(self, kind: str) -> int:  # noqa: ARG002 - there are no kinds
        return 500

    def headers(self, request_id: str, elapsed_ms: int) -> Headers:  # noqa: ARG002 - this format has none
        return []

    def limit_headers(self, levels: Mapping[str, Level], now_ms: int) -> Headers:  # noqa: ARG002 - this format has none
        return []

    def retry_headers(self, wait_seconds: float) -> Headers:  # noqa: ARG002 - this format has none
        return []

    def limits(self, config: SimulatorConfig) -> dict[str, int]:  # noqa: ARG002 - how much is open is the server's matter
        return {}

    def charges(self, call: Call) -> dict[str, int]:
        return {"requests": 1, "tokens": call.input_tokens}

    def output_dimension(self) -> str | None:
        return None

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:  # noqa: ARG002 - nothing has an id
        message = _message(answer.text, calls=answer.calls)
        return dump({**_part(call, created, message), **_ending(answer)})

    def stream(self, call: Call, answer: Answer, number: int, created: int) -> StreamParts:
        if answer.calls:
            share = -(-answer.output_tokens // len(answer.calls))
            said = [(share, _line(_part(call, created, _message("", calls=(one,))))) for one in answer.calls]
        else:
            said = [(tokens, self.text_event(call, piece, number, created)) for tokens, piece in pieces(answer.text)]
        thought = [_line(_part(call, created, {**_message(""), "thinking": "Let me see."}))] if call.reasons else []
        return StreamParts(
            head=thought,
            text=said,
            tail=[],
            terminal=_line({**_part(call, created, _message("")), **_ending(answer)}),
            content_type="application/x-ndjson",
        )

    def text_event(self, call: Call, text: str, number: int, created: int) -> bytes:  # noqa: ARG002 - nothing has an id
        return _line(_part(call, created, _message(text)))

    def ping(self) -> bytes:
        return b""  # there are none

    def broken_event(self) -> bytes:
        return _BROKEN

    def models(self, names: tuple[str, ...]) -> bytes:
        return dump({"models": [{"name": name, "model": name} for name in names or (DEFAULT_MODEL,)]})


class OllamaEmbeddings(Ollama):
    """`/api/embed`."""

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:  # noqa: ARG002 - this format has nothing in its headers
        model = _model(body)
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise WireError(400, "invalid input type")
        dimensions = body.get("dimensions")
        return Call(
            model=model,
            text=texts[0],
            all_text="\n".join(texts),
            input_tokens=sum(map(estimate_tokens, texts)),
            max_tokens=None,
            stream=False,
            stop=(),
            include_usage=True,
            inputs=tuple(texts),
            dimensions=dimensions if isinstance(dimensions, int) and 0 < dimensions <= 4096 else None,
        )

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:  # noqa: ARG002 - nothing of these
        vectors = [embed(text, call.dimensions or DIMENSIONS) for text in call.inputs]
        reply = {"model": call.model, "embeddings": vectors, "total_duration": 1000, "load_duration": 0}
        return dump({**reply, **({"prompt_eval_count": answer.input_tokens} if answer.with_usage else {})})


def _model(body: Any) -> str:
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str) or not model:
        raise WireError(400, "model is required")
    return model


def _tools(body: dict[str, Any]) -> Tools:
    tools = body.get("tools") or []
    schemas: dict[str, Any] = {}
    for tool in tools if isinstance(tools, list) else ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise WireError(400, "invalid tool: it has no function with a name")
        schemas[function["name"]] = function.get("parameters")
    return Tools(schemas)


def _results(messages: list[dict[str, Any]]) -> str:
    """The results at the end of a conversation."""
    texts: list[str] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        texts.insert(0, text_of(message.get("content")))
    return "\n".join(texts)


def _message(text: str, *, calls: tuple[tuple[str, Any], ...] = ()) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return message


def _part(call: Call, created: int, message: dict[str, Any]) -> dict[str, Any]:
    at = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"model": call.model, "created_at": at, "message": message, "done": False}


def _ending(answer: Answer) -> dict[str, Any]:
    ending: dict[str, Any] = {"done": True, "done_reason": _FINISH.get(answer.finish, "stop")}
    ending.update(dict.fromkeys(("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"), 1000))
    if answer.with_usage:
        ending["prompt_eval_count"] = answer.input_tokens
        ending["eval_count"] = answer.output_tokens + answer.reasoning_tokens
    return ending


def _line(data: dict[str, Any]) -> bytes:
    return dump(data) + b"\n"
