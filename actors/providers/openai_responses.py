"""OpenAI Responses: input items, named events that are numbered, and calls that the provider goes on with when nobody listens.

A reply with HTTP 200 may say that the call failed; its `status` decides. There is no `[DONE]`: the end is an event. Reasoning comes encrypted
(nothing is kept at the provider unless the call runs in the background) and is sent back unchanged, each piece before what it led to.
Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from typing import Any

from .adapter import HttpRequest, check_messages, choose_fields, optional_text, post
from .errors import classify_reply, malformed, names_error, read_reply, refused
from .features import supported
from .keys import Secret
from .model import CallError, Completion, LimitSnapshot, Request
from .openai_items import WIRE, input_items, read_response
from .openai_responses_stream import OpenAIResponsesStream
from .openai_shared import limits_of, request_headers, request_id_of, schema_format
from .parts import Opaque
from .resume import Handle
from .settings import ProviderSettings

_OWNED = frozenset(
    {
        "model",
        "input",
        "instructions",
        "stream",
        "max_output_tokens",
        "tools",
        "previous_response_id",
        "conversation",
        "background",
        "store",
    }
)
_NEVER = frozenset({"stop", "seed"})
_ENCRYPTED = "reasoning.encrypted_content"


class OpenAIResponses:
    """`POST {base_url}/responses`."""

    def encode(self, request: Request, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_messages(request)
        if problem is not None:
            return problem
        fit = supported(request, settings, always=_NEVER)
        if isinstance(fit, CallError):
            return fit
        chosen = choose_fields(fit, settings, always_unsupported=_NEVER, owned=_OWNED)
        if isinstance(chosen, CallError):
            return chosen
        fields, extra = chosen
        if "max_output" in fields:
            fields["max_output_tokens"] = fields.pop("max_output")
        instructions, items = input_items(fit.messages)
        background = self.goes_on(request, settings)
        body: dict[str, Any] = {"model": request.model, "input": items, **fields, **_features(fit)}
        if instructions:
            body["instructions"] = instructions
        included = {_ENCRYPTED} if _reasons(fit) else set()
        asked = extra.pop("include", None)
        if isinstance(asked, list):
            included.update(str(name) for name in asked)
        if included:
            body["include"] = sorted(included)
        for name in extra.keys() & body.keys():
            return refused(f"extra.{name}", "the request sets this field itself; set it in one place")
        body["store"] = background
        if background:
            body["background"] = True
        if request.stream:
            body["stream"] = True
        return post("/responses", request_headers(request, key, settings), {**body, **extra})

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Completion | CallError:
        """Return what a whole reply means."""
        request_id = request_id_of(headers)
        # A response that failed has its error beside its status; without one, the error is all there is.
        data = read_reply(
            status,
            headers,
            body,
            at_ms=at_ms,
            request_id=request_id,
            failed=lambda data: not data.get("status") and names_error(data),
        )
        if isinstance(data, CallError):
            return data
        if not optional_text(data.get("status")):
            return malformed(f"HTTP {status} with JSON that is no response: it has no status", request_id=request_id)
        return read_response(data, headers=headers, at_ms=at_ms)

    def stream_decoder(self, headers: Mapping[str, str], *, at_ms: int) -> OpenAIResponsesStream:
        """Return a decoder for one stream."""
        return OpenAIResponsesStream(headers, at_ms)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int) -> CallError:
        """Return the error that a reply with this status means."""
        return classify_reply(status, headers, body, at_ms=at_ms, request_id=request_id_of(headers))

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:
        """Return what `x-ratelimit-*` says."""
        return limits_of(headers, at_ms)

    # --- a call in the background, see `resume.Resumable` -----------------------------------------------------------------------------

    def goes_on(self, request: Request, settings: ProviderSettings) -> bool:
        """Whether the provider goes on with such a call when the connection is lost. Only what was created as a stream can be followed."""
        return settings.background and request.stream

    def follow(
        self, handle: Handle, *, after: int | None, key: Secret | None, settings: ProviderSettings
    ) -> HttpRequest:
        """Return the request that follows a call from its beginning, or after the event of this number."""
        query = "?stream=true" if after is None else f"?stream=true&starting_after={after}"
        headers = [pair for pair in _asking(key, settings, stream=True) if pair[0] != "content-type"]
        return HttpRequest("GET", f"/responses/{_safe(handle.ref)}{query}", tuple(headers), b"")

    def look(self, handle: Handle, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest:
        """Return the request that asks how a call stands."""
        headers = [pair for pair in _asking(key, settings, stream=False) if pair[0] != "content-type"]
        return HttpRequest("GET", f"/responses/{_safe(handle.ref)}", tuple(headers), b"")

    def cancel(self, handle: Handle, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest:
        """Return the request that ends a call. It may be sent more than once."""
        return HttpRequest(
            "POST", f"/responses/{_safe(handle.ref)}/cancel", tuple(_asking(key, settings, stream=False)), b"{}"
        )


def _asking(key: Secret | None, settings: ProviderSettings, *, stream: bool) -> list[tuple[str, str]]:
    return request_headers(Request(model="", messages=(), stream=stream), key, settings)


def _safe(ref: str) -> str:
    # The provider's word, but it becomes part of a path.
    return "".join(char for char in ref if char.isascii() and (char.isalnum() or char in "_-"))[:200]


def _reasons(request: Request) -> bool:
    """Whether encrypted reasoning may be asked for: models that do not reason refuse it, so only where the request shows that its model does."""
    if request.effort not in (None, "none"):
        return True
    return any(
        isinstance(part, Opaque) and part.wire == WIRE for message in request.messages for part in message.parts
    ) or any(call.opaque for message in request.messages for call in message.tool_calls)


def _features(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if request.tools:
        fields["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": tool.strict,  # left out, it would be true here
            }
            for tool in request.tools
        ]
        if request.tool_choice is not None:
            fields["tool_choice"] = (
                request.tool_choice
                if request.tool_choice in ("auto", "none", "required")
                else {"type": "function", "name": request.tool_choice}
            )
        if request.parallel_tools is not None:
            fields["parallel_tool_calls"] = request.parallel_tools
    if request.schema is not None:
        fields["text"] = {"format": {"type": "json_schema", **schema_format(request.schema, request.schema_name)}}
    if request.effort is not None:
        fields["reasoning"] = {"effort": request.effort}
    if request.cache_key is not None:
        fields["prompt_cache_key"] = request.cache_key
    return fields
