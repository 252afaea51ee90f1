"""The neutral model of one LLM call: what is asked, what came back, what it used, how it failed.

Adapters translate these types to and from a provider's wire format; nothing above the adapters knows a wire format. Everything here is
frozen and free of I/O. The JSON forms (`to_json`/`from_json`) are what the call ledger keeps, so fields are only ever added.
"""

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self


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


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `role` is system, user or assistant; `content` is text."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a handler asks of a model. `model` is the provider's own name, after aliases were resolved.

    `max_output` is in tokens; None leaves it to the adapter (Anthropic requires one, and gets its default).
    `extra` is merged into the top level of the wire body as it is, for what the neutral model does not name.
    """

    model: str
    messages: tuple[Message, ...]
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """A SHA-256 over everything that decides the answer (not `stream`): the ledger's name for this request."""
        body = _fields(self)
        del body["stream"]
        body["messages"] = [_fields(message) for message in self.messages]
        return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens in disjoint buckets: their sum is the total, whatever the provider nests. None of them is ever negative."""

    input_uncached: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output_visible: int = 0
    output_reasoning: int = 0

    @property
    def input(self) -> int:
        """All input tokens, cached or not."""
        return self.input_uncached + self.cache_read + self.cache_write

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
    """A finished answer. `usage` is None when the provider did not say; it is never made up."""

    text: str
    finish: Finish
    raw_finish: str | None = None
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, for the ledger and for a job's result."""
        return {**_fields(self), "usage": None if self.usage is None else _fields(self.usage)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        usage = data.get("usage")
        return cls(**{**data, "finish": Finish(data["finish"]), "usage": Usage(**usage) if usage else None})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """A failed call as a value. `message` is redacted and at most 4 KB; `retry_after` is in seconds from when it was received.

    `sent` says whether the request may have reached the model: False is certain not to have.
    `partial` is the text that arrived before the failure.
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

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, for the ledger and for a failed job's error."""
        told = {k: v for k, v in _fields(self).items() if v not in (None, "") and k not in ("kind", "partial")}
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

    `requests_limit`/`tokens_limit`: per minute. `*_remaining`: left at `at_ms`. `*_reset`: seconds until full again.
    """

    at_ms: int
    requests_limit: int | None = None
    requests_remaining: int | None = None
    requests_reset: float | None = None
    tokens_limit: int | None = None
    tokens_remaining: int | None = None
    tokens_reset: float | None = None


def _fields(value: Request | Message | Usage | Completion | CallError) -> dict[str, Any]:
    """Its fields by name, one level deep. `dataclasses.asdict` copies every value deeply, which for each call costs more than writing it."""
    return {name: getattr(value, name) for name in value.__slots__}
