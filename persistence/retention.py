"""Letting go of what ended long ago: in small steps, so that nobody waits for it.

A job goes with its data, result, calls, text and log; what its calls used stays in the totals (`llm_usage_deleted`, by trigger). Nothing that is
live goes, and nothing that a live job waits on. A job that is gone is gone with its `key`: adding that again makes a new job.
"""

import json
from collections.abc import Iterable

from .engine import Connection
from .lifecycle import TERMINAL_STATES, JobState
from .sql import Prepared

_ENDED = Prepared("retention.ENDED")
_DELETE = Prepared("search.DELETE")

STEP_JOBS = 200
STEP_ROWS = 2000
"""Rows that go in one transaction, about; a job goes whole."""

Place = tuple[int, int]
"""When a job ended and its id: where a walk through what has ended stands."""
BEGINNING: Place = (-1, -1)


def ended(
    c: Connection, before: int, *, after: Place = BEGINNING, states: Iterable[JobState] = TERMINAL_STATES
) -> tuple[list[int], Place]:
    """The next jobs that ended before a time (epoch milliseconds), for one step, and the place reached. Reads only."""
    found = c.run(
        _ENDED,
        {
            "before": before,
            "at": after[0],
            "job_id": after[1],
            "states": json.dumps(sorted(states)),
            "limit": STEP_JOBS,
        },
    )
    ids: list[int] = []
    rows = 0
    for job_id, finished_at, weight in found:
        if ids and rows + weight > STEP_ROWS:
            break
        ids.append(job_id)
        rows += weight
        after = (finished_at, job_id)
    return ids, after


def delete(c: Connection, ids: Iterable[int]) -> int:
    """Delete these jobs, but those that are live or waited on by now. Returns how many went. In the caller's write transaction."""
    return c.change(_DELETE, {"ids": json.dumps(list(ids))})


def prune(c: Connection, before: int) -> int:
    """One step: delete some jobs that ended before a time. Returns how many. In the caller's write transaction."""
    ids, _ = ended(c, before)
    return delete(c, ids) if ids else 0
