"""What OpenAI's endpoints have in common: headers, limits, the forms of images, tools and schemas, and the calls in an answer. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .adapter import common_headers, optional_text
from .header_values import count, go_duration
from .keys import Secret
from .model import AnyRequest, LimitSnapshot
from .parts import Image, ToolCall, ToolResult
from .settings import ProviderSettings
from .strict_schema import for_the_wire


def request_headers(request: AnyRequest, key: Secret | None, settings: ProviderSettings) -> list[tuple[str, str]]:
    """Return the headers of a request to any of the endpoints."""
    headers = common_headers(request, settings)
    if key is not None:
        headers.append(("authorization", f"Bearer {key.reveal()}"))
    if settings.organization:
        headers.append(("openai-organization", settings.organization))
    if settings.project:
        headers.append(("openai-project", settings.project))
    return headers


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's name for the exchange."""
    return optional_text(headers.get("x-request-id"))


def limits_of(headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:
    """Return what `x-ratelimit-*` says. A limit of 0 or less is how compatible servers say that they know none."""
    found = LimitSnapshot(at_ms=at_ms, **_dimension(headers, "requests"), **_dimension(headers, "tokens"))
    return None if found == LimitSnapshot(at_ms=at_ms) else found


def image_url(image: Image) -> str:
    """Return an image as the address that holds it, or where it is."""
    return image.url or f"data:{image.media_type};base64,{image.data}"


def schema_format(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a schema with its name, strict if the provider would take it so."""
    wire, strict = for_the_wire(schema)
    return {"name": name, "schema": wire, "strict": strict}


def argument_text(call: ToolCall) -> str:
    """Return a call's arguments as the text that the provider knows them by."""
    if call.raw is not None:
        return call.raw
    return json.dumps(call.arguments, ensure_ascii=False, separators=(",", ":"))


def result_text(result: ToolResult) -> str:
    """Return what a function gave. These formats have no mark for a failure, so it is said."""
    return f"Error: {result.content}" if result.is_error else result.content


def call_of(
    value: Any, *, call_id: str | None, name: str, answer: str | None, number: int, opaque: Any = None
) -> ToolCall:
    """Return the call that arrived. `value`: its arguments, a JSON text as the format has it, or an object as some servers send it.

    Without an id it gets one from the `answer`'s id and its number, so that two turns of a conversation do not share one.
    """
    arguments, raw = arguments_of(value)
    if call_id is None:
        call_id = "call_" + hashlib.sha256(f"{answer}/{number}".encode()).hexdigest()[:24]
    return ToolCall(id=call_id, name=name, arguments=arguments, raw=raw, opaque=opaque)


def arguments_of(value: Any) -> tuple[dict[str, Any], str | None]:
    """Return a call's arguments, and the text that stood there where it is no JSON object. No text at all is no arguments."""
    if isinstance(value, dict):
        return value, None
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    if not text.strip():
        return {}, None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}, text
    return (found, None) if isinstance(found, dict) else ({}, text)


def _dimension(headers: Mapping[str, str], name: str) -> dict[str, Any]:
    limit_text = headers.get(f"x-ratelimit-limit-{name}")
    limit = count(limit_text) or None
    unknown = limit_text is not None and limit is None
    return {
        f"{name}_limit": limit,
        f"{name}_remaining": None if unknown else count(headers.get(f"x-ratelimit-remaining-{name}")),
        f"{name}_reset": None if unknown else go_duration(headers.get(f"x-ratelimit-reset-{name}")),
    }
