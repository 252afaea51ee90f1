"""A job to be added, and what makes one acceptable. Pure: no database, no clock of its own.

What the host gives is checked before anything is written, and every refusal names the field and the path into it, because the fault is
the host's to find. Only what JSON can give back exactly is taken: no NaN, no keys that are not text, no objects that would become text.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import InvalidJobError
from .json_text import dumps, storable
from .lifecycle import JobState
from .model import JobOptions

PRIORITIES = {"user": 100, "analysis": 50, "background": 0}
"""Names for priorities, higher first."""

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 500  # SQLite reads 1000 levels, and so, about, does Python
MAX_INT_DIGITS = 4300  # beyond it Python refuses to read the integer back
_TIME_LIMIT_MS = 2**53
_NO_OPTIONS = JobOptions()
_WAITING, _DELAYED = str(JobState.WAITING), str(JobState.DELAYED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a host says of a job it adds. Only `type` is required.

    `data`: JSON-ready (None: an empty object). `model`: an alias or name the worker knows, None: the worker's default. `priority`: higher
    runs first, a number or one of `PRIORITIES`. `key`: at most one job ever has it. `tag`: what usage is grouped by. `delay` in seconds or
    `run_at` in epoch milliseconds, not both: not before then. `start_within` in seconds, from when it may run: if nobody has started it by
    then, it fails. `max_attempts`: how many failures end it.
    """

    type: str
    data: Any = None
    model: str | None = None
    queue: str = "default"
    priority: int | str = 0
    key: str | None = None
    tag: str | None = None
    description: str | None = None
    delay: float | None = None
    run_at: int | None = None
    start_within: float | None = None
    max_attempts: int = 3
    options: JobOptions | Mapping[str, Any] | None = None


_FIELDS = frozenset(field.name for field in fields(NewJob))


def as_new_job(given: NewJob | Mapping[str, Any]) -> NewJob:
    """A mapping as a `NewJob`. Raises InvalidJobError for a key it does not know, or without a type."""
    if isinstance(given, NewJob):
        return given
    if unknown := given.keys() - _FIELDS:
        name = min(map(str, unknown))
        raise InvalidJobError(name, f"is not a field of a job; the fields are {', '.join(sorted(_FIELDS))}")
    if "type" not in given:
        raise InvalidJobError("type", "is missing")
    return NewJob(**given)


def rows_of(job: NewJob, now: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of `llm_jobs` and `llm_job_data`, without ids. Raises InvalidJobError, which names the field."""
    run_at = _start_of(job, now)
    due = now if run_at is None else run_at
    row = {
        "key": _text("key", job.key, 200),
        "type": _name("type", job.type),
        "queue": _name("queue", job.queue),
        "model": _text("model", job.model, 200),
        "tag": _text("tag", job.tag, 200),
        "state": _WAITING if run_at is None else _DELAYED,
        "priority": _priority(job.priority),
        "run_at": run_at,
        "start_by": None if job.start_within is None else due + _milliseconds("start_within", job.start_within),
        "max_attempts": _whole("max_attempts", job.max_attempts, 1, 1000),
        "created_at": now,
    }
    if job.description is not None and not (isinstance(job.description, str) and storable(job.description)):
        raise InvalidJobError("description", "must be text")
    return row, {"description": job.description, "data": _body(job.data), "options": _options(job.options)}


def _start_of(job: NewJob, now: int) -> int | None:
    if job.run_at is not None:
        if job.delay is not None:
            raise InvalidJobError("run_at", "cannot be given together with delay")
        run_at = _whole("run_at", job.run_at, 0, _TIME_LIMIT_MS)
    elif job.delay is not None:
        run_at = now + _milliseconds("delay", job.delay)
    else:
        return None
    return run_at if run_at > now else None


def _body(data: Any) -> str:
    if data is None:
        return "{}"
    find_fault("data", data)
    try:
        text = dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJobError("data", f"cannot be written as JSON: {error}") from error
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_BODY_BYTES:
        raise InvalidJobError(
            "data",
            f"takes {size} bytes as JSON, more than the {MAX_BODY_BYTES} allowed: store it elsewhere and pass a reference",
        )
    return text


def find_fault(path: str, value: Any) -> None:
    """Raise InvalidJobError with the path of the first thing JSON would not give back exactly."""
    pending: list[tuple[str, Any, int]] = [(path, value, 0)]
    while pending:
        where, item, depth = pending.pop()
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if isinstance(item, dict):
            if depth >= MAX_DEPTH:
                raise InvalidJobError(path, f"is nested deeper than {MAX_DEPTH} levels")
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise InvalidJobError(where, f"has the key {key!r}: JSON keys are text")
                pending.append((f"{where}.{key}", inner, depth + 1))
        elif isinstance(item, list | tuple):
            if depth >= MAX_DEPTH:
                raise InvalidJobError(path, f"is nested deeper than {MAX_DEPTH} levels")
            pending.extend((f"{where}[{i}]", inner, depth + 1) for i, inner in enumerate(item))
        elif isinstance(item, int):
            if item.bit_length() > MAX_INT_DIGITS * 3:
                raise InvalidJobError(where, "is an integer of too many digits to be read back")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise InvalidJobError(where, f"is {item}, which JSON does not have")
        elif not isinstance(item, str):
            raise InvalidJobError(where, f"is a {kind.__name__}, which JSON does not have")


def _options(given: JobOptions | Mapping[str, Any] | None) -> str:
    if given is None or given == _NO_OPTIONS:
        return "{}"
    options = asdict(given) if isinstance(given, JobOptions) else dict(given)
    kept: dict[str, Any] = {}
    for name, value in options.items():
        if name not in JobOptions.__dataclass_fields__:
            raise InvalidJobError(
                f"options.{name}",
                f"is not an option; the options are {', '.join(sorted(JobOptions.__dataclass_fields__))}",
            )
        if name == "on_unknown":
            if value not in ("retry", "park"):
                raise InvalidJobError("options.on_unknown", f"must be 'retry' or 'park', not {value!r}")
        elif value is not None and _seconds(f"options.{name}", value) <= 0:
            raise InvalidJobError(f"options.{name}", f"must be more than 0 seconds, not {value}")
        if value is not None:
            kept[name] = value
    return dumps(kept)


def _priority(given: int | str) -> int:
    if isinstance(given, str):
        if given not in PRIORITIES:
            raise InvalidJobError("priority", f"must be a number or one of {', '.join(PRIORITIES)}, not {given!r}")
        return PRIORITIES[given]
    return _whole("priority", given, -1_000_000_000, 1_000_000_000)


def _name(field: str, given: Any) -> str:
    name = _text(field, given, 100)
    if name is None or "|" in name:
        raise InvalidJobError(field, f"must be text without '|', not {given!r}")
    return name


def _text(field: str, given: Any, longest: int) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not 1 <= len(given) <= longest or not storable(given):
        raise InvalidJobError(field, f"must be text of 1 to {longest} characters, not {given!r:.200}")
    return given


def _whole(field: str, given: Any, lowest: int, highest: int) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not lowest <= given <= highest:
        raise InvalidJobError(field, f"must be a whole number from {lowest} to {highest}, not {given!r:.200}")
    return int(given)


def _seconds(field: str, given: Any) -> float:
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 <= given <= _TIME_LIMIT_MS / 1000:
        raise InvalidJobError(field, f"must be a number of seconds, not {given!r:.200}")
    return given


def _milliseconds(field: str, given: Any) -> int:
    return round(_seconds(field, given) * 1000)
