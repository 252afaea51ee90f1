"""Anthropic Messages: one version header, a required output limit, the system prompt at the top, named events, cumulative usage.

From version 2026-10-21 on, sampling parameters are refused by the provider, so here they count as unsupported. An answer is never begun for the
model (prefill), which newer ones refuse. Pure: no I/O, no clock.
"""

import json
from collections.abc import Mapping
from typing import Any

from .adapter import HttpRequest, check_messages, choose_fields, common_headers, optional_text, post, whole
from .answer_stream import AnswerStream
from .anthropic_content import block_text, content_of, turns
from .errors import classify_in_body, classify_reply, malformed, parse_error, read_reply
from .features import supported, unsupported_of
from .header_values import count, until_instant
from .keys import Secret
from .model import Billed, CallError, Completion, ErrorClass, Finish, LimitSnapshot, Request, Tool, Usage
from .openai_shared import arguments_of
from .settings import ProviderSettings
from .sse import SSEEvent
from .strict_schema import for_the_wire, wire_schema

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
_GROWS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}
"""By kind of delta: the field of the block that it goes on."""
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_NEVER = frozenset({"seed"})
_EFFORTS = {"minimal": "low"}
"""What has no word of its own here. `none` is not thinking at all."""


class AnthropicMessages:
    """`POST {base_url}/v1/messages`."""

    def encode(self, request: Request, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_messages(request)
        if problem is not None:
            return problem
        # Versions are ISO dates, so they compare as text.
        never = _NEVER | _SAMPLING if settings.version >= NO_SAMPLING_SINCE else _NEVER
        chosen = choose_fields(request, settings, always_unsupported=never, owned=_OWNED)
        if isinstance(chosen, CallError):
            return chosen
        feasible = supported(request, settings)
        if isinstance(feasible, CallError):
            return feasible
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
        body["messages"] = turns(feasible.messages)
        body.update(fields)
        body.update(_features(feasible, thinks="thinking" not in unsupported_of(request, settings)))
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
        request_id = optional_text(headers.get("request-id"))
        data = read_reply(status, headers, body, at_ms=at_ms, request_id=request_id)
        if isinstance(data, CallError):
            return data
        content = data.get("content")
        if not isinstance(content, list):
            return malformed(f"HTTP {status} with JSON that holds no content blocks", request_id=request_id)
        raw, said = optional_text(data.get("stop_reason")), content_of(content, optional_text(data.get("id")))
        return Completion(
            text=said.text,
            tool_calls=said.tool_calls,
            opaque=said.opaque,
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
        """Return what `anthropic-ratelimit-*` says of requests, input and output.

        Its `tokens-*` repeat whichever of its token limits is the most restrictive, and so say nothing of one dimension.
        """
        found = LimitSnapshot(
            at_ms=at_ms,
            requests_limit=count(headers.get("anthropic-ratelimit-requests-limit")) or None,
            requests_remaining=count(headers.get("anthropic-ratelimit-requests-remaining")),
            requests_reset=until_instant(headers.get("anthropic-ratelimit-requests-reset"), at_ms),
            input_limit=count(headers.get("anthropic-ratelimit-input-tokens-limit")) or None,
            input_remaining=_rounded(headers.get("anthropic-ratelimit-input-tokens-remaining")),
            output_limit=count(headers.get("anthropic-ratelimit-output-tokens-limit")) or None,
            output_remaining=_rounded(headers.get("anthropic-ratelimit-output-tokens-remaining")),
        )
        return None if found == LimitSnapshot(at_ms=at_ms) else found


def _rounded(text: str | None) -> int | None:
    """What is left at most: the header rounds to the nearest thousand, and usage by others must not be made up out of that."""
    left = count(text)
    return None if left is None else left + 500


class AnthropicStream(AnswerStream):
    """Reads one streamed answer, which is complete at `message_stop` and not before."""

    def __init__(self, headers: Mapping[str, str], at_ms: int) -> None:
        super().__init__(headers, at_ms)
        self._usage: dict[str, Any] = {}
        self._blocks: dict[Any, dict[str, Any]] = {}
        self._growing: dict[tuple[Any, str], list[str]] = {}  # by block and field; joined once, at the end

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
            return self._delta(_index(data), data.get("delta"))
        if kind == "content_block_start":
            return self._block(_index(data), data.get("content_block"))
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
        said = content_of(self._whole_blocks(), self._id)
        return Completion(
            text=self.text,
            tool_calls=said.tool_calls,
            opaque=said.opaque,
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

    def _block(self, index: Any, block: Any) -> list[str]:
        if not isinstance(block, dict):
            return []
        self._blocks[index] = block
        return self._piece(block_text(block))

    def _delta(self, index: Any, delta: Any) -> list[str]:
        if not isinstance(delta, dict):
            return []
        kind = delta.get("type")
        field = _GROWS.get(kind) if isinstance(kind, str) else None
        piece = delta.get(field) if field else None
        if field and isinstance(piece, str):
            self._growing.setdefault((index, field), []).append(piece)
            if field == "text":
                return self._piece(piece)
        self._progress += 1  # reasoning, tool arguments, signatures: the model is at work
        return []

    def _whole_blocks(self) -> list[dict[str, Any]]:
        """The blocks as a reply that is no stream would hold them."""
        found = []
        for index, block in self._blocks.items():
            whole = dict(block)
            for field in _GROWS.values():
                if pieces := self._growing.get((index, field)):
                    if field == "partial_json":
                        arguments, raw = arguments_of("".join(pieces) or block.get("input"))
                        whole["input"] = arguments if raw is None else raw
                    else:
                        whole[field] = (block[field] if isinstance(block.get(field), str) else "") + "".join(pieces)
            found.append(whole)
        return found

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


def _features(request: Request, *, thinks: bool) -> dict[str, Any]:
    """Return the fields for tools, schema, effort and cache. `thinks`: whether the model may be told to think at all."""
    fields: dict[str, Any] = {}
    if request.tools:
        fields["tools"] = [_tool(tool) for tool in request.tools]
        choice = _tool_choice(request)
        if choice is not None:
            fields["tool_choice"] = choice
    output: dict[str, Any] = {}
    if request.effort == "none":
        fields.update({"thinking": {"type": "disabled"}} if thinks else {})
    elif request.effort is not None:
        output["effort"] = _EFFORTS.get(request.effort, request.effort)
        if thinks and request.tool_choice in (None, "auto", "none"):  # a model that must call may not think first
            fields["thinking"] = {"type": "adaptive"}
    if request.schema is not None:
        output["format"] = {"type": "json_schema", "schema": wire_schema(request.schema)}
    if output:
        fields["output_config"] = output
    if request.cache_key is not None or request.cache_ttl is not None:
        ttl = {} if request.cache_ttl is None else {"ttl": request.cache_ttl}
        fields["cache_control"] = {"type": "ephemeral", **ttl}
    return fields


def _tool(tool: Tool) -> dict[str, Any]:
    schema, strict = for_the_wire(tool.parameters) if tool.strict else (tool.parameters, False)
    told: dict[str, Any] = {"name": tool.name, "input_schema": schema}
    if tool.description:
        told["description"] = tool.description
    return {**told, "strict": True} if strict else told


def _tool_choice(request: Request) -> dict[str, Any] | None:
    wanted = request.tool_choice
    if wanted == "none":
        return {"type": "none"}
    choice: dict[str, Any] = {"type": {None: "auto", "auto": "auto", "required": "any"}.get(wanted, "tool")}
    if choice["type"] == "tool":
        choice["name"] = wanted
    if request.parallel_tools is False:
        choice["disable_parallel_tool_use"] = True
    return None if wanted is None and len(choice) == 1 else choice


def _index(data: dict[str, Any]) -> int:
    index = data.get("index")
    return index if isinstance(index, int) else 0


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict) or not ("input_tokens" in value or "output_tokens" in value):
        return None
    details = value.get("output_tokens_details")
    output = whole(value.get("output_tokens"))
    by_life = value.get("cache_creation")
    minutes, hour = (
        whole(by_life.get(f"ephemeral_{life}_input_tokens")) if isinstance(by_life, dict) else 0
        for life in ("5m", "1h")
    )
    written = max(whole(value.get("cache_creation_input_tokens")), minutes + hour)
    thinking = min(whole(details.get("thinking_tokens")) if isinstance(details, dict) else 0, output)
    return Usage(
        input_uncached=whole(value.get("input_tokens")),
        cache_read=whole(value.get("cache_read_input_tokens")),
        cache_write=written - hour,
        cache_write_1h=hour,
        output_visible=output - thinking,
        output_reasoning=thinking,
    )
