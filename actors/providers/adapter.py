"""What an adapter is: a wire format as pure functions. The engine does the I/O, the same for every format.

To add a format, write a module with a class of this protocol and name it in `adapter_for`; the conformance suite
(`tests/conformance/test_adapters.py`) says whether it keeps the promises.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .errors import refused
from .keys import Secret
from .model import AnyRequest, CallError, Completion, EmbeddingRequest, Embeddings, LimitSnapshot, Request
from .parts import ROLES
from .settings import ProviderSettings
from .sse import SSEDecoder, SSEEvent

if TYPE_CHECKING:
    from .ndjson import NDJSONDecoder

USER_AGENT = "callboard"
Framing = Literal["sse", "ndjson"]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, ready to send. `path` is appended to the base URL. The headers hold the key, so neither they nor the body are in the repr."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


class StreamDecoder(Protocol):
    """Reads one answer from its events. Not thread-safe."""

    @property
    def framing(self) -> Framing:
        """How the events stand in the reply's bytes."""

    @property
    def terminal(self) -> bool:
        """Whether the answer is over: the terminal marker or an error has come. What follows is ignored."""

    @property
    def progress(self) -> int:
        """How many events carried a piece of the answer so far (text, reasoning, tool arguments); keep-alives do not count."""

    @property
    def text(self) -> str:
        """The text so far."""

    def feed(self, event: SSEEvent) -> list[str]:
        """Return the pieces of text in an event. Never raises on what a server sends: errors come out of `finish`."""

    def finish(self, *, eof: bool) -> Completion | CallError:
        """Return the outcome. Without a terminal marker it is TRUNCATED; `eof` says whether the body ended in good order."""


class Adapter(Protocol):
    """One wire format. All methods are pure, and callable from any thread. Header names are lower-case throughout."""

    def encode(self, request: Request, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent (`sent` False)."""

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Completion | CallError:
        """Return what a whole reply means, whatever its status."""

    def stream_decoder(self, headers: Mapping[str, str], *, at_ms: int) -> StreamDecoder:
        """Return a decoder for the stream that these reply headers opened."""

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int) -> CallError:
        """Return the error that a reply with this status means."""

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:
        """Return what the reply's headers say of the limits; None if they say nothing."""


class Embedder(Protocol):
    """The embeddings endpoint of one wire format. All methods are pure, and callable from any thread."""

    max_inputs: int
    """The most texts that one request may hold."""

    def encode(
        self, request: EmbeddingRequest, *, key: Secret | None, settings: ProviderSettings
    ) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent (`sent` False)."""

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int, inputs: int
    ) -> Embeddings | CallError:
        """Return what a whole reply to so many inputs means, whatever its status."""

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:
        """Return what the reply's headers say of the limits; None if they say nothing."""


_ADAPTERS = {
    "openai-chat": (".openai_chat", "OpenAIChat"),
    "openai-responses": (".openai_responses", "OpenAIResponses"),
    "anthropic-messages": (".anthropic_messages", "AnthropicMessages"),
    "gemini": (".gemini", "Gemini"),
    "ollama": (".ollama", "Ollama"),
}
_EMBEDDERS = {
    "openai-chat": (".openai_embeddings", "OpenAIEmbeddings"),
    "openai-responses": (".openai_embeddings", "OpenAIEmbeddings"),
    "gemini": (".gemini_embeddings", "GeminiEmbeddings"),
    "ollama": (".ollama_embeddings", "OllamaEmbeddings"),
}


def adapter_for(wire: str) -> Adapter:
    """Return the adapter of a wire format. Raises ValueError for an unknown one."""
    if wire not in _ADAPTERS:
        raise ValueError(f"unknown wire format {wire!r}; known: {', '.join(_ADAPTERS)}")
    adapter: Adapter = _load(*_ADAPTERS[wire])
    return adapter


def embedder_for(wire: str) -> Embedder | None:
    """Return the embeddings endpoint that goes with a wire format, None if its provider has none."""
    if wire not in _EMBEDDERS:
        return None
    embedder: Embedder = _load(*_EMBEDDERS[wire])
    return embedder


def _load(module: str, name: str) -> Any:
    # When it is needed: a worker holds only the formats it speaks.
    return getattr(import_module(module, __package__), name)()


def choose_fields(
    request: Request, settings: ProviderSettings, *, always_unsupported: frozenset[str], owned: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]] | CallError:
    """Return the sampling fields and the extra fields to send, without the unsupported ones, or the refusal.

    Tools, schemas, images and hints are `features.supported`'s, which is to be called before.

    `owned` are the wire fields that `Request` itself decides: an `extra` naming one could dodge the limits and budgets that were reserved
    for the request as it stands, so it is refused whatever `on_unsupported` says.
    """
    for name in request.extra:
        if name in owned:
            return refused(f"extra.{name}", "this field is decided by the request itself; set it there")
    unsupported = settings.unsupported | request.unsupported | always_unsupported
    fields: dict[str, Any] = {
        name: value
        for name, value in (
            ("max_output", request.max_output),
            ("temperature", request.temperature),
            ("top_p", request.top_p),
            ("stop", list(request.stop) or None),
            ("seed", request.seed),
        )
        if value is not None
    }
    extra = dict(request.extra)
    for name in sorted(unsupported & (fields.keys() | extra.keys())):
        if settings.on_unsupported == "error":
            return refused(
                name,
                f"provider {settings.name!r} does not support this field; leave it out, or set on_unsupported to drop it",
            )
        fields.pop(name, None)
        extra.pop(name, None)
    return fields, extra


def check_messages(request: Request) -> CallError | None:
    """Return the refusal of a request that no provider would take, so that no call is spent on it; None if it may go."""
    if not any(message.role != "system" for message in request.messages):
        return refused("messages", "there is no user message; a request needs one")
    for message in request.messages:
        if message.role not in ROLES:
            return refused("messages", f"unknown role {message.role[:40]!r}; use {', '.join(ROLES)}")
    return None


def line_decoder(framing: Framing) -> "SSEDecoder | NDJSONDecoder":
    """Return what turns a stream's bytes into events."""
    if framing == "sse":
        return SSEDecoder()
    from .ndjson import NDJSONDecoder  # for those that speak it

    return NDJSONDecoder()


def common_headers(request: AnyRequest, settings: ProviderSettings) -> list[tuple[str, str]]:
    """Return the headers every format sends. Identity encoding, because a proxy that compresses a stream also buffers it."""
    streams = isinstance(request, Request) and request.stream
    return [
        ("user-agent", USER_AGENT),
        ("content-type", "application/json"),
        ("accept", "text/event-stream" if streams else "application/json"),
        ("accept-encoding", "identity"),
        *((name.lower(), value) for name, value in settings.headers.items()),
    ]


def post(path: str, headers: list[tuple[str, str]], body: dict[str, Any]) -> HttpRequest | CallError:
    """Return the POST of a JSON body, compact and in UTF-8, or the refusal of a body that JSON cannot hold.

    A lone surrogate, which no UTF-8 can hold, becomes a question mark.
    """
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return refused("request", f"it cannot be written as JSON: {error}")
    return HttpRequest("POST", path, tuple(headers), text.encode("utf-8", "replace"))


def whole(value: Any) -> int:
    """Return a token count as a whole number of 0 or more; anything else is 0."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15 else 0


def optional_text(value: Any) -> str | None:
    """Return `value` if it is a non-empty text, else None."""
    return value if isinstance(value, str) and value else None
