"""Responses that go on when their client leaves: kept as a plan with its times, so that what has happened by now is arithmetic, not a task.

A response is begun by `POST /v1/responses` with `background`. It can be looked at, followed from any of its events, cancelled and deleted.
Its pace is real time, as that of every stream. A fault bends the connection that meets it; the response itself goes on unharmed, unless the
fault says what the model answers, or there is a refusal instead of a response.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

from .config import SimulatorConfig
from .faults import Fault
from .http import Request
from .openai_responses import OpenAIResponses, response_id, response_object
from .replies import Reply, Step, build_reply, plain
from .wire import Answer, Call, StreamParts, Wire, WireError, dump

KEPT = 1000
"""Responses; the oldest are forgotten beyond it."""
_PATH = re.compile(r"/v1/responses/(?P<id>[^/]+)(?P<cancel>/cancel)?")
_ANSWERS = frozenset({"content_filter", "refusal", "reply", "missing_usage"})
"""Faults that change what the model says, and so the response itself."""
_INSTEAD = frozenset({"status", "html", "empty", "redirect"})
"""Faults that come instead of a response: nothing was begun."""


@dataclass(slots=True)
class _Running:
    """One response. `began` is in monotonic seconds; the delays of its steps count from there."""

    call: Call
    answer: Answer
    number: int
    created: int
    key: str
    began: float
    steps: list[Step]
    cancelled: float | None = None

    def until_over(self, now: float) -> float:
        return self.began + sum(step.delay for step in self.steps) - now

    def status(self, now: float) -> str:
        if self.cancelled is not None:
            return "cancelled"
        if self.until_over(now) > 0:
            return "in_progress"
        found = json.loads(self.steps[-1].data.partition(b"data: ")[2])
        return str(found["response"]["status"])

    def rest(self, after: int, now: float) -> list[Step]:
        """The events after one of them, due when they are; what has happened is due at once. Of a cancelled one only what had come."""
        steps, due, sent_at = [], self.began, now
        for number, step in enumerate(self.steps):
            due += step.delay
            if number <= after:
                continue
            if self.cancelled is not None and due > self.cancelled:
                break
            steps.append(replace(step, delay=max(0.0, due - sent_at)))
            sent_at = max(sent_at, due)
        return steps


class Background:
    """The responses of one simulator. Used by its event loop alone; `now` is always monotonic seconds."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._running: dict[str, _Running] = {}

    def begin(
        self,
        wire: Wire,
        body: Any,
        call: Call,
        answer: Answer,
        fault: Fault | None,
        *,
        number: int,
        created: int,
        key: str,
        now: float,
    ) -> Reply | None:
        """Begin a response if the request asks for one. Returns the reply where that is not the stream of it: its client wants to come back."""
        if not isinstance(wire, OpenAIResponses) or body.get("background") is not True:
            return None
        if fault is not None and fault.kind in _INSTEAD:
            return None
        kept = fault if fault is not None and fault.kind in _ANSWERS else None
        streamed = replace(call, stream=True)
        plan = build_reply(wire, streamed, answer, self._config, kept, number, "", created)
        while len(self._running) >= KEPT:
            del self._running[next(iter(self._running))]
        self._running[response_id(number)] = _Running(
            call, answer, number, created, key, now + plan.wait, [step for step in plan.steps if step.data]
        )
        if call.stream or fault is not None:
            return None
        return plain(200, dump(response_object(call, number, created, "queued")), [])

    def find(self, request: Request) -> Callable[..., Reply] | None:
        """Return what answers a request about a response, None for any other request."""
        found = _PATH.fullmatch(request.path)
        if found is None:
            return None
        wanted = (request.method, bool(found["cancel"]))
        if wanted == ("GET", False):
            return lambda **about: self._look(found["id"], request, **about)
        if wanted == ("POST", True):
            return lambda **about: self._cancel(found["id"], **about)
        if wanted == ("DELETE", False):
            return lambda **about: self._delete(found["id"], **about)
        return None

    def text_of(self, request: Request) -> tuple[str, str] | None:
        """Return the text and the model of the response that a request is about, for the rules of faults; None if it is about none."""
        found = _PATH.fullmatch(request.path)
        running = None if found is None else self._running.get(found["id"])
        return None if running is None else (running.call.all_text, running.call.model)

    def _look(self, ref: str, request: Request, *, key: str, now: float, fault: Fault | None) -> Reply:
        running = self._known(ref, key)
        asked = parse_qs(request.query)
        if asked.get("stream") != ["true"]:
            return plain(200, dump(self._object(running, now)), [])
        if not running.call.stream:
            raise WireError(400, f"Response '{ref}' was not created with stream=true.", param="stream")
        try:
            after = int(asked.get("starting_after", ["-1"])[0])
        except ValueError:
            raise WireError(400, "Invalid 'starting_after': expected an integer.", param="starting_after") from None
        if fault is not None and fault.kind not in _ANSWERS:
            rest = _Rest(after)
            return build_reply(
                rest, running.call, running.answer, self._config, fault, running.number, "", running.created
            )
        headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
        return Reply(200, headers, running.rest(after, now))

    def _cancel(self, ref: str, *, key: str, now: float, fault: Fault | None) -> Reply:  # noqa: ARG002 - only what is looked at meets faults
        running = self._known(ref, key)
        if running.status(now) == "in_progress":
            running.cancelled = now
        return plain(200, dump(self._object(running, now)), [])

    def _delete(self, ref: str, *, key: str, now: float, fault: Fault | None) -> Reply:  # noqa: ARG002 - as above
        self._known(ref, key)
        del self._running[ref]
        return plain(200, dump({"id": ref, "object": "response.deleted", "deleted": True}), [])

    def _known(self, ref: str, key: str) -> _Running:
        running = self._running.get(ref)
        if running is None or running.key != key:
            raise WireError(404, f"Response with id '{ref}' not found.", kind="invalid_request_error", param="id")
        return running

    def _object(self, running: _Running, now: float) -> dict[str, Any]:
        status = running.status(now)
        if status in ("in_progress", "cancelled"):
            return response_object(running.call, running.number, running.created, status)
        last = json.loads(running.steps[-1].data.partition(b"data: ")[2])
        response: dict[str, Any] = last["response"]
        return response


class _Rest(OpenAIResponses):
    """The format, with a stream that begins after one of its events."""

    def __init__(self, after: int) -> None:
        self._after = after

    def stream(self, call: Call, answer: Answer, number: int, created: int) -> StreamParts:
        """Return the events that are left."""
        parts = super().stream(call, answer, number, created)
        left = max(0, self._after + 1)
        head = parts.head[left:]
        left = max(0, left - len(parts.head))
        text = parts.text[left:]
        left = max(0, left - len(parts.text))
        return replace(parts, head=head, text=text, tail=parts.tail[left:])
