"""Queues and what is known of them without reading their jobs: pausing, counters kept by triggers, and a job's place.

A paused queue's jobs are not claimed; those that are being worked on go on. Pausing is one row that every claim looks at, so it holds from the
moment it is committed, in every worker.
"""

from .engine import Connection
from .lifecycle import JobState
from .model import JobRow, LimitHold, QueueStatus
from .new_job import queue_name
from .sql import Prepared
from .wording import when

_PAUSE = Prepared("queues.PAUSE")
_RESUME = Prepared("queues.RESUME")
_PAUSED_AT = Prepared("queues.PAUSED_AT")
_QUEUES = Prepared("queues.QUEUES")
_COUNTS = Prepared("queues.COUNTS")
_MISCOUNTED = Prepared("queues.MISCOUNTED")
_RECOUNT = Prepared("queues.RECOUNT")
_AHEAD = Prepared("queues.AHEAD")
_WORKED_ON = Prepared("queues.WORKED_ON")
_LANE_NOTE = Prepared("queues.LANE_NOTE")


def pause(c: Connection, name: str, now: int) -> bool:
    """Claim no more jobs of this queue, which need not exist yet. False if it was paused. Raises InvalidJobError for what is no queue's name."""
    return c.change(_PAUSE, {"name": queue_name(name), "now": now}) == 1


def resume(c: Connection, name: str) -> bool:
    """Claim its jobs again. False if it was not paused. Raises InvalidJobError."""
    return c.change(_RESUME, {"name": queue_name(name)}) == 1


def paused_at(c: Connection, name: str) -> int | None:
    """Since when it is paused (epoch milliseconds), None if it is not."""
    rows = c.run(_PAUSED_AT, {"name": name})
    return rows[0][0] if rows else None


def queues(c: Connection) -> list[QueueStatus]:
    """Every queue that has jobs or was ever paused, by name. Reads counters, not jobs."""
    jobs: dict[str, dict[JobState, int]] = {}
    paused: dict[str, int | None] = {}
    for name, state, value in c.run(_QUEUES):
        counts = jobs.setdefault(name, dict.fromkeys(JobState, 0))
        if state is None:
            paused[name] = value
        else:
            counts[JobState(state)] = value
    return [QueueStatus(name, paused.get(name), counts) for name, counts in sorted(jobs.items())]


def counts(c: Connection) -> list[tuple[str, JobState, int]]:
    """How many jobs of each type are in each state, where there are any. Reads counters, not jobs."""
    return [(kind, JobState(state), count) for kind, state, count in c.run(_COUNTS)]


def count_problems(c: Connection) -> list[str]:
    """Counters that do not say how many jobs there are, in sentences. Reads every job."""
    return [
        f"the counter of {state} jobs of type {kind!r} in queue {queue!r} says {kept}, but there are {counted}"
        for queue, kind, state, kept, counted in c.run(_MISCOUNTED)
    ]


def recount(c: Connection) -> int:
    """Set every counter that is wrong to what there is. Returns how many were. Reads every job."""
    wrong = c.run(_MISCOUNTED)
    c.change_many(
        _RECOUNT,
        [{"queue": queue, "type": kind, "state": state, "jobs": counted} for queue, kind, state, _, counted in wrong],
    )
    return len(wrong)


def why_waiting(c: Connection, row: JobRow, now: int) -> str:
    """Why a waiting job that is not held itself has not been claimed: its queue, a hold of its model's key, its group, or those ahead of it."""
    from . import routes

    if paused_at(c, row.queue) is not None:
        return f"its queue {row.queue!r} is paused"
    note = row.held_by
    if note is None and (found := c.run(_LANE_NOTE, {"job_id": row.id})):
        note = found[0][0]
    if note is not None:
        return f"no worker takes it: {note}"
    if found_holds := routes.held(c, row, now):
        return _told_of(found_holds)
    if row.group_key is not None and row.group_limit is not None:
        worked_on = c.run(_WORKED_ON, {"group_key": row.group_key})[0][0]
        if worked_on >= row.group_limit:
            return f"its group {row.group_key!r} has {worked_on} jobs in work, and its limit is {row.group_limit}"
    ahead = c.run(_AHEAD, {"job_id": row.id})[0][0]
    suspect = f"; it was in flight when workers died ({row.losses} times)" if row.losses else ""
    return f"waiting for a free runner, {ahead}{' or more' if ahead >= 1000 else ''} like it ahead{suspect}"


def _told_of(holds: list[LimitHold]) -> str:
    """Of the model's own key, then of those that the job would go on to."""
    own, *others = holds
    also = "".join(
        f"; {one.key}, to which it would go on, is too, until {when(one.until)} ({one.kind})" for one in others
    )
    lift = next((one.key for one in holds if one.kind in ("auth", "quota")), None)
    hint = "" if lift is None else f"; put that right, then: callboard limits --resume {lift}"
    return f"the limit key of its model, {own.key}, is on hold since {when(own.at)} until {when(own.until)} ({own.kind}): {own.reason}{also}{hint}"
