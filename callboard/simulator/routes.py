"""Which wire format a request is in, by its method and path. A new format is one line of `_TABLE`."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from .anthropic_messages import AnthropicMessages
from .openai_chat import OpenAIChat
from .openai_embeddings import OpenAIEmbeddings
from .openai_responses import OpenAIResponses
from .wire import Wire

_OPENAI, _ANTHROPIC = OpenAIChat(), AnthropicMessages()
_RESPONSES, _EMBEDDINGS = OpenAIResponses(), OpenAIEmbeddings()
_TABLE: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], Wire]], ...] = (
    ("POST", re.compile(r"/v1/chat/completions"), lambda _: _OPENAI),
    ("POST", re.compile(r"/v1/responses"), lambda _: _RESPONSES),
    ("POST", re.compile(r"/v1/embeddings"), lambda _: _EMBEDDINGS),
    ("POST", re.compile(r"/v1/messages"), lambda _: _ANTHROPIC),
)
"""Method, path, and what answers there. A model that stands in the path is the pattern's group `model`."""


def find(method: str, path: str) -> tuple[Wire, str | None] | None:
    """Return the format of a request to a model, and the model if the path names it; None for any other request."""
    for verb, pattern, wire in _TABLE:
        found = pattern.fullmatch(path)
        if found is not None and verb == method:
            return wire(found), unquote(found.groupdict().get("model") or "") or None
    return None


def known(path: str) -> bool:
    """Return whether there is anything at a path, whatever the method."""
    return any(pattern.fullmatch(path) for _, pattern, _ in _TABLE)


def wire_of(path: str, headers: dict[str, str]) -> Wire:
    """Return whose error shape a path without a format of its own is answered in: Anthropic's requests carry its version header."""
    anthropic = "anthropic-version" in headers or path.startswith("/v1/messages")
    return _ANTHROPIC if anthropic else _OPENAI
