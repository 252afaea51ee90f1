"""The batches a simulator has: made of requests, done by the built-in model when their time has come, in whatever way a test asked for.

A batch is done as a whole, at the moment at which its time is up or an order says so, so that what a client sees of it never depends on how
often it looks. Its requests go through the same formats as those that come one by one. What providers call all this is in `batch_shapes.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import routes
from .config import SimulatorConfig
from .wire import Wire, WireError, answer_to

WINDOW_MS = 24 * 3600 * 1000
_ORDERS: dict[str, dict[str, tuple[type, ...]]] = {
    "end": {"id": (str,)},
    "fail": {"id": (str,), "message": (str,), "code": (str,), "line": (int,)},
    "expire": {"id": (str,), "done": (int,)},
    "cancel": {"id": (str,), "done": (int,)},
    "lines": {
        "contains": (str,),
        "outcome": (str,),
        "status": (int,),
        "code": (str,),
        "message": (str,),
        "times": (int,),
    },
    "fault": {
        "on": (str,),
        "kind": (str,),
        "status": (int,),
        "code": (str,),
        "message": (str,),
        "url": (str,),
        "times": (int,),
    },
}
OPERATIONS = ("upload", "create", "find", "poll", "results", "cancel", "delete")
LINE_OUTCOMES = ("drop", "error", "expire", "break", "refuse")
FAULTS = ("status", "html", "redirect", "cut", "half", "stall")


class OrderError(ValueError):
    """An order that cannot be understood; the message names the field."""


@dataclass(slots=True)
class Line:
    """One request of a batch and what became of it: pending, done, error, expired, canceled, dropped or broken."""

    custom_id: str
    path: str
    body: Any
    outcome: str = "pending"
    status: int = 0
    reply: Any = None
    number: int = 0


@dataclass(slots=True)
class Batch:
    """A batch. `state` is neutral: running, ended, expired, cancelled or failed. Times in epoch milliseconds."""

    id: str
    wire: str
    tag: str
    created: int
    lines: list[Line]
    endpoint: str = ""
    model: str = ""
    file_id: str = ""
    state: str = "running"
    ended: int | None = None
    cancelling: int | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    def count(self, *outcomes: str) -> int:
        """Return how many of its requests came to one of these outcomes."""
        return sum(line.outcome in outcomes for line in self.lines)

    def describe(self) -> dict[str, Any]:
        """Return it as JSON, for a test to look at."""
        return {
            "id": self.id,
            "wire": self.wire,
            "tag": self.tag,
            "state": self.state,
            "created": self.created,
            "ended": self.ended,
            "requests": [{"custom_id": line.custom_id, "outcome": line.outcome} for line in self.lines],
        }


@dataclass(slots=True)
class Rule:
    """An order that waits for lines, or for a request about a batch. `times` None is for ever."""

    order: Mapping[str, Any]
    times: int | None

    def take(self) -> bool:
        """Return whether it still holds, and count that it did."""
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Batches:
    """All batches and files of one simulator. Used by the server's event loop alone."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self._lines: list[Rule] = []
        self._faults: list[Rule] = []
        self._made = self._done = self._ids = 0
        self.files: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.all: dict[str, Batch] = {}

    def order(self, order: Any, now: int) -> None:
        """Do what a test asks for, at once or when its occasion comes. Raises OrderError."""
        what = _checked(order)
        if what["do"] in ("lines", "fault"):
            rules = self._lines if what["do"] == "lines" else self._faults
            rules.append(Rule(what, what.get("times")))
            return
        running = [batch for batch in self.all.values() if batch.state == "running"]
        if "id" in what:
            running = [batch for batch in running if batch.id == what["id"]]
            if not running:
                raise OrderError(f"no batch {what['id']!r} is running")
        for batch in running:
            if what["do"] == "fail":
                error = {name: what.get(name) for name in ("code", "message", "line")}
                self.fail(
                    batch, [{"param": None, **error, "message": error["message"] or "The simulator was told to."}], now
                )
            else:
                state = {"end": "ended", "expire": "expired", "cancel": "cancelled"}[what["do"]]
                self.end(batch, now, state=state, done=what.get("done"))

    def fault(self, operation: str) -> Mapping[str, Any] | None:
        """Return what is to go wrong with a request about a batch, None if nothing is."""
        return next((rule.order for rule in self._faults if rule.order["on"] == operation and rule.take()), None)

    def report(self) -> dict[str, int]:
        """Return the counts for the statistics."""
        return {"batches": self._made, "batch_requests": self._done}

    def describe(self) -> list[dict[str, Any]]:
        """Return every batch, oldest first."""
        return [batch.describe() for batch in self.all.values()]

    def add(self, batch: Batch) -> Batch:
        """Take a batch in."""
        self._made += 1
        self.all[batch.id] = batch
        return batch

    def next_id(self) -> int:
        """Return a number that no batch or file had yet."""
        self._ids += 1
        return self._ids

    def look(self, batch: Batch, now: int) -> Batch:
        """Return a batch as it is now: what was to happen by its time has happened."""
        if batch.state == "running":
            if batch.cancelling is not None:
                self.end(batch, now, state="cancelled", done=0)
            elif now - batch.created >= self._config.batch_seconds * 1000:
                self.end(batch, now)
        return batch

    def fail(self, batch: Batch, errors: list[dict[str, Any]], now: int) -> None:
        """End a batch as refused: nothing of it was run."""
        batch.state, batch.ended, batch.errors = "failed", now, errors

    def end(self, batch: Batch, now: int, *, state: str = "ended", done: int | None = None) -> None:
        """Run the first `done` requests (None: all), and leave the rest."""
        batch.state, batch.ended = state, now
        left = "canceled" if state == "cancelled" else "expired"
        for index, line in enumerate(batch.lines):
            if done is not None and index >= done:
                line.outcome = left
            else:
                self._run(line, now)

    def _run(self, line: Line, now: int) -> None:
        text = json.dumps(line.body, ensure_ascii=False)
        rule = next(
            (rule.order for rule in self._lines if rule.order.get("contains", "") in text and rule.take()), None
        )
        outcome = rule["outcome"] if rule else ""
        if outcome in ("drop", "expire"):
            line.outcome = "dropped" if outcome == "drop" else "expired"
            return
        self._done += 1
        line.number = self._done
        found = routes.find("POST", line.path)
        wire = found[0] if found is not None else routes.wire_of(line.path, {})
        try:
            reply = self._completion(wire, line, rule, now)
            line.outcome, line.status = "done", 200
        except WireError as error:
            reply = wire.error(error, f"req_sim_batch_{line.number}")
            line.outcome, line.status = "error", error.status
        line.reply = json.loads(reply)
        if outcome == "break":
            line.outcome = "broken"

    def _completion(self, wire: Wire, line: Line, told: Mapping[str, Any] | None, now: int) -> bytes:
        """Return the built-in model's reply. Raises WireError: what is wrong with the request, or what a test ordered."""
        outcome = "" if told is None else told["outcome"]
        if told is not None and outcome == "error":
            message = told.get("message") or "The simulator was told to fail this request."
            raise WireError(told.get("status", 500), message, code=told.get("code"))
        if routes.find("POST", line.path) is None:
            raise WireError(404, f"Invalid URL (POST {line.path})", code="unknown_url")
        call = wire.read(line.body, {"anthropic-version": "2023-06-01"})
        if self._config.models and call.model not in self._config.models:
            raise wire.model_unknown(call.model)
        answer = answer_to(call, self._config)
        if outcome == "refuse":
            answer = replace(answer, finish="refusal", stop_sequence=None)
        return wire.completion(call, answer, line.number, now // 1000)


def _checked(order: Any) -> dict[str, Any]:
    if not isinstance(order, Mapping) or order.get("do") not in _ORDERS:
        raise OrderError(f"an order is an object whose 'do' is one of {sorted(_ORDERS)}, not {order!r}")
    known = _ORDERS[order["do"]]
    for name, value in order.items():
        if name == "do":
            continue
        if name not in known:
            raise OrderError(f"order {order['do']!r} knows {sorted(known)}, not {name!r}")
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise OrderError(
                f"order {order['do']!r}: {name!r} must be of type {known[name][0].__name__}, not {value!r}"
            )
    for name, allowed in (("outcome", LINE_OUTCOMES), ("on", OPERATIONS), ("kind", FAULTS)):
        if name in known and order.get(name) not in allowed:
            raise OrderError(f"order {order['do']!r}: {name!r} must be one of {list(allowed)}, not {order.get(name)!r}")
    return dict(order)
