"""The board's records as the commands show them: JSON for programs, short notes for people. Pure."""

import time
from dataclasses import asdict
from typing import Any

from callboard.persistence.model import CallRecord, JobRow, Transition

from .text import dollars, duration, iso

_TIMES = ("run_at", "start_by", "held_until", "created_at", "updated_at", "started_at", "finished_at")


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def row_json(row: JobRow) -> dict[str, Any]:
    """A job for programs: times as ISO 8601 in UTC."""
    found = asdict(row)
    return {name: iso(value) if name in _TIMES else value for name, value in found.items()}


def transition_json(transition: Transition) -> dict[str, Any]:
    """A line of the log for programs."""
    return {**asdict(transition), "at": iso(transition.at)}


def call_json(call: CallRecord) -> dict[str, Any]:
    """A call for programs: cost in dollars."""
    found = {name: value for name, value in asdict(call).items() if name not in ("reserved_cost", "cost")}
    return {**found, "sent_at": iso(call.sent_at), "finished_at": iso(call.finished_at), "cost_usd": dollars(call.cost)}


def call_tokens(call: CallRecord) -> tuple[int | None, int | None]:
    """Input and output tokens of a call; None when the provider did not say."""
    if call.input_uncached is None:
        return None, None
    given = call.input_uncached + (call.cache_read or 0) + (call.cache_write or 0) + (call.cache_write_1h or 0)
    return given, (call.output_visible or 0) + (call.output_reasoning or 0)


def took(row: JobRow, now: int) -> str:
    """How long the last attempt ran, or has been running."""
    if row.started_at is None:
        return "-"
    return duration(((row.finished_at or now) - row.started_at) / 1000)


def note(row: JobRow, now: int) -> str:
    """What a person would want to know about a job in a list."""
    if row.held_by and row.held_until and row.held_until > now:
        return f"held by {row.held_by} for {duration((row.held_until - now) / 1000)}"
    if row.state == "delayed" and row.run_at is not None:
        when = f"in {duration((row.run_at - now) / 1000)}" if row.run_at > now else "due"
        return f"{when}: {row.reason}" if row.reason else when
    if row.state == "active":
        return row.progress_message or ""
    return row.reason or ""
