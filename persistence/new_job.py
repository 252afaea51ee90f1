"""A job to be added, and what makes one acceptable. Pure: no database, no clock of its own.

What the host gives is checked before anything is written, and every refusal names the field and the path into it, because the fault is
the host's to find. Only what JSON can give back exactly is taken: no NaN, no keys that are not text, no objects that would become text.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
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
_EARLIEST_MS = 10**11  # in 1973: a smaller number is seconds
_NO_OPTIONS = JobOptions()
_CHOICES = {"on_unknown": ("retry", "park"), "latency": ("now", "batch")}
MAX_BUDGET = 1e9
"""Dollars: in nano-dollars still well within an integer of the database."""
_WAITING, _DELAYED = str(JobState.WAITING), str(JobState.DELAYED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a host says of a job it adds. Only `type` is required.

    `data`: JSON-ready (None: an empty object). `model`: an alias or name the worker knows, None: the worker's default. `priority`: higher
    runs first, a number or one of `PRIORITIES`. `key`: at most one job ever has it. `tag`: what usage is grouped by. `delay` in seconds or
    `run_at` in epoch milliseconds, not both: not before then. `unique`, `debounce`, `throttle`: see `persistence.identity`; one of them at
    most. `start_within` in seconds, from when it may run: if nobody has started it by
    then, it fails. `max_attempts`: how many failures end it. `group`: jobs that share it take turns with other groups, and no more than `group_limit` of
    them are ever worked on at once. `requires`: the capabilities a runner must have (`tags` in the worker's configuration).
    `conversation`: the name of the one that this is a turn of; it is made if there is none. Turns run one at a time, in the order they were added.
    """

    type: str
    data: Any = None
    model: str | None = None
    queue: str = "default"
    priority: int | str = 0
    key: str | None = None
    unique: str | None = None
    debounce: tuple[str, float] | None = None
    throttle: tuple[str, float] | None = None
    tag: str | None = None
    description: str | None = None
    delay: float | None = None
    run_at: int | None = None
    start_within: float | None = None
    max_attempts: int = 3
    group: str | None = None
    group_limit: int | None = None
    requires: Sequence[str] = ()
    conversation: str | None = None
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
    unique_key, window_ms = _identity(job)
    run_at = now + window_ms if job.debounce is not None else _start_of(job, now)
    due = now if run_at is None else run_at
    row = {
        "key": _text("key", job.key, 200),
        "unique_key": unique_key,
        "window_ms": window_ms,
        "type": _name("type", job.type),
        "queue": _name("queue", job.queue),
        "model": None if job.model is None else _name("model", job.model, 200),
        "requires": _requires(job.requires),
        "group_key": _text("group", job.group, 200),
        "group_limit": _group_limit(job),
        "tag": _text("tag", job.tag, 200),
        "state": _WAITING if run_at is None else _DELAYED,
        "priority": _priority(job.priority),
        "run_at": run_at,
        "start_by": None if job.start_within is None else due + _milliseconds("start_within", job.start_within),
        "max_attempts": _whole("max_attempts", job.max_attempts, 1, 1000),
        "conversation": _conversation(job),
        "created_at": now,
        "changed_by": "host",
    }
    if job.description is not None and not (isinstance(job.description, str) and storable(job.description)):
        raise InvalidJobError("description", "must be text")
    return row, {"description": job.description, "data": _body(job.data), "options": _options(job.options)}


DEBOUNCE, THROTTLE = "debounce:", "throttle:"
"""What the `unique_key` of such a job begins with, so that the three kinds never meet."""


def _identity(job: NewJob) -> tuple[str | None, int]:
    """The job's `unique_key`, and the milliseconds of its window."""
    given = [name for name in ("unique", "debounce", "throttle") if getattr(job, name) is not None]
    if len(given) > 1:
        raise InvalidJobError(given[1], f"cannot be given together with {given[0]}")
    if job.debounce is not None:
        for name in ("key", "delay", "run_at"):
            if getattr(job, name) is not None:
                raise InvalidJobError("debounce", f"cannot be given together with {name}")
        return _window("debounce", DEBOUNCE, job.debounce)
    if job.throttle is not None:
        return _window("throttle", THROTTLE, job.throttle)
    if job.unique is not None and str(job.unique).startswith((DEBOUNCE, THROTTLE)):
        raise InvalidJobError("unique", f"may not begin with {DEBOUNCE!r} or {THROTTLE!r}, which name other things")
    return _text("unique", job.unique, 200), 0


def _window(field: str, prefix: str, given: Any) -> tuple[str, int]:
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise InvalidJobError(field, f"must be a pair of a name and seconds, not {given!r:.200}")
    name, window = _text(field, given[0], 180), _milliseconds(field, given[1])
    if name is None or window <= 0:
        raise InvalidJobError(field, f"must be a pair of a name and seconds above 0, not {given!r:.200}")
    return prefix + name, window


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


def _conversation(job: NewJob) -> str | None:
    if job.conversation is not None and job.debounce is not None:
        raise InvalidJobError("conversation", "cannot be given together with debounce: a turn keeps its place")
    return _text("conversation", job.conversation, 200)


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
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                raise InvalidJobError(
                    f"options.{name}", f"must be {' or '.join(map(repr, _CHOICES[name]))}, not {value!r}"
                )
        elif name == "deadline":
            if value is not None:
                _whole("options.deadline", value, 0, _TIME_LIMIT_MS)
                if value < _EARLIEST_MS:
                    raise InvalidJobError(
                        "options.deadline",
                        f"is a time in epoch milliseconds, not seconds from now: {value} was in 1970",
                    )
        elif name == "budget":
            if value is not None and not (_number(value) and 0 < value <= MAX_BUDGET):
                raise InvalidJobError(
                    "options.budget", f"must be dollars, above 0 and at most {MAX_BUDGET:g}, not {value!r}"
                )
        elif name == "cache":
            if value is not None:
                _seconds("options.cache", value)
        elif value is not None and _seconds(f"options.{name}", value) <= 0:
            raise InvalidJobError(f"options.{name}", f"must be more than 0 seconds, not {value}")
        if value is not None:
            kept[name] = value
    return dumps(kept)


def _number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


def _priority(given: int | str) -> int:
    if isinstance(given, str):
        if given not in PRIORITIES:
            raise InvalidJobError("priority", f"must be a number or one of {', '.join(PRIORITIES)}, not {given!r}")
        return PRIORITIES[given]
    return _whole("priority", given, -1_000_000_000, 1_000_000_000)


def queue_name(given: Any) -> str:
    """What may be the name of a queue. Raises InvalidJobError."""
    return _name("queue", given)


def schedule_name(given: Any) -> str:
    """The name of a schedule. Raises InvalidJobError."""
    return _name("name", given)


def _name(field: str, given: Any, longest: int = 100) -> str:
    name = _text(field, given, longest)
    if name is None or "|" in name:
        raise InvalidJobError(field, f"must be text without '|', not {given!r}")
    return name


def _group_limit(job: NewJob) -> int | None:
    if job.group_limit is None:
        return None
    if job.group is None:
        raise InvalidJobError("group_limit", "limits a group, but the job names none")
    return _whole("group_limit", job.group_limit, 1, 1_000_000_000)


def _requires(given: Any) -> str | None:
    """Sorted, so that what needs the same is one lane."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidJobError("requires", f"must be a list of names, not {given!r:.200}")
    names = set()
    for name in given:
        if "," in _name("requires", name):
            raise InvalidJobError("requires", f"must be names without ',', not {name!r}")
        names.add(name)
    joined = ",".join(sorted(names))
    if len(joined) > 200:
        raise InvalidJobError("requires", f"takes {len(joined)} characters in all, more than 200")
    return joined or None


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
