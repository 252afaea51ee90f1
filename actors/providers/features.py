"""What a provider or a model does not support, taken out of a request before its wire format sees it, or refused. Pure.

The names are those of the neutral model: an operator writes `unsupported = ["schema", "images"]`, whatever the wire calls them.
"""

from dataclasses import replace
from typing import Any

from .errors import refused
from .model import CallError, Request
from .parts import Image, Message
from .settings import ProviderSettings

_FIELDS: dict[str, tuple[str, ...]] = {
    "tools": ("tools", "tool_choice", "parallel_tools"),
    "tool_choice": ("tool_choice",),
    "parallel_tools": ("parallel_tools",),
    "schema": ("schema",),
    "effort": ("effort",),
    "cache_key": ("cache_key",),
    "cache_ttl": ("cache_ttl",),
}
"""By feature: the fields of `Request` that go with it. What decides sampling and length is `choose_fields`'s."""
_HINTS = frozenset({"cache_key", "cache_ttl"})
"""They change what a call costs, never what it answers: a provider without them is not a reason to refuse one."""


def unsupported_of(
    request: Request, settings: ProviderSettings, always: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Return what may not be sent: by the provider's settings, by the model's, and by the wire format."""
    return settings.unsupported | request.unsupported | always


def supported(
    request: Request, settings: ProviderSettings, *, always: frozenset[str] = frozenset()
) -> Request | CallError:
    """Return the request without the features that are unsupported, or (`on_unsupported = "error"`) the refusal that names the first.

    An image is part of the question: a message that consists of nothing else is refused in either case.
    """
    names = unsupported_of(request, settings, always)
    if not names:
        return request
    gone: dict[str, Any] = {}
    for name, fields in _FIELDS.items():
        used = [field for field in fields if getattr(request, field) not in (None, ())]
        if name not in names or not used:
            continue
        if settings.on_unsupported == "error" and name not in _HINTS:
            return _refusal(name, settings)
        gone.update({field: () if field == "tools" else None for field in used})
    if "images" in names and any(_holds_image(message) for message in request.messages):
        if settings.on_unsupported == "error":
            return _refusal("images", settings)
        messages = _without_images(request.messages)
        if messages is None:
            return refused(
                "images", f"provider {settings.name!r} does not take images, and a message holds nothing else"
            )
        gone["messages"] = messages
    return replace(request, **gone) if gone else request


def _refusal(name: str, settings: ProviderSettings) -> CallError:
    return refused(
        name,
        f"provider {settings.name!r} does not support this field; leave it out, or set on_unsupported to drop it",
    )


def _holds_image(message: Message) -> bool:
    return not isinstance(message.content, str) and any(isinstance(part, Image) for part in message.content)


def _without_images(messages: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """The messages without their images; None if one would be empty."""
    kept = []
    for message in messages:
        if isinstance(message.content, str):
            kept.append(message)
            continue
        parts = tuple(part for part in message.content if not isinstance(part, Image))
        if not parts:
            return None
        kept.append(replace(message, content=parts))
    return tuple(kept)
