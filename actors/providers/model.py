"""The neutral model of one LLM call: what is asked, what came back, what it used, how it failed.

Adapters translate these types to and from a provider's wire format; nothing above the adapters knows a wire format. Everything here is
frozen and free of I/O. The JSON forms (`to_json`/`from_json`) are what the call ledger keeps, so fields are only ever added.
"""

import hashlib
import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any, Self

from .parts import Message as Message  # noqa: PLC0414 - part of the model, for whoever imports it from here
from .parts import (
    Opaque,
    Text,
    ToolCall,
    part_from_json,
    part_to_json,
    vector_from_base64,
    vector_to_base64,
)


class Finish(StrEnum):
    """Why the model stopped. Filter and refusal are results, not errors: the call was made and is paid for."""

    STOP = "stop"
    LENGTH = "length"
    TOOL = "tool"
    FILTER = "filter"
    REFUSAL = "refusal"
    PAUSE = "pause"
    CONTEXT = "context"
    UNKNOWN = "unknown"


class ErrorClass(StrEnum):
    """What went wrong, in terms of what to do about it (`actors.runner.retry` holds the policy of each)."""

    RATE = "rate"
    QUOTA = "quota"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    INVALID = "invalid"
    CONTEXT = "context"
    TOO_LARGE = "too_large"
    CONFLICT = "conflict"
    OVERLOADED = "overloaded"
    SERVER = "server"
    CONNECT = "connect"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    CANCELLED = "cancelled"


class Scope(StrEnum):
    """How far a failure reaches: one request, every call of a model, or everything under one credential or provider."""

    REQUEST = "request"
    MODEL = "model"
    CREDENTIAL = "credential"
    PROVIDER = "provider"


class Billed(StrEnum):
    """Whether the failed call may appear on the bill. `MAYBE` is what the unknown-outcome policy is for."""

    NO = "no"
    YES = "yes"
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function the model may ask to be called. `parameters` is a JSON Schema of its arguments; `strict` asks the provider to hold to it."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a handler asks of a model. `model` is the provider's own name, after aliases were resolved.

    - `max_output` is in tokens; None leaves it to the adapter (Anthropic requires one, and gets its default).
    - `tools`: sorted or not, they are sent in this order, which decides what a prompt cache can keep. `tool_choice`: auto, none, required, or
      the name of one tool. `parallel_tools` False: at most one call at a time.
    - `schema`: a JSON Schema the answer must follow, called `schema_name`. What checks the answer is the runner, not the adapter.
    - `effort`: how much to reason: none, minimal, low, medium, high, xhigh or max; a model knows some of them.
    - `cache_key`: requests that begin alike share it, so that the provider keeps their beginning; `cache_ttl` is how long: 5m or 1h.
    - `extra` is merged into the top level of the wire body as it is, for what the neutral model does not name.
    - `unsupported`: what this model refuses, beside its provider's (`ModelSettings.unsupported`). It is the route's, not the asker's: in no
      fingerprint and no JSON form.
    """

    model: str
    messages: tuple[Message, ...]
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    parallel_tools: bool | None = None
    schema: dict[str, Any] | None = None
    schema_name: str = "answer"
    effort: str | None = None
    cache_key: str | None = None
    cache_ttl: str | None = None
    stream: bool = True
    extra: dict[str, Any] = field(default_factory=dict)
    unsupported: frozenset[str] = frozenset()

    def fingerprint(self) -> str:
        """A SHA-256 over everything that decides the answer (not `stream`, nor what is kept of the prompt): the ledger's name for this request."""
        body = self.to_json()
        for name in ("stream", "cache_key", "cache_ttl"):
            body.pop(name, None)
        return _digest(body)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form: what a batch keeps until it leaves. What is at its default is left out."""
        told = {
            name: value
            for name, value in _fields(self).items()
            if name != "unsupported" and value is not None and value not in ((), {})
        }
        if self.schema is None:
            del told["schema_name"]
        told["messages"] = [message.to_json() for message in self.messages]
        if self.tools:
            told["tools"] = [_fields(tool) for tool in self.tools]
        if self.stop:
            told["stop"] = list(self.stop)
        return told

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            **{
                **data,
                "messages": tuple(Message.from_json(message) for message in data["messages"]),
                "tools": tuple(Tool(**tool) for tool in data.get("tools", ())),
                "stop": tuple(data.get("stop", ())),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts to be turned into vectors. `model` as in `Request`; `dimensions` None is the model's own number."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """As `Request.fingerprint`."""
        return _digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form. It tells an embedding from a chat by having `inputs`."""
        return {**_fields(self), "inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**data, "inputs": tuple(data["inputs"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens in disjoint buckets: their sum is the total, whatever the provider nests. None of them is ever negative.

    `cache_write` is what the provider was asked to keep for minutes, `cache_write_1h` for an hour.
    """

    input_uncached: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output_visible: int = 0
    output_reasoning: int = 0
    cache_write_1h: int = 0

    @property
    def input(self) -> int:
        """All input tokens, cached or not."""
        return self.input_uncached + self.cache_read + self.cache_write + self.cache_write_1h

    @property
    def output(self) -> int:
        """All output tokens, shown or not."""
        return self.output_visible + self.output_reasoning

    @property
    def total(self) -> int:
        """Every token of the call."""
        return self.input + self.output


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished answer. `usage` is None when the provider did not say; it is never made up.

    `tool_calls` are what the model asks to be called. `opaque` is what the provider wants back unchanged with the next turn (reasoning, its
    signatures), in the order of the answer. `data` is the answer as it follows the request's schema, None without one.
    """

    text: str
    finish: Finish
    raw_finish: str | None = None
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    opaque: tuple[Opaque, ...] = ()
    data: Any = None

    def message(self) -> Message:
        """The answer as the assistant's turn, to be sent back in the next request."""
        if not self.tool_calls and not self.opaque:
            return Message("assistant", self.text)
        text = (Text(self.text),) if self.text else ()
        return Message("assistant", (*self.opaque, *text, *self.tool_calls))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, for the ledger and for a job's result. `tool_calls`, `opaque` and `data` only where there are any."""
        told = {**_fields(self), "usage": None if self.usage is None else _fields(self.usage)}
        for name in ("tool_calls", "opaque"):
            parts = told.pop(name)
            if parts:
                told[name] = [part_to_json(part) for part in parts]
        if self.data is None:
            del told["data"]
        return told

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        usage = data.get("usage")
        parts = {name: tuple(part_from_json(part) for part in data.get(name, ())) for name in ("tool_calls", "opaque")}
        return cls(**{**data, "finish": Finish(data["finish"]), "usage": Usage(**usage) if usage else None, **parts})


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors, one for each input, in their order. `usage` is of the whole request, None when the provider did not say."""

    vectors: "tuple[array[float], ...]"
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None
    total_ms: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form for the ledger: the vectors as base64 of little-endian 32-bit floats, a quarter of what numbers in JSON take."""
        return {
            **_fields(self),
            "usage": None if self.usage is None else _fields(self.usage),
            "vectors": [vector_to_base64(vector) for vector in self.vectors],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        usage = data.get("usage")
        vectors = tuple(vector_from_base64(vector) for vector in data["vectors"])
        return cls(**{**data, "usage": Usage(**usage) if usage else None, "vectors": vectors})


AnyRequest = Request | EmbeddingRequest
Answer = Completion | Embeddings


def answer_from_json(data: dict[str, Any]) -> Answer:
    """What the ledger has of an answered call."""
    return Embeddings.from_json(data) if "vectors" in data else Completion.from_json(data)


def request_from_json(data: dict[str, Any]) -> AnyRequest:
    """What a batch has kept of a request."""
    return EmbeddingRequest.from_json(data) if "inputs" in data else Request.from_json(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """A failed call as a value. `message` is redacted and at most 4 KB; `retry_after` is in seconds from when it was received.

    `sent` says whether the request may have reached the model: False is certain not to have.
    `partial` is the text that arrived before the failure. `resumable`: the provider goes on with it, so it is to be taken up by its handle.
    """

    kind: ErrorClass
    message: str
    http: int | None = None
    code: str | None = None
    retry_after: float | None = None
    retryable: bool | None = None
    scope: Scope = Scope.REQUEST
    billed: Billed = Billed.NO
    sent: bool = True
    request_id: str | None = None
    partial: str = ""
    resumable: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, for the ledger and for a failed job's error."""
        told = {
            k: v for k, v in _fields(self).items() if v not in (None, "") and k not in ("kind", "partial", "resumable")
        }
        if self.resumable:
            told["resumable"] = True
        return {"class": str(self.kind), **told}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. Keep-alives and pings are not progress. None means no such limit.

    `first_token`: from sending to the first piece of the answer. `no_progress`: between two pieces of it. `total`: the whole call.
    """

    first_token: float | None = 120.0
    no_progress: float | None = 60.0
    total: float | None = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSnapshot:
    """What a reply's headers said of the limits, after the call was counted. None where they said nothing.

    `*_limit`: per minute. `*_remaining`: left at `at_ms`. `*_reset`: seconds until full again. `tokens_*` are of input and output together.
    """

    at_ms: int
    requests_limit: int | None = None
    requests_remaining: int | None = None
    requests_reset: float | None = None
    tokens_limit: int | None = None
    tokens_remaining: int | None = None
    tokens_reset: float | None = None
    input_limit: int | None = None
    input_remaining: int | None = None
    output_limit: int | None = None
    output_remaining: int | None = None


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps(body, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ).hexdigest()


def _fields(value: Any) -> dict[str, Any]:
    """Its fields by name, one level deep. `dataclasses.asdict` copies every value deeply, which for each call costs more than writing it."""
    names, read = _readers(value.__class__)
    return dict(zip(names, read(value), strict=True))


@cache
def _readers(kind: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The names of a dataclass's fields, and what reads them all at once: some calls make half a dozen of these forms."""
    names: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]  # every class here has them
    return names, attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
