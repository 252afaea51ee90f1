"""The statements of the host's side: adding jobs, reading them, and the few moves a host may make.

Functions over a connection, like the worker's, so that `JobQueue` is only about connections, threads and waiting.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from . import conversations, flows, identity
from .engine import Connection
from .json_text import loads
from .lifecycle import JobState
from .model import CallRecord, Chunk, JobRow, Transition, UsageTotals
from .queues import count_problems
from .sql import Prepared

_ADD = Prepared("host_store.ADD")
_ADD_ONCE = Prepared("host_store.ADD_ONCE")
_ADD_AS = Prepared("host_store.ADD_AS")
_ADD_DATA = Prepared("host_store.ADD_DATA")
_BY_KEY = Prepared("host_store.BY_KEY")
_BY_KEYS = Prepared("host_store.BY_KEYS")
_LAST_ID = Prepared("host_store.LAST_ID")
_ROW = Prepared("host_store.ROW")
_BODY = Prepared("host_store.BODY")
_RESULT = Prepared("host_store.RESULT")
_LEASE = Prepared("host_store.LEASE")
_CANCEL = Prepared("host_store.CANCEL")
_RETRY = Prepared("host_store.RETRY")
_IS_PARKED = Prepared("host_store.IS_PARKED")
_REVIEWED = Prepared("host_store.REVIEWED")
_PROMOTE = Prepared("host_store.PROMOTE")
_DUPLICATE = Prepared("host_store.DUPLICATE")
_DUPLICATE_DATA = Prepared("host_store.DUPLICATE_DATA")
_PARKED = Prepared("host_store.PARKED")
_DISMISS = Prepared("host_store.DISMISS")
_JOB_LOG = Prepared("host_store.JOB_LOG")
_CALLS = Prepared("host_store.CALLS")
_CHUNKS = Prepared("host_store.CHUNKS")
_ALL_CHUNKS = Prepared("host_store.ALL_CHUNKS")
_USAGE = Prepared("host_store.USAGE")
_USAGE_OF_TAG = Prepared("host_store.USAGE_OF_TAG")
_STATE_AT = [field.name for field in fields(JobRow)].index("state")


def add(c: Connection, row: Mapping[str, Any], data: Mapping[str, Any]) -> int:
    """Add one job; the id of the one that it comes to, if there is one (see `identity`)."""
    if row["unique_key"] is not None:
        found = by_key(c, row["key"]) or identity.find(c, row, data)
        if found is not None:
            return found
    if row["conversation"] is not None:
        conversations.ensure(c, row["conversation"], row["created_at"])
    if row["key"] is None:
        job_id: int = c.run(_ADD, row)[0][0]
    else:
        added = c.run(_ADD_ONCE, row)
        if not added:
            return int(c.run(_BY_KEY, {"wanted": row["key"]})[0][0])
        job_id = added[0][0]
    c.change(_ADD_DATA, {"job_id": job_id, **data})
    return job_id


def by_key(c: Connection, key: str | None) -> int | None:
    """The job with this key, if there is one."""
    rows = [] if key is None else c.run(_BY_KEY, {"wanted": key})
    return int(rows[0][0]) if rows else None


def add_many(c: Connection, rows: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[int]:
    """Add many. Ids in the order given."""
    ids: list[int] = []
    for alone, group in itertools.groupby(rows, lambda new: new[0]["unique_key"] is not None):
        if alone:
            ids += [add(c, row, data) for row, data in group]
        else:
            ids += _add_at_once(c, list(group))
    return ids


def _add_at_once(c: Connection, rows: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[int]:
    """Many whose ids are reserved ahead, so that each table takes one statement run many times."""
    keys = [row["key"] for row, _ in rows if row["key"] is not None]
    known: dict[str, int] = dict(c.run(_BY_KEYS, {"keys": json.dumps(keys)})) if keys else {}
    next_id = c.run(_LAST_ID)[0][0] + 1
    ids: list[int] = []
    new_rows, new_data = [], []
    for row, data in rows:
        key = row["key"]
        if key is not None and key in known:
            ids.append(known[key])
            continue
        if key is not None:
            known[key] = next_id
        new_rows.append({**row, "id": next_id})
        new_data.append({**data, "job_id": next_id})
        ids.append(next_id)
        next_id += 1
    for name, at in {
        row["conversation"]: row["created_at"] for row in new_rows if row["conversation"] is not None
    }.items():
        conversations.ensure(c, name, at)
    if new_rows:
        c.change_many(_ADD_AS, new_rows)
        c.change_many(_ADD_DATA, new_data)
    return ids


def _job_row(row: Sequence[Any]) -> JobRow:
    values = list(row)
    values[_STATE_AT] = JobState(values[_STATE_AT])
    return JobRow(**dict(zip(JobRow.__dataclass_fields__, values, strict=True)))


def job_row(c: Connection, job_id: int) -> JobRow | None:
    """The job, or None."""
    rows = c.run(_ROW, {"job_id": job_id})
    return _job_row(rows[0]) if rows else None


def body(c: Connection, job_id: int) -> tuple[str | None, Any, dict[str, Any]]:
    """Description, data and options of a job."""
    rows = c.run(_BODY, {"job_id": job_id})
    return (rows[0][0], loads(rows[0][1]), loads(rows[0][2])) if rows else (None, {}, {})


def result(c: Connection, job_id: int) -> tuple[Any, dict[str, Any] | None]:
    """Result and error of a job, each None where there is none."""
    rows = c.run(_RESULT, {"job_id": job_id})
    if not rows:
        return None, None
    found, error = rows[0]
    return (None if found is None else loads(found)), (None if error is None else loads(error))


def holder(c: Connection, job_id: int) -> tuple[str | None, int | None]:
    """Who holds the job's lease, and until when."""
    rows = c.run(_LEASE, {"job_id": job_id})
    return (rows[0][0], rows[0][1]) if rows else (None, None)


def cancel(c: Connection, job_id: int, reason: str, now: int) -> bool:
    """Cancel a job that has not ended; whoever works on it has lost its lease. False if it had ended."""
    return cancel_all(c, (job_id,), reason, now) == 1


def cancel_all(c: Connection, job_ids: Sequence[int], reason: str, now: int) -> int:
    """Cancel those of these jobs that have not ended, before anyone who waits on one of them is told. Returns how many there were."""
    cancelled = c.change_many(_CANCEL, [{"job_id": job_id, "reason": reason, "now": now} for job_id in job_ids])
    if cancelled:
        flows.abandon(c, job_ids)
        flows.settle_dependents(c, job_ids, now, "host")
    return cancelled


def retry(c: Connection, job_id: int, reason: str, now: int) -> bool:
    """Send a failed or cancelled job back to waiting, its counters at zero; what its steps completed stays paid for.

    False if it is neither, or if another live job has taken its place (`unique`).
    """
    if c.change(_RETRY, {"job_id": job_id, "reason": reason, "now": now}) != 1:
        return False
    flows.wait_again(c, job_id, now)
    return True


def retry_parked(c: Connection, job_id: int, reason: str, now: int) -> bool:
    """Send a parked job back, and let it make the calls again whose outcome is unknown. False if it is not parked."""
    if not c.run(_IS_PARKED, {"wanted": job_id}) or not retry(c, job_id, reason, now):
        return False
    c.change(_REVIEWED, {"wanted": job_id})
    return True


def promote(c: Connection, job_id: int, reason: str, now: int) -> bool:
    """Let a delayed job run now, or have a batch looked at whose driving job waits for its next look. False if it is neither."""
    return c.change(_PROMOTE, {"job_id": job_id, "reason": reason, "now": now}) == 1


def duplicate(c: Connection, job_id: int, now: int) -> int | None:
    """Add a job that is to do what this one was to do; None if there is no such job. It has neither its key nor its place in anything."""
    rows = c.run(_DUPLICATE, {"job_id": job_id, "now": now})
    if not rows:
        return None
    made = int(rows[0][0])
    c.change(_DUPLICATE_DATA, {"job_id": made, "wanted": job_id})
    return made


def parked(c: Connection, limit: int) -> list[JobRow]:
    """Jobs that failed because it is not known whether a call of theirs was done, and that nobody has decided on; newest first."""
    return [_job_row(row) for row in c.run(_PARKED, {"limit": limit})]


def dismiss(c: Connection, job_id: int, now: int) -> bool:
    """A parked job stays failed: somebody has looked. False if it is not parked."""
    return c.change(_DISMISS, {"wanted": job_id, "now": now}) == 1


def transitions_of(c: Connection, job_id: int) -> list[Transition]:
    """A job's log, oldest first."""
    names = tuple(Transition.__dataclass_fields__)
    found = (dict(zip(names, row, strict=True)) for row in c.run(_JOB_LOG, {"wanted": job_id}))
    return [
        Transition(
            **{
                **t,
                "from_state": None if t["from_state"] is None else JobState(t["from_state"]),
                "to_state": JobState(t["to_state"]),
            }
        )
        for t in found
    ]


def calls_of(c: Connection, job_id: int) -> list[CallRecord]:
    """A job's calls, oldest first."""
    names = tuple(CallRecord.__dataclass_fields__)
    found = (dict(zip(names, row, strict=True)) for row in c.run(_CALLS, {"wanted": job_id}))
    return [CallRecord(**{**call, "error": None if call["error"] is None else loads(call["error"])}) for call in found]


def chunks_after(c: Connection, job_id: int, epoch: int, seq: int) -> list[Chunk]:
    """The next chunks (500 at most) of the newest epoch that has any, after that place."""
    return [
        Chunk(epoch=e, seq=s, step=step, text=piece, at=at, restarted=not piece)
        for e, s, step, piece, at in c.run(_CHUNKS, {"job_id": job_id, "epoch": epoch, "seq": seq})
    ]


def all_chunks(c: Connection, job_id: int) -> list[Chunk]:
    """Every chunk of every epoch, oldest first."""
    return [
        Chunk(epoch=e, seq=s, step=step, text=piece, at=at, restarted=not piece)
        for e, s, step, piece, at in c.run(_ALL_CHUNKS, {"wanted": job_id})
    ]


def listing(c: Connection, limit: int, wanted: Mapping[str, Any]) -> list[JobRow]:
    """Jobs by equal `state`, `type`, `tag`, `queue` and `before` an id, newest first."""
    params = {f"{name}_wanted": value for name, value in wanted.items()}
    from .statements.listing import (
        listing_sql,  # put together at run time, so it needs SQLAlchemy: hosts only, and only then
    )

    return [_job_row(row) for row in c.run(Prepared.of(listing_sql(frozenset(wanted))), {**params, "limit": limit})]


def rows_by(c: Connection, sql: str, params: Mapping[str, Any]) -> list[JobRow]:
    """The jobs of a search: `sql` selects the columns of a `JobRow`."""
    return [_job_row(row) for row in c.run(Prepared.of(sql), params)]


def usage(c: Connection, tag: str | None) -> UsageTotals:
    """What calls have used, of everything or of the jobs of one tag."""
    row = (c.run(_USAGE) if tag is None else c.run(_USAGE_OF_TAG, {"tag": tag}))[0]
    calls, *used, cost, unpriced = row
    return UsageTotals(calls or 0, *(tokens or 0 for tokens in used), cost, unpriced or 0)  # type: ignore[call-arg]  # all of them


def problems(c: Connection) -> list[str]:
    """What is wrong with the board, in sentences; an empty list is a healthy one. Reads everything."""
    found = [f"quick_check: {line}" for (line,) in c.script("PRAGMA quick_check") if line != "ok"]
    found += [
        f"{table} row {rowid} belongs to a row of {parent} that does not exist"
        for table, rowid, parent, _ in c.script("PRAGMA foreign_key_check")
    ]
    for sentence, sql in _CHECKS:
        found += [sentence.format(*row) for row in c.script(sql)]
    return found + count_problems(c)


_CHECKS = (
    (
        "job {} is {}, but its log ends in {}",
        """SELECT id, state, last FROM (SELECT id, state, (SELECT to_state FROM llm_job_transitions WHERE job_id = llm_jobs.id ORDER BY id DESC LIMIT 1)
        AS last FROM llm_jobs) WHERE last IS NOT state LIMIT 100""",
    ),
    (
        "job {} is completed without a result",
        """SELECT id FROM llm_jobs WHERE state = 'completed' AND NOT EXISTS
        (SELECT 1 FROM llm_job_results WHERE job_id = llm_jobs.id AND result IS NOT NULL) LIMIT 100""",
    ),
    (
        "call {} of job {} is open, but the job is {}",
        """SELECT llm_calls.id, llm_jobs.id, llm_jobs.state FROM llm_calls JOIN llm_jobs ON llm_jobs.id = llm_calls.job_id
        WHERE llm_calls.state = 'open' AND llm_jobs.state <> 'active' LIMIT 100""",
    ),
    (
        "call {} of job {} completed, but its completion is missing",
        """SELECT id, job_id FROM llm_calls WHERE state = 'completed' AND NOT EXISTS
        (SELECT 1 FROM llm_call_completions WHERE call_id = llm_calls.id) LIMIT 100""",
    ),
)
