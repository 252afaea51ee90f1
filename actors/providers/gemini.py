"""Google Gemini, `generateContent`: the model stands in the path, an answer ends with the body, and limits are told in errors alone.

A stream's chunks are whole replies with some of the parts; there is no end marker but a finish reason and then the end of the body. A prompt
that is blocked is a reply without candidates, which is a result and not an error. Pure: no I/O, no clock.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .adapter import HttpRequest, check_messages, choose_fields, common_headers, optional_text, post, whole
from .answer_stream import AnswerStream
from .errors import classify_in_body, classify_reply, malformed, parse_error, read_reply, refused
from .features import supported
from .gemini_content import content_of, contents, part_text
from .keys import Secret
from .model import (
    AnyRequest,
    Billed,
    CallError,
    Completion,
    ErrorClass,
    Finish,
    LimitSnapshot,
    Request,
    Tool,
    Usage,
)
from .parts import Image
from .settings import ProviderSettings
from .sse import SSEEvent
from .strict_schema import wire_schema

MAX_STOPS = 5

_FINISH = {
    "STOP": Finish.STOP,
    "MAX_TOKENS": Finish.LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        Finish.FILTER,
    ),
}
"""Every other reason, and those to come, is `unknown`."""
_OWNED = frozenset({"contents", "systemInstruction", "generationConfig", "model"})
_NEVER = frozenset({"parallel_tools", "cache_key", "cache_ttl"})
_NAMES = {
    "max_output": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "stop": "stopSequences",
    "seed": "seed",
}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH", "max": "XHIGH"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


class Gemini:
    """`POST {base_url}/v1beta/models/{model}:streamGenerateContent?alt=sse`, or `:generateContent`."""

    def encode(self, request: Request, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_messages(request)
        if problem is not None:
            return problem
        path = model_path(request.model)
        if isinstance(path, CallError):
            return path
        chosen = choose_fields(request, settings, always_unsupported=frozenset(), owned=_OWNED)
        if isinstance(chosen, CallError):
            return chosen
        feasible = supported(request, settings, always=_NEVER)
        if isinstance(feasible, CallError):
            return feasible
        fields, extra = chosen
        if len(fields.get("stop", ())) > MAX_STOPS:
            return refused("stop", f"{len(fields['stop'])} sequences are over Gemini's limit of {MAX_STOPS}")
        if any(isinstance(part, Image) and part.url for message in feasible.messages for part in message.parts):
            return refused("images", "Gemini fetches no images by url; give the image itself, as data")
        body: dict[str, Any] = {}
        system = "\n\n".join(message.text for message in request.messages if message.role == "system")
        if system:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        body["contents"] = contents(feasible.messages)
        body.update(_tools(feasible))
        generation = {_NAMES[name]: value for name, value in fields.items()}
        generation.update(_features(feasible))
        if generation:
            body["generationConfig"] = generation
        method = ":streamGenerateContent?alt=sse" if request.stream else ":generateContent"
        return post(path + method, request_headers(request, key, settings), {**body, **extra})

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Completion | CallError:
        """Return what a whole reply means."""
        data = read_reply(status, headers, body, at_ms=at_ms)
        if isinstance(data, CallError):
            return data
        candidate, blocked = _candidate(data), _blocked(data)
        if candidate is None and blocked is None:
            return malformed(f"HTTP {status} with JSON that holds no candidates")
        said = content_of(_parts(candidate), optional_text(data.get("responseId")))
        raw = blocked if candidate is None else optional_text(candidate.get("finishReason"))
        return Completion(
            text=said.text,
            tool_calls=said.tool_calls,
            opaque=said.opaque,
            finish=_finish(raw, blocked=candidate is None, calls=bool(said.tool_calls)),
            raw_finish=raw,
            usage=_usage(data.get("usageMetadata")),
            model=optional_text(data.get("modelVersion")),
            response_id=optional_text(data.get("responseId")),
        )

    def stream_decoder(self, headers: Mapping[str, str], *, at_ms: int) -> "GeminiStream":
        """Return a decoder for one stream."""
        return GeminiStream(headers, at_ms)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int) -> CallError:
        """Return the error that a reply with this status means. Its wait is in the body: `RetryInfo`, or a daily quota's midnight."""
        return classify_reply(status, headers, body, at_ms=at_ms)

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:  # noqa: ARG002 - the protocol's names
        """Return None: Gemini says nothing of limits until they are reached."""
        return None


class GeminiStream(AnswerStream):
    """Reads one streamed answer. A finish reason completes it; only the end of the body ends it, with the last count of tokens."""

    def __init__(self, headers: Mapping[str, str], at_ms: int) -> None:
        super().__init__(headers, at_ms)
        self._usage: dict[str, Any] = {}
        self._parts: list[Any] = []
        self._blocked = False

    def feed(self, event: SSEEvent) -> list[str]:
        """Return the pieces of text in an event. After the finish reason only tokens are counted: the answer is complete."""
        if self.terminal:
            return []
        try:
            chunk = json.loads(event.data)
        except (ValueError, RecursionError):
            chunk = None
        if self._raw_finish is None and self._failed(event, chunk):
            return []
        if not isinstance(chunk, dict):
            return []
        if isinstance(usage := chunk.get("usageMetadata"), dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})
        if self._raw_finish is not None:
            return []
        self._model = self._model or optional_text(chunk.get("modelVersion"))
        self._id = self._id or optional_text(chunk.get("responseId"))
        candidate = _candidate(chunk)
        if candidate is None:
            self._raw_finish = _blocked(chunk)
            self._blocked = self._raw_finish is not None
            return []
        parts = _parts(candidate)
        self._raw_finish = optional_text(candidate.get("finishReason"))
        self._progress += bool(parts) or self._raw_finish is not None
        pieces = [text for text in map(part_text, parts) if text]
        self._pieces += pieces
        # Of the text, what is signed is enough: the rest is in the pieces.
        self._parts += [part for part in parts if isinstance(part, dict) and part.keys() - {"text", "thought"}]
        return pieces

    def finish(self, *, eof: bool) -> Completion | CallError:
        """Return the outcome: complete once a finish reason has come, whether or not the end was in good order."""
        if self._error is not None:
            return self._error
        if self._raw_finish is None:
            return CallError(
                kind=ErrorClass.TRUNCATED,
                message=f"the stream {'ended' if eof else 'broke off'} without a finish reason: the answer is not complete",
                billed=Billed.YES if self._pieces else Billed.MAYBE,
                partial=self.text,
            )
        said = content_of(self._parts, self._id)
        return Completion(
            text=self.text,
            tool_calls=said.tool_calls,
            opaque=said.opaque,
            finish=_finish(self._raw_finish, blocked=self._blocked, calls=bool(said.tool_calls)),
            raw_finish=self._raw_finish,
            usage=_usage(self._usage),
            model=self._model,
            response_id=self._id,
        )

    def _failed(self, event: SSEEvent, chunk: Any) -> bool:
        if isinstance(chunk, dict) and not chunk.get("error"):
            return False
        if not isinstance(chunk, dict) and event.event != "error":
            self._error = malformed("an event of the stream is not a JSON object", partial=self.text)
            return True
        said = parse_error(chunk if isinstance(chunk, dict) else {"error": event.data})
        self._error = classify_in_body(
            said, headers=self._headers, at_ms=self._at_ms, partial=self.text, request_id=None
        )
        return True


def model_path(model: str) -> str | CallError:
    """Return the path of a model, or the refusal of a name that would lead elsewhere: the path decides what is called and paid."""
    kind, slash, name = model.rpartition("/")
    if (slash and kind not in ("models", "tunedModels")) or not name.isprintable() or name.strip(". ") == "":
        return refused("model", f"{model[:80]!r} is not the name of a Gemini model")
    return f"/v1beta/{kind or 'models'}/{quote(name, safe='')}"


def request_headers(request: AnyRequest, key: Secret | None, settings: ProviderSettings) -> list[tuple[str, str]]:
    """Return the headers of a request. The key is one of them, and never in the URL, which gets into logs."""
    headers = common_headers(request, settings)
    if key is not None:
        headers.append(("x-goog-api-key", key.reveal()))
    return headers


def _tools(request: Request) -> dict[str, Any]:
    if not request.tools:
        return {}
    fields: dict[str, Any] = {"tools": [{"functionDeclarations": [_tool(tool) for tool in request.tools]}]}
    if request.tool_choice is not None:
        calling: dict[str, Any] = {"mode": _MODES.get(request.tool_choice, "ANY")}
        if request.tool_choice not in _MODES:
            calling["allowedFunctionNames"] = [request.tool_choice]
        fields["toolConfig"] = {"functionCallingConfig": calling}
    return fields


def _tool(tool: Tool) -> dict[str, Any]:
    told = {"name": tool.name, **({"description": tool.description} if tool.description else {})}
    return {**told, "parametersJsonSchema": wire_schema(tool.parameters) if tool.strict else tool.parameters}


def _features(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if request.schema is not None:
        fields["responseMimeType"] = "application/json"
        fields["responseJsonSchema"] = wire_schema(request.schema)
    if request.effort == "none":
        fields["thinkingConfig"] = {"thinkingBudget": 0}
    elif request.effort is not None:
        fields["thinkingConfig"] = {"thinkingLevel": _LEVELS.get(request.effort, request.effort.upper())}
    return fields


def _candidate(data: dict[str, Any]) -> dict[str, Any] | None:
    candidates = data.get("candidates")
    if not isinstance(candidates, list):
        return None
    return next((one for one in candidates if isinstance(one, dict) and not one.get("index")), None)


def _parts(candidate: dict[str, Any] | None) -> list[Any]:
    content = candidate.get("content") if candidate else None
    parts = content.get("parts") if isinstance(content, dict) else None
    return parts if isinstance(parts, list) else []


def _blocked(data: dict[str, Any]) -> str | None:
    feedback = data.get("promptFeedback")
    return optional_text(feedback.get("blockReason")) if isinstance(feedback, dict) else None


def _finish(raw: str | None, *, blocked: bool, calls: bool) -> Finish:
    if blocked:
        return Finish.FILTER
    found = _FINISH.get(raw or "", Finish.UNKNOWN)
    return Finish.TOOL if calls and found is Finish.STOP else found


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict) or not ("promptTokenCount" in value or "candidatesTokenCount" in value):
        return None
    # Cached tokens are inside the prompt's; thoughts are beside the candidates', and what tools were told beside the prompt.
    prompt = whole(value.get("promptTokenCount"))
    read = min(whole(value.get("cachedContentTokenCount")), prompt)
    return Usage(
        input_uncached=prompt - read + whole(value.get("toolUsePromptTokenCount")),
        cache_read=read,
        output_visible=whole(value.get("candidatesTokenCount")),
        output_reasoning=whole(value.get("thoughtsTokenCount")),
    )
