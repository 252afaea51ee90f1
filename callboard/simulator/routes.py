"""Which wire format a request is in, by its method and path. A new format is one line of `_TABLE`."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from .anthropic_messages import AnthropicMessages
from .gemini import Gemini, GeminiEmbeddings
from .ollama import Ollama, OllamaEmbeddings
from .openai_chat import OpenAIChat
from .openai_embeddings import OpenAIEmbeddings
from .openai_responses import OpenAIResponses
from .wire import Wire

_OPENAI, _ANTHROPIC = OpenAIChat(), AnthropicMessages()
_GEMINI, _OLLAMA, _OLLAMA_EMBEDDINGS = Gemini(), Ollama(), OllamaEmbeddings()
_RESPONSES, _EMBEDDINGS = OpenAIResponses(), OpenAIEmbeddings()
_MODEL = r"/v1beta/models/(?P<model>[^/:]+):"
MODEL_LISTS = frozenset({"/v1/models", "/v1beta/models", "/api/tags"})
"""Where the formats list their models."""


def _name(found: re.Match[str]) -> str:
    return unquote(found["model"])


_TABLE: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], Wire]], ...] = (
    ("POST", re.compile(r"/v1/chat/completions"), lambda _: _OPENAI),
    ("POST", re.compile(r"/v1/responses"), lambda _: _RESPONSES),
    ("POST", re.compile(r"/v1/embeddings"), lambda _: _EMBEDDINGS),
    ("POST", re.compile(r"/v1/messages"), lambda _: _ANTHROPIC),
    ("POST", re.compile(_MODEL + "generateContent"), lambda found: Gemini(_name(found))),
    ("POST", re.compile(_MODEL + "streamGenerateContent"), lambda found: Gemini(_name(found), stream=True)),
    ("POST", re.compile(_MODEL + "batchEmbedContents"), lambda found: GeminiEmbeddings(_name(found))),
    ("POST", re.compile(r"/api/chat"), lambda _: _OLLAMA),
    ("POST", re.compile(r"/api/embed"), lambda _: _OLLAMA_EMBEDDINGS),
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
    if path.startswith("/v1beta/"):
        return _GEMINI
    if path.startswith("/api/"):
        return _OLLAMA
    anthropic = "anthropic-version" in headers or path.startswith("/v1/messages")
    return _ANTHROPIC if anthropic else _OPENAI
