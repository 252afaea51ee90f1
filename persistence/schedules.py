"""Jobs that recur: what a host says of them, and the worker's part, which adds a job for each occurrence that is due.

An occurrence is one job, because its job's key is `schedule:NAME:TIME`: two workers, a restart in the middle and a clock that is set back all
come to the same job. The times are the schedule's, not those at which somebody looked.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .engine import Connection
from .errors import DatabaseRefusedError, InvalidJobError
from .json_text import dumps, loads
from .occurrences import Rhythm
from .sql import Prepared

logger = logging.getLogger(__name__)

_LIST = Prepared("schedules.LIST")
_ONE = Prepared("schedules.ONE")
_DUE = Prepared("schedules.DUE")
_RUNNING = Prepared("schedules.RUNNING")
_PUT = Prepared("schedules.PUT")
_REMOVE = Prepared("schedules.REMOVE")
_PAUSE = Prepared("schedules.PAUSE")
_RESUME = Prepared("schedules.RESUME")
_FIRED = Prepared("schedules.FIRED")
_REARM = Prepared("schedules.REARM")

CATCH_UP_LIMIT = 100
"""Missed occurrences of one schedule that are made up for in one pass; the others come with the next."""
PASS_LIMIT = 200
"""Occurrences after which a pass ends, so that it is a short transaction."""
_UNREADABLE = (InvalidJobError, DatabaseRefusedError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as it stands. Times in epoch milliseconds, `every` in seconds.

    `job`: the fields of the jobs it adds. `next_at`: when the next is due. `last_at`: the newest occurrence that was added. `paused_at`:
    since when it rests; `problem` says why if a worker paused it.
    """

    name: str
    cron: str | None
    every: float | None
    timezone: str
    catch_up: str
    job: dict[str, Any]
    next_at: int
    last_at: int | None
    paused_at: int | None
    problem: str | None
    created_at: int


def put(c: Connection, name: str, rhythm: Rhythm, catch_up: str, job: Mapping[str, Any], now: int) -> Schedule:
    """Make a schedule or change it; one whose rhythm stays keeps its next time. Raises InvalidJobError, which names the field."""
    from .new_job import schedule_name

    schedule_name(name)
    if (rhythm.cron is None) == (rhythm.every_ms is None):
        raise InvalidJobError("cron", "or every must be given, and not both")
    if rhythm.every_ms is not None and rhythm.every_ms < 1000:
        raise InvalidJobError("every", "must be at least 1 second")
    if catch_up not in ("latest", "all"):
        raise InvalidJobError("catch_up", f"must be 'latest' or 'all', not {catch_up!r}")
    stored = dict(job)
    options = stored.get("options")
    if options is not None and not isinstance(options, Mapping):
        stored["options"] = asdict(options)
    _rows(name, stored, now, now)
    next_at = rhythm.following(now, now)
    c.change(
        _PUT,
        {
            "name": name,
            "cron": rhythm.cron,
            "every_ms": rhythm.every_ms,
            "timezone": rhythm.timezone,
            "catch_up": catch_up,
            "job": dumps(stored),
            "next_at": next_at,
            "created_at": now,
        },
    )
    return _schedule(c.run(_ONE, {"name": name})[0])


def remove(c: Connection, name: str) -> bool:
    """Forget a schedule; the jobs it added stay. False if there is none of this name."""
    return c.change(_REMOVE, {"wanted": name}) == 1


def pause(c: Connection, name: str, now: int, problem: str | None = None) -> bool:
    """Let it rest. False if there is none of this name."""
    return c.change(_PAUSE, {"wanted": name, "now": now, "problem": problem}) == 1


def resume(c: Connection, name: str, now: int) -> bool:
    """Let it go on with the next occurrence from now; what was due in between is not made up for. False if there is none of this name."""
    for row in c.run(_ONE, {"name": name}):
        found = _schedule(row)
        c.change(_RESUME, {"wanted": name, "next": _rhythm(found).following(now, found.next_at)})
        return True
    return False


def listing(c: Connection) -> list[Schedule]:
    """All schedules by name."""
    return [_schedule(row) for row in c.run(_LIST)]


def fire_due(c: Connection, now: int, *, limit: int = 50) -> int:
    """Add the jobs of what is due, for `limit` schedules at most. Returns how many occurrences there were.

    A schedule that cannot be read (somebody wrote it by SQL, or this machine does not know its time zone) is paused with the reason, so that it
    is in nobody's way.
    """
    fired = 0
    for row in c.run(_DUE, {"now": now, "limit": limit}):
        if fired >= PASS_LIMIT:
            break
        name = row[0]
        try:
            fired += _fire(c, _schedule(row), now)
        except _UNREADABLE as error:
            logger.error("schedule %r is paused: %s", name, error)  # noqa: TRY400  # no bug of ours
            pause(c, name, now, str(error))
    return fired


def _fire(c: Connection, schedule: Schedule, now: int) -> int:
    from .host_store import add

    rhythm = _rhythm(schedule)
    if schedule.catch_up == "all":
        due = rhythm.due(schedule.next_at, now, CATCH_UP_LIMIT)
    else:
        due = [rhythm.latest(schedule.next_at, now)]
    after = rhythm.following(due[-1], schedule.next_at)
    for row, data in [_rows(schedule.name, schedule.job, at, now) for at in due]:
        add(c, row, data)
    c.change(_FIRED, {"wanted": schedule.name, "next": after, "fired": due[-1]})
    return len(due)


def rearm(c: Connection, now: int) -> int:
    """After the clock was set back: what was put off to a time that is now far away becomes due in its turn. Returns how many were.

    What had been added already is not added again, because its job has the key.
    """
    rearmed = 0
    for row in c.run(_RUNNING):
        try:
            schedule = _schedule(row)
            due = _rhythm(schedule).following(now, schedule.next_at)
        except _UNREADABLE:
            continue  # it is paused when it is due
        rearmed += c.change(_REARM, {"wanted": schedule.name, "next": due})
    return rearmed


def _rows(name: str, job: Any, at: int, now: int) -> tuple[dict[str, Any], dict[str, Any]]:
    from .new_job import as_new_job, rows_of

    if not isinstance(job, Mapping):
        raise InvalidJobError("job", "must be an object with the fields of a job")
    for field in ("key", "delay", "run_at", "debounce"):
        if job.get(field) is not None:
            raise InvalidJobError(field, "cannot be given for a schedule, which decides when its jobs run")
    row, data = rows_of(as_new_job({**job, "key": f"schedule:{name}:{at}"}), now)
    return {**row, "changed_by": "schedule"}, data


def _rhythm(schedule: Schedule) -> Rhythm:
    every_ms = None if schedule.every is None else round(schedule.every * 1000)
    return Rhythm(schedule.cron, every_ms, schedule.timezone)


def _schedule(row: Sequence[Any]) -> Schedule:
    name, cron, every_ms, timezone, catch_up, job, next_at, last_at, paused_at, problem, created_at = row
    return Schedule(
        name=name,
        cron=cron,
        every=None if every_ms is None else every_ms / 1000,
        timezone=timezone,
        catch_up=catch_up,
        job=loads(job),
        next_at=next_at,
        last_at=last_at,
        paused_at=paused_at,
        problem=problem,
        created_at=created_at,
    )
