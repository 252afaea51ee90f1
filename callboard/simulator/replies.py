"""From an answer and a fault to the bytes of a reply and their times: a plan that the server only has to play.

Pure, so that every fault can be read and tested as data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from .config import SimulatorConfig
from .faults import Fault
from .wire import Answer, Call, Headers, StreamParts, Wire, WireError

_REFUSAL = "The simulator was told to refuse this request."
_JSON = [("content-type", "application/json")]


@dataclass(slots=True)
class Step:
    """Some bytes, the seconds after the previous step at which they are due, and the output tokens in them."""

    data: bytes
    delay: float = 0.0
    tokens: int = 0


@dataclass(slots=True)
class Reply:
    """A reply as a plan.

    `wait` passes before anything is sent. `length` is the promised content length, None for chunked. After the steps the `ending` is
    `clean`, `cut` (the connection is dropped), `silent` (nothing, for ever) or `ping` (the `ping` bytes every `interval` seconds, for
    ever). Without `has_headers` nothing is sent at all before the ending.
    """

    status: int
    headers: Headers
    steps: list[Step] = field(default_factory=list)
    length: int | None = None
    wait: float = 0.0
    ending: Literal["clean", "cut", "silent", "ping"] = "clean"
    ping: bytes = b""
    interval: float = 1.0
    has_headers: bool = True


def plain(status: int, body: bytes, headers: Headers, content_type: str = "application/json") -> Reply:
    """Return a reply that is one body with its length."""
    steps = [Step(body)] if body and status not in {204, 304} else []
    typed = [("content-type", content_type), *headers] if steps else headers
    return Reply(status, typed, steps, length=len(body) if steps else 0)


def refusal(wire: Wire, error: WireError, request_id: str, headers: Headers) -> Reply:
    """Return the provider's error reply."""
    return plain(error.status, wire.error(error, request_id), headers)


def build_reply(
    wire: Wire,
    call: Call,
    answer: Answer,
    config: SimulatorConfig,
    fault: Fault | None,
    number: int,
    request_id: str,
    created: int,
) -> Reply:
    """Return the reply to an admitted call, as its fault (if any) leaves it. `created` is in epoch seconds."""
    kind = fault.kind if fault else ""
    if fault:
        answer = _bent_answer(answer, fault)
        reply = _replacement(wire, call, fault, request_id)
        if reply is not None:
            reply.wait += config.latency
            return reply
    if call.stream:
        reply = _stream(wire, call, answer, config, fault, number, created)
    else:
        reply = _body(wire, call, answer, config, fault, number, created)
    reply.wait += config.latency
    if fault and kind == "delay":
        reply.wait += fault["seconds"]
    if fault and kind == "slow_first_byte":
        reply.steps[0].delay += fault["seconds"]
    if fault and kind in {"cut", "stall", "ping_only"}:
        reply.ending = {"cut": "cut", "stall": "silent", "ping_only": "ping"}[kind]  # type: ignore[assignment]  # a dict's values are plain str
        reply.has_headers = fault["n"] >= 0
    if kind in {"bom", "crlf", "cr"}:
        _reframe(reply, kind)
    return reply


def _bent_answer(answer: Answer, fault: Fault) -> Answer:
    if fault.kind == "content_filter":
        return replace(answer, finish="content_filter", stop_sequence=None)
    if fault.kind == "refusal":
        return replace(answer.with_text(_REFUSAL), finish="refusal", stop_sequence=None)
    if fault.kind == "reply":
        return answer.with_text(fault["text"])
    if fault.kind == "missing_usage":
        return replace(answer, with_usage=False)
    return answer


def _replacement(wire: Wire, call: Call, fault: Fault, request_id: str) -> Reply | None:
    """Return the reply of a fault that leaves nothing of the answer, or None for the other kinds."""
    if fault.kind == "status":
        headers: Headers = [(name, str(value)) for name, value in (fault["headers"] or {}).items()]
        headers += [
            (name.replace("_", "-"), f"{fault[name]:g}")
            for name in ("retry_after", "retry_after_ms")
            if fault[name] is not None
        ]
        message = fault["message"] or f"The simulator was told to answer {fault['status']}."
        return refusal(
            wire, WireError(fault["status"], message, kind=fault["type"], code=fault["code"]), request_id, headers
        )
    if fault.kind == "html":
        status = fault["status"]
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><p>An error page of a proxy.</p></body></html>"
        return plain(status, page.encode(), [], "text/html")
    if fault.kind == "empty":
        return plain(fault["status"], b"", [])
    if fault.kind == "redirect":
        return plain(fault["status"], b"", [("location", fault["url"])])
    if fault.kind == "error_event" and not call.stream:
        error_kind, message, code = _error_of(wire, fault)
        return refusal(
            wire, WireError(wire.error_status(error_kind), message, kind=error_kind, code=code), request_id, []
        )
    return None


def _error_of(wire: Wire, fault: Fault) -> tuple[str, str, str | None]:
    usual = {"openai": "server_error", "gemini": "UNAVAILABLE"}.get(wire.name, "overloaded_error")
    return fault["type"] or usual, fault["message"] or "The simulator was told to fail here.", fault["code"]


def _body(
    wire: Wire, call: Call, answer: Answer, config: SimulatorConfig, fault: Fault | None, number: int, created: int
) -> Reply:
    kind = fault.kind if fault else ""
    if fault and kind == "huge_line":
        answer = replace(answer, text="x" * fault["bytes"])
    body = wire.completion(call, answer, number, created)
    promised: int | None = len(body)
    if kind in {"malformed_json", "no_terminal", "unclosed_event"}:
        body = body[: len(body) // 2]
        promised = len(body) if kind == "malformed_json" else None
    elif kind in {"stall", "cut"}:
        body = body[: len(body) // 2]
    elif kind == "ping_only":
        body = b""  # a body has no pings: its headers come, and then nothing
    wait = answer.output_tokens / config.tokens_per_second if config.tokens_per_second else 0.0
    return Reply(200, list(_JSON), [Step(body, tokens=answer.output_tokens)], promised, wait)


def _stream(
    wire: Wire, call: Call, answer: Answer, config: SimulatorConfig, fault: Fault | None, number: int, created: int
) -> Reply:
    parts = wire.stream(call, answer, number, created)
    steps = [Step(event) for event in parts.head]
    kind = fault.kind if fault else ""
    if fault and kind == "huge_line":
        steps.append(Step(wire.text_event(call, "x" * fault["bytes"], number, created)))
    second_per_token = 1 / config.tokens_per_second if config.tokens_per_second else 0.0
    text = [Step(event, tokens * second_per_token, tokens) for tokens, event in parts.text]
    reply = Reply(200, [("content-type", parts.content_type), ("cache-control", "no-cache")], steps)
    if fault and "n" in fault.parameters and kind != "barrier" and fault["n"] is not None:
        steps += text[: max(fault["n"], 0)]
        steps += _broken_end(wire, fault)
        if kind == "ping_only":
            reply.ping, reply.interval = wire.ping(), max(fault["interval"], 0.001)
    else:
        steps += text + _end(parts, kind)
    return reply


def _broken_end(wire: Wire, fault: Fault) -> list[Step]:
    """Return what follows the first n text events of a stream that does not come to its end."""
    if fault.kind == "error_event":
        return [Step(wire.error_event(*_error_of(wire, fault)))]
    if fault.kind == "malformed_json":
        return [Step(wire.broken_event())]
    if fault.kind == "unclosed_event":
        return [Step(wire.broken_event().rstrip(b"\r\n"))]
    return []


def _end(parts: StreamParts, kind: str) -> list[Step]:
    end = [Step(event) for event in parts.tail]
    if kind == "no_terminal":
        return end
    return [*end, Step(parts.terminal.rstrip(b"\r\n") if kind == "unclosed_event" else parts.terminal)]


def _reframe(reply: Reply, kind: str) -> None:
    """Change a stream's line ends, or put a byte order mark before any reply. JSON never holds a raw line end, so bytes can be replaced."""
    if kind == "bom":
        reply.steps[0].data = b"\xef\xbb\xbf" + reply.steps[0].data
        reply.length = None if reply.length is None else reply.length + 3
        return
    for step in reply.steps:
        step.data = step.data.replace(b"\n", b"\r\n" if kind == "crlf" else b"\r")
