"""Anthropic Messages: one version header, a required output limit, the system prompt at the top, named events, cumulative usage.

From version 2026-10-21 on, sampling parameters are refused by the provider, so here they count as unsupported. Pure: no I/O, no clock.
"""

import json
from collections.abc import Mapping
from typing import Any

from .adapter import HttpRequest, check_messages, choose_fields, common_headers, optional_text, post, whole
from .answer_stream import AnswerStream
from .errors import classify_in_body, classify_reply, malformed, parse_error
from .header_values import count, until_instant
from .keys import Secret
from .model import Billed, CallError, Completion, ErrorClass, Finish, LimitSnapshot, Request, Usage
from .settings import ProviderSettings
from .sse import SSEEvent

NO_SAMPLING_SINCE = "2026-10-21"

_FINISH = {
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "max_tokens": Finish.LENGTH,
    "tool_use": Finish.TOOL,
    "pause_turn": Finish.PAUSE,
    "refusal": Finish.REFUSAL,
    "model_context_window_exceeded": Finish.CONTEXT,
}
_OWNED = frozenset({"model", "messages", "system", "stream", "max_tokens"})
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_NEVER = frozenset({"seed"})


class AnthropicMessages:
    """`POST {base_url}/v1/messages`."""

    def encode(self, request: Request, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_messages(request)
        if problem is not None:
            return problem
        # Versions are ISO dates, so they compare as text.
        unsupported = _NEVER | _SAMPLING if settings.version >= NO_SAMPLING_SINCE else _NEVER
        chosen = choose_fields(request, settings, always_unsupported=unsupported, owned=_OWNED)
        if isinstance(chosen, CallError):
            return chosen
        fields, extra = chosen
        if "stop" in fields:
            fields["stop_sequences"] = fields.pop("stop")
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": fields.pop("max_output", settings.default_max_output),
        }
        system = "\n\n".join(message.text for message in request.messages if message.role == "system")
        if system:
            body["system"] = system
        body["messages"] = _merged(request)
        body.update(fields)
        if request.stream:
            body["stream"] = True
        headers = common_headers(request, settings)
        headers.append(("anthropic-version", settings.version))
        if settings.workspace:
            headers.append(("anthropic-workspace-id", settings.workspace))
        if key is not None:
            headers.append(("x-api-key", key.reveal()))
        return post("/v1/messages", headers, {**body, **extra})

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Completion | CallError:
        """Return what a whole reply means."""
        if not 200 <= status < 300:
            return self.classify(status, headers, body, at_ms=at_ms)
        request_id = optional_text(headers.get("request-id"))
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return malformed(f"HTTP {status} with a body that is not JSON; is base_url right?", request_id=request_id)
        if isinstance(data, dict) and (data.get("type") == "error" or data.get("error")):
            return classify_in_body(parse_error(data), headers=headers, at_ms=at_ms, partial="", request_id=request_id)
        content = data.get("content") if isinstance(data, dict) else None
        if not isinstance(content, list):
            return malformed(f"HTTP {status} with JSON that holds no content blocks", request_id=request_id)
        raw = optional_text(data.get("stop_reason"))
        return Completion(
            text="".join(_block_text(block) for block in content),
            finish=_FINISH.get(raw or "", Finish.UNKNOWN),
            raw_finish=raw,
            usage=_usage(data.get("usage")),
            model=optional_text(data.get("model")),
            response_id=optional_text(data.get("id")),
            request_id=request_id,
        )

    def stream_decoder(self, headers: Mapping[str, str], *, at_ms: int) -> "AnthropicStream":
        """Return a decoder for one stream."""
        return AnthropicStream(headers, at_ms)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int) -> CallError:
        """Return the error that a reply with this status means."""
        return classify_reply(status, headers, body, at_ms=at_ms, request_id=optional_text(headers.get("request-id")))

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:
        """Return what `anthropic-ratelimit-*` says. Its `tokens` are the most restrictive of its token limits; else the input's count."""
        tokens = "tokens" if "anthropic-ratelimit-tokens-limit" in headers else "input-tokens"
        found = LimitSnapshot(
            at_ms=at_ms,
            requests_limit=count(headers.get("anthropic-ratelimit-requests-limit")) or None,
            requests_remaining=count(headers.get("anthropic-ratelimit-requests-remaining")),
            requests_reset=until_instant(headers.get("anthropic-ratelimit-requests-reset"), at_ms),
            tokens_limit=count(headers.get(f"anthropic-ratelimit-{tokens}-limit")) or None,
            tokens_remaining=count(headers.get(f"anthropic-ratelimit-{tokens}-remaining")),
            tokens_reset=until_instant(headers.get(f"anthropic-ratelimit-{tokens}-reset"), at_ms),
        )
        return None if found == LimitSnapshot(at_ms=at_ms) else found


class AnthropicStream(AnswerStream):
    """Reads one streamed answer, which is complete at `message_stop` and not before."""

    def __init__(self, headers: Mapping[str, str], at_ms: int) -> None:
        super().__init__(headers, at_ms)
        self._usage: dict[str, Any] = {}

    def feed(self, event: SSEEvent) -> list[str]:
        """Return the pieces of text in an event. Unknown events are ignored, as the format asks."""
        if self.terminal:
            return []
        try:
            data = json.loads(event.data)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            if event.event == "error":
                self._fail(parse_error({"error": event.data}))
            elif event.event != "ping":
                self._error = malformed(
                    "an event of the stream is not a JSON object", partial=self.text, request_id=self._request_id
                )
            return []
        kind = data.get("type") or event.event
        if kind == "content_block_delta":
            return self._delta(data.get("delta"))
        if kind == "content_block_start":
            return self._piece(_block_text(data.get("content_block")))
        if kind == "message_start":
            message = data.get("message")
            if isinstance(message, dict):
                self._model, self._id = optional_text(message.get("model")), optional_text(message.get("id"))
                self._take_usage(message.get("usage"))
        elif kind == "message_delta":
            delta = data.get("delta")
            if isinstance(delta, dict):
                self._raw_finish = optional_text(delta.get("stop_reason")) or self._raw_finish
            self._take_usage(data.get("usage"))
            self._progress += 1
        elif kind == "message_stop":
            self._done = True
        elif kind == "error":
            self._fail(parse_error(data))
        return []

    def finish(self, *, eof: bool) -> Completion | CallError:
        """Return the outcome: complete only if `message_stop` has come."""
        if self._error is not None:
            return self._error
        if not self._done:
            return CallError(
                kind=ErrorClass.TRUNCATED,
                message=f"the stream {'ended' if eof else 'broke off'} before message_stop: the answer is not complete",
                billed=Billed.YES if self._pieces else Billed.MAYBE,
                request_id=self._request_id,
                partial=self.text,
            )
        return Completion(
            text=self.text,
            finish=_FINISH.get(self._raw_finish or "", Finish.UNKNOWN),
            raw_finish=self._raw_finish,
            usage=_usage(self._usage),
            model=self._model,
            response_id=self._id,
            request_id=self._request_id,
        )

    @property
    def _request_id(self) -> str | None:
        return optional_text(self._headers.get("request-id"))

    def _fail(self, said: Any) -> None:
        self._error = classify_in_body(
            said, headers=self._headers, at_ms=self._at_ms, partial=self.text, request_id=self._request_id
        )

    def _delta(self, delta: Any) -> list[str]:
        if not isinstance(delta, dict):
            return []
        if delta.get("type") == "text_delta":
            text = delta.get("text")
            return self._piece(text if isinstance(text, str) else "")
        self._progress += 1  # reasoning, tool arguments, signatures: the model is at work
        return []

    def _piece(self, text: str) -> list[str]:
        if not text:
            return []
        self._progress += 1
        self._pieces.append(text)
        return [text]

    def _take_usage(self, usage: Any) -> None:
        # Each report is the total so far, and later ones may leave fields out or null: what was said before then still holds.
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})


def _merged(request: Request) -> list[dict[str, str]]:
    """Return the turns without the system ones, neighbours of one role joined: the format wants the roles to alternate."""
    turns: list[dict[str, str]] = []
    for message in request.messages:
        if message.role == "system":
            continue
        if turns and turns[-1]["role"] == message.role:
            turns[-1]["content"] += "\n\n" + message.text
        else:
            turns.append({"role": message.role, "content": message.text})
    return turns


def _block_text(block: Any) -> str:
    if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    return ""


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict) or not ("input_tokens" in value or "output_tokens" in value):
        return None
    details = value.get("output_tokens_details")
    output = whole(value.get("output_tokens"))
    thinking = min(whole(details.get("thinking_tokens")) if isinstance(details, dict) else 0, output)
    return Usage(
        input_uncached=whole(value.get("input_tokens")),
        cache_read=whole(value.get("cache_read_input_tokens")),
        cache_write=whole(value.get("cache_creation_input_tokens")),
        output_visible=output - thinking,
        output_reasoning=thinking,
    )
