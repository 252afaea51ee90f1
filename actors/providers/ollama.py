"""Ollama's own format, `/api/chat`: lines of JSON, arguments as objects, calls without ids, one counter for all output. Pure: no I/O, no clock.

`stream` is said in either case, because it is true by default. `options.num_ctx` (in `extra`) decides how much of a prompt the server reads: what
is over it is cut off without a word.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .adapter import HttpRequest, check_messages, choose_fields, common_headers, optional_text, post, whole
from .answer_stream import AnswerStream
from .errors import classify_in_body, classify_reply, malformed, parse_error, read_reply, refused
from .features import supported
from .keys import Secret
from .model import (
    AnyRequest,
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
from .openai_shared import call_of, result_text
from .parts import Image, Text, ToolCall, ToolResult
from .settings import ProviderSettings
from .sse import SSEEvent

_FINISH = {"stop": Finish.STOP, "length": Finish.LENGTH}
_OWNED = frozenset({"model", "messages", "stream", "tools", "format"})
_NEVER = frozenset({"parallel_tools", "cache_key", "cache_ttl", "tool_choice"})
_OPTIONS = {
    "max_output": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "seed": "seed",
}
_THINK: dict[str, bool | str] = {"none": False, "minimal": "low", "xhigh": "high", "max": "high"}


class Ollama:
    """`POST {base_url}/api/chat`."""

    def encode(self, request: Request, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_messages(request)
        if problem is not None:
            return problem
        chosen = choose_fields(request, settings, always_unsupported=frozenset(), owned=_OWNED)
        if isinstance(chosen, CallError):
            return chosen
        if request.tool_choice in ("auto", "none"):  # the one is what it does, the other is to know of no tools
            request = replace(request, tool_choice=None, tools=() if request.tool_choice == "none" else request.tools)
        feasible = supported(request, settings, always=_NEVER)
        if isinstance(feasible, CallError):
            return feasible
        fields, extra = chosen
        given = extra.pop("options", {})
        if not isinstance(given, dict) or "num_predict" in given:
            return refused(
                "extra.options", "it must be an object without num_predict; that is the request's max_output"
            )
        if any(isinstance(part, Image) and part.url for message in feasible.messages for part in message.parts):
            return refused("images", "Ollama fetches no images by url; give the image itself, as data")
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [told for message in feasible.messages for told in _messages(message, feasible)],
            "stream": request.stream,
        }
        if feasible.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
                }
                for tool in feasible.tools
            ]
        if feasible.schema is not None:
            body["format"] = feasible.schema
        if feasible.effort is not None:
            body["think"] = _THINK.get(feasible.effort, feasible.effort)
        options = {**given, **{_OPTIONS[name]: value for name, value in fields.items()}}
        if options:
            body["options"] = options
        return post("/api/chat", request_headers(request, key, settings), {**body, **extra})

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Completion | CallError:
        """Return what a whole reply means."""
        data = read_reply(status, headers, body, at_ms=at_ms)
        if isinstance(data, CallError):
            return data
        message = data.get("message")
        if not isinstance(message, dict):
            return malformed(f"HTTP {status} with JSON that holds no message")
        return _completion(_content(message), _calls(message), data, data)

    def stream_decoder(self, headers: Mapping[str, str], *, at_ms: int) -> "OllamaStream":
        """Return a decoder for one stream."""
        return OllamaStream(headers, at_ms)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int) -> CallError:
        """Return the error that a reply with this status means."""
        return classify_reply(status, headers, body, at_ms=at_ms)

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:  # noqa: ARG002 - the protocol's names
        """Return None: only how much is open at once matters to a local server, and it says nothing of it."""
        return None


class OllamaStream(AnswerStream):
    """Reads one streamed answer, which is complete at the line with `"done": true` and not before."""

    framing = "ndjson"

    def __init__(self, headers: Mapping[str, str], at_ms: int) -> None:
        super().__init__(headers, at_ms)
        self._first: dict[str, Any] = {}
        self._last: dict[str, Any] = {}
        self._calls: list[Any] = []

    def feed(self, event: SSEEvent) -> list[str]:
        """Return the piece of text in a line."""
        if self.terminal:
            return []
        try:
            line = json.loads(event.data)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict):
            self._error = malformed("a line of the stream is not a JSON object", partial=self.text)
            return []
        if line.get("error"):
            self._error = classify_in_body(
                parse_error(line), headers=self._headers, at_ms=self._at_ms, partial=self.text, request_id=None
            )
            return []
        self._first = self._first or line
        if line.get("done") is True:
            self._done = True
            self._last = line
        message = line.get("message")
        if not isinstance(message, dict):
            self._progress += self._done
            return []
        calls = _calls(message)
        self._calls += calls
        text = _content(message)
        self._progress += bool(text or calls or message.get("thinking") or self._done)
        if not text:
            return []
        self._pieces.append(text)
        return [text]

    def finish(self, *, eof: bool) -> Completion | CallError:
        """Return the outcome: complete only if the last line has come."""
        if self._error is not None:
            return self._error
        if not self._done:
            return CallError(
                kind=ErrorClass.TRUNCATED,
                message=f"the stream {'ended' if eof else 'broke off'} before its last line: the answer is not complete",
                billed=Billed.YES if self._pieces else Billed.MAYBE,
                partial=self.text,
            )
        return _completion(self.text, self._calls, self._first, self._last)


def request_headers(request: AnyRequest, key: Secret | None, settings: ProviderSettings) -> list[tuple[str, str]]:
    """Return the headers of a request. A local server asks for no key; ollama.com does."""
    headers = common_headers(request, settings)
    if key is not None:
        headers.append(("authorization", f"Bearer {key.reveal()}"))
    return headers


def _messages(message: Message, request: Request) -> list[dict[str, Any]]:
    """Return a message as the format has it: each result of a call is one of its own, and knows the function by its name alone."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    found = [
        {"role": "tool", "tool_name": result.name or _name_of(result, request), "content": result_text(result)}
        for result in results
    ]
    images = [part.data for part in message.parts if isinstance(part, Image)]
    calls = [
        {"function": {"name": part.name, "arguments": part.arguments}}
        for part in message.parts
        if isinstance(part, ToolCall)
    ]
    if results and not images and not any(isinstance(part, Text) for part in message.parts):
        return found
    told: dict[str, Any] = {"role": "user" if message.role == "tool" else message.role, "content": message.text}
    if images:
        told["images"] = images
    if calls:
        told["tool_calls"] = calls
    return [*found, told]


def _name_of(result: ToolResult, request: Request) -> str:
    return next(
        (call.name for message in request.messages for call in message.tool_calls if call.id == result.call_id), ""
    )


def _completion(text: str, calls: list[Any], first: dict[str, Any], last: dict[str, Any]) -> Completion:
    # There is no id of the answer to tell its calls from those of other turns; when it began does as well.
    began = optional_text(first.get("created_at"))
    tool_calls = tuple(_call(call, began, number) for number, call in enumerate(calls))
    raw = optional_text(last.get("done_reason"))
    finish = _FINISH.get(raw or "", Finish.UNKNOWN)
    return Completion(
        text=text,
        tool_calls=tool_calls,
        finish=Finish.TOOL if tool_calls and finish is Finish.STOP else finish,
        raw_finish=raw,
        usage=_usage(last),
        model=optional_text(last.get("model")) or optional_text(first.get("model")),
    )


def _calls(message: dict[str, Any]) -> list[Any]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _call(call: dict[str, Any], began: str | None, number: int) -> ToolCall:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return call_of(
        function.get("arguments"),
        call_id=optional_text(call.get("id")),
        name=optional_text(function.get("name")) or "",
        answer=began,
        number=number,
    )


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _usage(value: dict[str, Any]) -> Usage | None:
    if not ("prompt_eval_count" in value or "eval_count" in value):
        return None
    # Reasoning is inside eval_count, and nothing says how much of it.
    return Usage(input_uncached=whole(value.get("prompt_eval_count")), output_visible=whole(value.get("eval_count")))
