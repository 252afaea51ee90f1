"""OpenAI Chat Completions, and the servers that speak it: vLLM, llama.cpp, LM Studio, Ollama's /v1, Groq and others.

Those servers differ in small ways, all accepted here: an error as text or object, codes as numbers, no usage, no `[DONE]` after the
finish reason, content that is null, an error inside a 200. Pure: no I/O, no clock.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .adapter import HttpRequest, check_messages, choose_fields, common_headers, optional_text, post, whole
from .answer_stream import AnswerStream
from .errors import classify_in_body, classify_reply, malformed, parse_error
from .header_values import count, go_duration
from .keys import Secret
from .model import Billed, CallError, Completion, ErrorClass, Finish, LimitSnapshot, Request, Usage
from .settings import ProviderSettings
from .sse import SSEEvent

_FINISH = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL,
    "function_call": Finish.TOOL,
    "content_filter": Finish.FILTER,
}
_OWNED = frozenset({"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n"})


class OpenAIChat:
    """`POST {base_url}/chat/completions`."""

    def encode(self, request: Request, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_messages(request)
        if problem is not None:
            return problem
        chosen = choose_fields(request, settings, always_unsupported=frozenset(), owned=_OWNED)
        if isinstance(chosen, CallError):
            return chosen
        fields, extra = chosen
        if "max_output" in fields:
            fields[settings.max_tokens_field or _max_tokens_field(settings.base_url)] = fields.pop("max_output")
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": message.role, "content": message.text} for message in request.messages],
            **fields,
        }
        if request.stream:
            body["stream"] = True
            if "stream_options" not in settings.unsupported:
                body["stream_options"] = {"include_usage": True}
        headers = common_headers(request, settings)
        if key is not None:
            headers.append(("authorization", f"Bearer {key.reveal()}"))
        if settings.organization:
            headers.append(("openai-organization", settings.organization))
        if settings.project:
            headers.append(("openai-project", settings.project))
        return post("/chat/completions", headers, {**body, **extra})

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Completion | CallError:
        """Return what a whole reply means."""
        if not 200 <= status < 300:
            return self.classify(status, headers, body, at_ms=at_ms)
        request_id = optional_text(headers.get("x-request-id"))
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return malformed(f"HTTP {status} with a body that is not JSON; is base_url right?", request_id=request_id)
        if isinstance(data, dict) and (data.get("error") or data.get("object") == "error"):
            return classify_in_body(parse_error(data), headers=headers, at_ms=at_ms, partial="", request_id=request_id)
        choice = _first_choice(data)
        message = choice.get("message") if choice else None
        if not isinstance(message, dict) or choice is None:
            return malformed(f"HTTP {status} with JSON that holds no choices[0].message", request_id=request_id)
        refusal = _content(message.get("refusal"))
        raw = optional_text(choice.get("finish_reason"))
        return Completion(
            text=_content(message.get("content")) + refusal,
            finish=Finish.REFUSAL if refusal else _FINISH.get(raw or "", Finish.UNKNOWN),
            raw_finish=raw,
            usage=_usage(data.get("usage")),
            model=optional_text(data.get("model")),
            response_id=optional_text(data.get("id")),
            request_id=request_id,
        )

    def stream_decoder(self, headers: Mapping[str, str], *, at_ms: int) -> "OpenAIChatStream":
        """Return a decoder for one stream."""
        return OpenAIChatStream(headers, at_ms)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int) -> CallError:
        """Return the error that a reply with this status means."""
        return classify_reply(status, headers, body, at_ms=at_ms, request_id=optional_text(headers.get("x-request-id")))

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:
        """Return what `x-ratelimit-*` says. A limit of 0 or less is how compatible servers say that they know none."""
        found = LimitSnapshot(at_ms=at_ms, **_dimension(headers, "requests"), **_dimension(headers, "tokens"))
        return None if found == LimitSnapshot(at_ms=at_ms) else found


class OpenAIChatStream(AnswerStream):
    """Reads one streamed answer. A finish reason completes it; `[DONE]` only ends it, and some servers never send that."""

    def __init__(self, headers: Mapping[str, str], at_ms: int) -> None:
        super().__init__(headers, at_ms)
        self._refused = False
        self._usage: Usage | None = None

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
        return Completion(
            text=self.text,
            finish=Finish.REFUSAL if self._refused else _FINISH.get(self._raw_finish, Finish.UNKNOWN),
            raw_finish=self._raw_finish,
            usage=self._usage,
            model=self._model,
            response_id=self._id,
            request_id=self._request_id,
        )

    @property
    def _request_id(self) -> str | None:
        return optional_text(self._headers.get("x-request-id"))

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
            carried = any(value for name, value in delta.items() if name != "role")
        reason = optional_text(choice.get("finish_reason"))
        self._raw_finish = reason or self._raw_finish
        if carried or reason:
            self._progress += 1
        self._pieces += pieces
        return pieces


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


def _dimension(headers: Mapping[str, str], name: str) -> dict[str, Any]:
    limit_text = headers.get(f"x-ratelimit-limit-{name}")
    limit = count(limit_text) or None
    unknown = limit_text is not None and limit is None
    return {
        f"{name}_limit": limit,
        f"{name}_remaining": None if unknown else count(headers.get(f"x-ratelimit-remaining-{name}")),
        f"{name}_reset": None if unknown else go_duration(headers.get(f"x-ratelimit-reset-{name}")),
    }
