"""What the wire formats have in common: the call that was read, the answer to send, the parts of a stream.

A wire format reads a request and writes replies; it has no thread, no clock and no I/O, so that `replies.py` can bend what it writes
into a fault and a test can read it without a socket.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from .buckets import Level, Rejection
from .config import SimulatorConfig
from .extractive import cut_at_stop, estimate_tokens, extract
from .instance import instance
from .tools import Tools, asked_calls

Headers = list[tuple[str, str]]


class WireError(Exception):
    """A request that the provider would refuse, with what its reply says. `kind` and `code` None: the usual ones of the status.

    `details`: what Gemini's errors have beside.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
        details: Iterable[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param
        self.details = tuple(details)


@dataclass(frozen=True, slots=True)
class Call:
    """A valid request: the last user message's text, all text, and what the reply must honour.

    `after_tools`: the last turn holds the results of tool calls, and `text` is theirs. `schema`: what the answer must follow. `reasons`: it
    was told how much to reason. `inputs`, `dimensions`, `as_base64`: of a request for embeddings.
    """

    model: str
    text: str
    all_text: str
    input_tokens: int
    max_tokens: int | None
    stream: bool
    stop: tuple[str, ...]
    include_usage: bool
    tools: Tools = field(default_factory=Tools)
    after_tools: bool = False
    schema: Any = None
    reasons: bool = False
    inputs: tuple[str, ...] = ()
    dimensions: int | None = None
    as_base64: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says. `finish` is neutral: stop, length, stop_sequence, tool, content_filter or refusal.

    `calls` are of tools, as (name, arguments). `reasoning_tokens` are not in `output_tokens`.
    """

    text: str
    finish: str
    input_tokens: int
    output_tokens: int
    stop_sequence: str | None = None
    with_usage: bool = True
    calls: tuple[tuple[str, Any], ...] = ()
    reasoning_tokens: int = 0

    def with_text(self, text: str) -> Answer:
        """Return the same answer saying something else, with its tokens counted anew."""
        finish = "stop" if self.calls else self.finish
        return replace(self, text=text, output_tokens=estimate_tokens(text), calls=(), finish=finish)


IMAGE_TOKENS = 256
"""What every image counts for, whatever its size."""
REASONING_TOKENS = 16
"""What an answer is said to have been reasoned for, if the request asks for an effort."""


@dataclass(frozen=True, slots=True)
class StreamParts:
    """A stream in the order it is sent; each text event comes with its tokens. `terminal` is the provider's end marker."""

    head: list[bytes]
    text: list[tuple[int, bytes]]
    tail: list[bytes]
    terminal: bytes
    content_type: str = "text/event-stream; charset=utf-8"


class Wire(Protocol):
    """One provider's format. All methods are pure."""

    name: str

    def api_key(self, headers: Mapping[str, str]) -> str:
        """Return the key that a request carries, or an empty string."""

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:
        """Return the call in a parsed body. Raises WireError when the provider would refuse it."""

    def model_unknown(self, model: str) -> WireError:
        """Return the refusal of a model that is not served."""

    def key_refused(self, key: str) -> WireError:
        """Return the refusal of a missing or unknown key, without the key in it."""

    def too_many(self, rejection: Rejection, model: str) -> WireError:
        """Return the refusal of a request that is over a limit."""

    def error(self, error: WireError, request_id: str) -> bytes:
        """Return the body of an error reply."""

    def error_event(self, kind: str, message: str, code: str | None) -> bytes:
        """Return the event of an error in the middle of a stream."""

    def error_status(self, kind: str) -> int:
        """Return the status that an error type has outside a stream."""

    def headers(self, request_id: str, elapsed_ms: int) -> Headers:
        """Return the headers that every reply carries."""

    def limit_headers(self, levels: Mapping[str, Level], now_ms: int) -> Headers:
        """Return the headers that report the limits."""

    def retry_headers(self, wait_seconds: float) -> Headers:
        """Return the headers that say when to come back."""

    def limits(self, config: SimulatorConfig) -> dict[str, int]:
        """Return the size of every limited dimension but concurrency."""

    def charges(self, call: Call) -> dict[str, int]:
        """Return what a call is charged at admission, by dimension."""

    def output_dimension(self) -> str | None:
        """Return the dimension that is charged as output is produced, if any."""

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:
        """Return the body of a reply that is not a stream."""

    def stream(self, call: Call, answer: Answer, number: int, created: int) -> StreamParts:
        """Return the events of a stream."""

    def text_event(self, call: Call, text: str, number: int, created: int) -> bytes:
        """Return one event that carries text."""

    def ping(self) -> bytes:
        """Return the event that says only that the connection lives."""

    def broken_event(self) -> bytes:
        """Return a well-framed event whose JSON is cut short."""

    def models(self, names: tuple[str, ...]) -> bytes:
        """Return the body of the model list."""


def answer_to(call: Call, config: SimulatorConfig) -> Answer:
    """Return the built-in model's answer: the tool calls or the instance of a schema that it is asked for, else an extract of the text."""
    if call.inputs:
        return Answer("", "stop", call.input_tokens, 0)
    reasoning = REASONING_TOKENS if call.reasons else 0
    calls = () if call.after_tools else asked_calls(call.text, call.tools)
    if calls:
        tokens = estimate_tokens(json.dumps(calls))
        return Answer("", "tool", call.input_tokens, tokens, calls=calls, reasoning_tokens=reasoning)
    limit = config.default_max_tokens if call.max_tokens is None else call.max_tokens
    if call.schema is not None:
        text = json.dumps(instance(call.schema), ensure_ascii=False)
        kept = text.encode()[: limit * 4].decode("utf-8", "ignore")
        finish = "stop" if kept == text else "length"
        return Answer(kept, finish, call.input_tokens, estimate_tokens(kept), reasoning_tokens=reasoning)
    found = extract(call.text, limit)
    text, stopped_at = cut_at_stop(found.text, call.stop)
    finish = "stop_sequence" if stopped_at is not None else "length" if found.truncated else "stop"
    tokens = estimate_tokens(text)
    return Answer(text, finish, call.input_tokens, tokens, stopped_at, reasoning_tokens=reasoning)


def dump(value: Any) -> bytes:
    """Return compact JSON in raw UTF-8, as the providers send it (so U+2028 stands in a string unescaped)."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def text_of(content: Any) -> str:
    """Return the text in a message's content: a string, or a list of blocks of which the text ones count."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        block["text"] for block in content if isinstance(block, dict) and isinstance(block.get("text"), str)
    )


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last message whose role is user, or an empty string."""
    return next(
        (text_of(message.get("content")) for message in reversed(messages) if message.get("role") == "user"), ""
    )
