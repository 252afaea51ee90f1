"""What becomes of a claimed job: one function per transition, and every one of them fenced.

Each is called inside the caller's write transaction (`with connection.write():`). The fence is `id = ? AND lease_epoch = ? AND state =
'active'`: the epoch rises at every claim and every release, so whoever lost the job, however late it wakes, changes nothing, and is told
so by False or None. The row of the transitions log is written by the database itself (`triggers.trigger_statements`).
"""

from collections.abc import Iterable
from typing import Any, Literal

from .engine import Connection
from .flows import settle_dependents
from .json_text import clean, dumps
from .ledger import STORE_RESULT, lease_stands
from .lifecycle import JobState
from .model import Lease
from .sql import Prepared

_COMPLETE = Prepared("job_store.COMPLETE")
_FAIL = Prepared("job_store.FAIL")
_RETRY = Prepared("job_store.RETRY")
_BACK = Prepared("job_store.BACK")
_STANDING = Prepared("job_store.STANDING")
_CHUNK = Prepared("job_store.CHUNK")
_PROGRESS = Prepared("job_store.PROGRESS")


def complete(c: Connection, lease: Lease, result: Any, now: int, actor: str) -> bool:
    """The job is done, with this JSON-ready result."""
    rows = c.run(_COMPLETE, {"job_id": lease.job_id, "epoch": lease.epoch, "now": now, "actor": actor})
    if not rows:
        return False
    c.change(STORE_RESULT, {"job_id": lease.job_id, "result": dumps(result), "error": None})
    awaited = rows[0][0]
    if awaited:
        settle_dependents(c, (lease.job_id,), now, actor)
    return True


def fail(c: Connection, lease: Lease, error: dict[str, Any], now: int, actor: str, reason: str) -> bool:
    """The job has failed for good, whatever attempts it had left. `error` is kept as JSON, by convention with `class` and `message`."""
    return _fail(c, lease, error, now, actor, reason, failed=1, lost=0)


def retry_later(
    c: Connection,
    lease: Lease,
    error: dict[str, Any],
    run_at: int,
    now: int,
    actor: str,
    reason: str,
    *,
    max_attempts: int | None = None,
) -> JobState | None:
    """This attempt failed: delayed until `run_at` (epoch milliseconds), or failed if it was the last. None if the lease is lost.

    The error is kept either way, so that a reader sees why the job is tried again. `max_attempts`, where given, replaces the job's own.
    """
    rows = c.run(
        _RETRY,
        {
            "job_id": lease.job_id,
            "epoch": lease.epoch,
            "run_at": run_at,
            "most": max_attempts,
            "now": now,
            "actor": actor,
            "reason": clean(reason),
        },
    )
    if not rows:
        return None
    c.change(STORE_RESULT, {"job_id": lease.job_id, "result": None, "error": dumps(error)})
    state = JobState(rows[0][0])
    if state == JobState.FAILED:
        settle_dependents(c, (lease.job_id,), now, actor)
    return state


def release(
    c: Connection,
    lease: Lease,
    *,
    cause: Literal["loss", "deferral", "handback"],
    reason: str,
    now: int,
    actor: str,
    held_by: str | None = None,
    held_until: int | None = None,
) -> JobState | None:
    """Send the job back to waiting without a failure; where it went, or None if the lease is lost.

    `cause`: its runner died ("loss", counted), a limit makes it wait ("deferral", counted; `held_by` says which and `held_until` until
    when), or the worker stops ("handback"). It fails instead where a loss convicts it as poison (it ran alone), or where it has a call
    whose outcome is now unknown and asked to be parked for that.
    """
    return take_back(c, lease, cause=cause, reason=reason, now=now, actor=actor, held_by=held_by, held_until=held_until)


def take_back(
    c: Connection,
    lease: Lease,
    *,
    cause: Literal["loss", "deferral", "handback"],
    reason: str,
    now: int,
    actor: str,
    held_by: str | None = None,
    held_until: int | None = None,
) -> JobState | None:
    """`release`, under the name the rescuer knows it by."""
    standing = c.run(_STANDING, {"job_id": lease.job_id, "epoch": lease.epoch})
    if not standing:
        return None
    alone, park = standing[0]
    lost = int(cause == "loss")
    if park:
        message = f"a call may or may not have happened when its work ended: {reason}"
        _fail(
            c,
            lease,
            {"class": "unknown_outcome", "message": message},
            now,
            actor,
            f"parked for review: {message}",
            failed=0,
            lost=lost,
        )
        return JobState.FAILED
    if alone and lost:
        message = f"its process or runner died while it ran alone: {reason}"
        _fail(c, lease, {"class": "poison", "message": message}, now, actor, f"poison: {message}", failed=0, lost=lost)
        return JobState.FAILED
    c.change(
        _BACK,
        {
            "job_id": lease.job_id,
            "epoch": lease.epoch,
            "lost": lost,
            "deferred": int(cause == "deferral"),
            "held_by": held_by,
            "held_until": held_until,
            "reason": clean(reason),
            "now": now,
            "actor": actor,
        },
    )
    return JobState.WAITING


def _fail(
    c: Connection, lease: Lease, error: dict[str, Any], now: int, actor: str, reason: str, *, failed: int, lost: int
) -> bool:
    params = {
        "job_id": lease.job_id,
        "epoch": lease.epoch,
        "failed": failed,
        "lost": lost,
        "now": now,
        "actor": actor,
        "reason": clean(reason),
    }
    if c.change(_FAIL, params) != 1:
        return False
    c.change(STORE_RESULT, {"job_id": lease.job_id, "result": None, "error": dumps(error)})
    settle_dependents(c, (lease.job_id,), now, actor)
    return True


def append_chunks(c: Connection, lease: Lease, chunks: Iterable[tuple[int, str, str]], now: int) -> bool:
    """Add pieces of streamed text: (sequence number within the lease, step, text). Adding one again changes nothing."""
    rows = [
        {"job_id": lease.job_id, "epoch": lease.epoch, "seq": seq, "step": step, "text": clean(piece), "now": now}
        for seq, step, piece in chunks
    ]
    return c.change_many(_CHUNK, rows) == len(rows) or lease_stands(c, lease)


def set_progress(c: Connection, lease: Lease, percent: int, message: str | None, now: int) -> bool:
    """Note how far the job is. Within an attempt it never goes down; outside 0 to 100 it is clamped."""
    params = {
        "job_id": lease.job_id,
        "epoch": lease.epoch,
        "percent": min(100, max(0, percent)),
        "message": None if message is None else clean(message),
        "now": now,
    }
    return c.change(_PROGRESS, params) == 1
