"""OpenAI Chat Completions, and the servers that speak it: vLLM, llama.cpp, LM Studio, Ollama's /v1, Groq and others.

Those servers differ in small ways, all accepted here: an error as text or object, codes as numbers, no usage, no `[DONE]` after the
finish reason, content that is null, an error inside a 200. Pure: no I/O, no clock.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .adapter import HttpRequest, check_messages, choose_fields, optional_text, post, whole
from .answer_stream import AnswerStream
from .errors import classify_in_body, classify_reply, malformed, parse_error, read_reply, refused
from .features import supported
from .keys import Secret
from .model import (
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
from .openai_shared import (
    argument_text,
    call_of,
    image_url,
    limits_of,
    request_headers,
    request_id_of,
    result_text,
    schema_format,
)
from .parts import Image, Text, ToolCall
from .settings import ProviderSettings
from .sse import SSEEvent

_FINISH = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL,
    "function_call": Finish.TOOL,
    "content_filter": Finish.FILTER,
}
_OWNED = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tools", "functions"}
)


class OpenAIChat:
    """`POST {base_url}/chat/completions`."""

    def encode(self, request: Request, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_messages(request)
        if problem is not None:
            return problem
        fit = supported(request, settings)
        if isinstance(fit, CallError):
            return fit
        chosen = choose_fields(fit, settings, always_unsupported=frozenset(), owned=_OWNED)
        if isinstance(chosen, CallError):
            return chosen
        fields, extra = chosen
        if "max_output" in fields:
            fields[settings.max_tokens_field or _max_tokens_field(settings.base_url)] = fields.pop("max_output")
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [item for message in fit.messages for item in _messages(message)],
            **fields,
            **_features(fit),
        }
        for name in extra.keys() & body.keys():
            return refused(f"extra.{name}", "the request sets this field itself; set it in one place")
        if request.stream:
            body["stream"] = True
            if "stream_options" not in settings.unsupported | request.unsupported:
                body["stream_options"] = {"include_usage": True}
        return post("/chat/completions", request_headers(request, key, settings), {**body, **extra})

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Completion | CallError:
        """Return what a whole reply means."""
        request_id = request_id_of(headers)
        data = read_reply(status, headers, body, at_ms=at_ms, request_id=request_id)
        if isinstance(data, CallError):
            return data
        choice = _first_choice(data)
        message = choice.get("message") if choice else None
        if not isinstance(message, dict) or choice is None:
            return malformed(f"HTTP {status} with JSON that holds no choices[0].message", request_id=request_id)
        refusal = _content(message.get("refusal"))
        raw = optional_text(choice.get("finish_reason"))
        response_id = optional_text(data.get("id"))
        calls = _Calls()
        calls.add(message.get("tool_calls"), whole_calls=True)
        found = calls.found(response_id)
        return Completion(
            text=_content(message.get("content")) + refusal,
            finish=_finish(raw or "", refused_=bool(refusal), calls=found),
            raw_finish=raw,
            usage=_usage(data.get("usage")),
            model=optional_text(data.get("model")),
            response_id=response_id,
            request_id=request_id,
            tool_calls=found,
        )

    def stream_decoder(self, headers: Mapping[str, str], *, at_ms: int) -> "OpenAIChatStream":
        """Return a decoder for one stream."""
        return OpenAIChatStream(headers, at_ms)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int) -> CallError:
        """Return the error that a reply with this status means."""
        return classify_reply(status, headers, body, at_ms=at_ms, request_id=request_id_of(headers))

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:
        """Return what `x-ratelimit-*` says."""
        return limits_of(headers, at_ms)


class OpenAIChatStream(AnswerStream):
    """Reads one streamed answer. A finish reason completes it; `[DONE]` only ends it, and some servers never send that."""

    def __init__(self, headers: Mapping[str, str], at_ms: int) -> None:
        super().__init__(headers, at_ms)
        self._refused = False
        self._usage: Usage | None = None
        self._calls = _Calls()

    def feed(self, event: SSEEvent) -> list[str]:
        """Return the pieces of text in an event."""
        if self.terminal:
            return []
        if event.data.strip() == "[DONE]":
            self._done = True
            return []
        try:
            chunk = json.loads(event.data)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict):
            if event.event == "error":
                self._fail(parse_error({"error": event.data}))
            else:
                self._error = malformed(
                    "an event of the stream is not a JSON object", partial=self.text, request_id=self._request_id
                )
            return []
        if event.event == "error" or chunk.get("error") or chunk.get("object") == "error":
            self._fail(parse_error(chunk))
            return []
        self._model = self._model or optional_text(chunk.get("model"))
        self._id = self._id or optional_text(chunk.get("id"))
        self._usage = _usage(chunk.get("usage")) or self._usage
        return self._choice(_first_choice(chunk))

    def finish(self, *, eof: bool) -> Completion | CallError:
        """Return the outcome: complete once a finish reason has come, whether or not the end was in good order."""
        if self._error is not None:
            return self._error
        if self._raw_finish is None:
            how = "ended with [DONE] but" if self._done else "ended" if eof else "broke off"
            return CallError(
                kind=ErrorClass.TRUNCATED,
                message=f"the stream {how} without a finish reason: the answer is not complete",
                billed=Billed.YES if self._pieces else Billed.MAYBE,
                request_id=self._request_id,
                partial=self.text,
            )
        found = self._calls.found(self._id)
        return Completion(
            text=self.text,
            finish=_finish(self._raw_finish, refused_=self._refused, calls=found),
            raw_finish=self._raw_finish,
            usage=self._usage,
            model=self._model,
            response_id=self._id,
            request_id=self._request_id,
            tool_calls=found,
        )

    @property
    def _request_id(self) -> str | None:
        return request_id_of(self._headers)

    def _fail(self, said: Any) -> None:
        self._error = classify_in_body(
            said, headers=self._headers, at_ms=self._at_ms, partial=self.text, request_id=self._request_id
        )

    def _choice(self, choice: dict[str, Any] | None) -> list[str]:
        if choice is None:
            return []
        pieces: list[str] = []
        delta = choice.get("delta")
        carried = False
        if isinstance(delta, dict):
            refusal = _content(delta.get("refusal"))
            self._refused = self._refused or bool(refusal)
            pieces = [text for text in (_content(delta.get("content")), refusal) if text]
            self._calls.add(delta.get("tool_calls"))
            # Reasoning too, which servers send as `reasoning_content` or `reasoning`.
            carried = any(value for name, value in delta.items() if name != "role")
        reason = optional_text(choice.get("finish_reason"))
        self._raw_finish = reason or self._raw_finish
        if carried or reason:
            self._progress += 1
        self._pieces += pieces
        return pieces


class _Calls:
    """The tool calls of one answer as they come: whole, or in pieces that belong together by `index`.

    Some servers give no index, or none that tells two calls apart; then an id that is new begins a call, and a piece without one goes to the
    call before.
    """

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = []
        self._by_index: dict[Any, dict[str, Any]] = {}

    def add(self, deltas: Any, *, whole_calls: bool = False) -> None:
        """Note a list of calls or pieces of them, as the wire has it."""
        for delta in deltas if isinstance(deltas, list) else ():
            if isinstance(delta, dict):
                self._add(delta, whole_calls)

    def found(self, answer: str | None) -> tuple[ToolCall, ...]:
        """Return the calls in the order they began in. `answer`: the id of the answer."""
        return tuple(
            call_of(
                call["value"] if call["value"] is not None else "".join(call["pieces"]),
                call_id=call["id"],
                name=call["name"],
                answer=answer,
                number=number,
            )
            for number, call in enumerate(self._found)
        )

    def _add(self, delta: dict[str, Any], whole_call: bool) -> None:
        call = self._call(None if whole_call else delta.get("index"), optional_text(delta.get("id")), whole_call)
        function = delta.get("function")
        if not isinstance(function, dict):
            return
        call["name"] = call["name"] or optional_text(function.get("name")) or ""
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            call["pieces"].append(arguments)
        elif arguments is not None:
            call["value"] = arguments

    def _call(self, index: Any, call_id: str | None, whole_call: bool) -> dict[str, Any]:
        known = self._by_index.get(index) if isinstance(index, int) else None
        if known is None and not isinstance(index, int) and not whole_call and self._found:
            known = self._found[-1]
        if known is not None and (call_id is None or known["id"] in (None, call_id)):
            known["id"] = known["id"] or call_id
        else:
            known = {"id": call_id, "name": "", "pieces": [], "value": None}
            self._found.append(known)
        if isinstance(index, int):
            self._by_index[index] = known
        return known


def _messages(message: Message) -> list[dict[str, Any]]:
    """One turn as messages of this format: results have one each, and stand before what else is said."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    told: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": result.call_id, "content": result_text(result)}
        for result in message.tool_results
    ]
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": argument_text(call)}}
        for call in message.tool_calls
    ]
    pictures = any(isinstance(part, Image) for part in message.content)
    if pictures:
        content: Any = [_part(part) for part in message.content if isinstance(part, Text | Image)]
    else:
        content = message.text
    if calls:
        told.append({"role": message.role, "content": content or None, "tool_calls": calls})
    elif content or not told:
        told.append({"role": message.role, "content": content})
    return told


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": image_url(part)}}


def _features(request: Request) -> dict[str, Any]:
    """The fields of what only some requests use."""
    fields: dict[str, Any] = {}
    if request.tools:
        fields["tools"] = [{"type": "function", "function": _function(tool)} for tool in request.tools]
        if request.tool_choice is not None:
            fields["tool_choice"] = (
                request.tool_choice
                if request.tool_choice in ("auto", "none", "required")
                else {"type": "function", "function": {"name": request.tool_choice}}
            )
        if request.parallel_tools is not None:
            fields["parallel_tool_calls"] = request.parallel_tools
    if request.schema is not None:
        fields["response_format"] = {
            "type": "json_schema",
            "json_schema": schema_format(request.schema, request.schema_name),
        }
    if request.effort is not None:
        fields["reasoning_effort"] = request.effort
    if request.cache_key is not None:
        fields["prompt_cache_key"] = request.cache_key
    return fields


def _function(tool: Tool) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {**described, "strict": True} if tool.strict else described


def _finish(raw: str, *, refused_: bool, calls: tuple[ToolCall, ...]) -> Finish:
    if refused_:
        return Finish.REFUSAL
    found = _FINISH.get(raw, Finish.UNKNOWN)
    # Some servers say "stop" after calls all the same.
    return Finish.TOOL if calls and found is Finish.STOP else found


def _max_tokens_field(base_url: str) -> str:
    # OpenAI's reasoning models refuse the old name; most compatible servers know only that, and would answer without any limit.
    host = urlsplit(base_url).hostname or ""
    return "max_completion_tokens" if host.endswith((".openai.com", ".openai.azure.com")) else "max_tokens"


def _first_choice(data: Any) -> dict[str, Any] | None:
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list):
        return None
    return next((choice for choice in choices if isinstance(choice, dict) and not choice.get("index")), None)


def _content(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # content parts, as some servers send them
        return "".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict) or not ("prompt_tokens" in value or "completion_tokens" in value):
        return None
    prompt, completion = whole(value.get("prompt_tokens")), whole(value.get("completion_tokens"))
    of_prompt, of_completion = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    of_prompt = of_prompt if isinstance(of_prompt, dict) else {}
    of_completion = of_completion if isinstance(of_completion, dict) else {}
    # Cached and reasoning tokens are inside the totals here; the neutral buckets are disjoint.
    read = min(whole(of_prompt.get("cached_tokens")), prompt)
    written = min(whole(of_prompt.get("cache_write_tokens")), prompt - read)
    reasoning = min(whole(of_completion.get("reasoning_tokens")), completion)
    return Usage(
        input_uncached=prompt - read - written,
        cache_read=read,
        cache_write=written,
        output_visible=completion - reasoning,
        output_reasoning=reasoning,
    )
