"""The journal of what costs money: calls, memoised steps, and the holds of limits.

A call's intent is committed before the request leaves, its outcome with what follows from it. What was spent is booked even for a lease that
was lost, because the money is gone either way. A step of a job has at most one completion for ever: the first that arrives is kept, a
later one is booked as superseded, and the unique index `llm_calls_once` stands behind that.

Every function is called inside the caller's write transaction, except the readers, which may run anywhere.
"""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import bindparam, delete, func, select, text
from sqlalchemy.dialects.sqlite import insert

from .engine import Connection
from .json_text import clean, dumps, loads
from .model import CallIntent, CallOutcome, Lease, LimitHold, Memo
from .schema import call_completions, calls, job_results, jobs, limit_holds, steps
from .sql import Prepared, lit

USAGE_COLUMNS = ("input_uncached", "cache_read", "cache_write", "output_visible", "output_reasoning")

_results = insert(job_results).values(job_id=bindparam("job_id"), result=bindparam("result"), error=bindparam("error"))
STORE_RESULT = Prepared(
    _results.on_conflict_do_update(
        index_elements=["job_id"], set_={"result": _results.excluded.result, "error": _results.excluded.error}
    )
)
"""Keep a job's result or error, in place of what an earlier attempt left."""

_STANDS = Prepared(
    select(lit(1))
    .select_from(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.lease_epoch == bindparam("epoch"), jobs.c.state == lit("active"))
)

_INTENT = Prepared(
    text("""
    INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, reserved_cost, sent_at)
    SELECT id, lease_epoch, attempt, :step, :fingerprint, :provider, :model, :limit_key, 'open', :reserved_tokens, :reserved_cost, :now
    FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    RETURNING id
    """)
)

_OUTCOME = Prepared(
    text("""
    UPDATE llm_calls SET
        state = CASE WHEN :state = 'completed' AND EXISTS (
            SELECT 1 FROM llm_calls AS first WHERE first.job_id = llm_calls.job_id AND first.step = llm_calls.step AND first.state = 'completed'
        ) THEN 'superseded' ELSE :state END,
        finished_at = :now, first_token_ms = :first_token_ms, input_uncached = :input_uncached, cache_read = :cache_read,
        cache_write = :cache_write, output_visible = :output_visible, output_reasoning = :output_reasoning, cost = :cost, finish = :finish,
        request_id = :request_id, error_class = :error_class, error = :error
    WHERE id = :call_id AND job_id = :job_id AND epoch = :epoch AND state IN ('open', 'unknown')
    RETURNING state
    """)
)

_COMPLETION = Prepared(
    insert(call_completions).values(call_id=bindparam("call_id"), completion=bindparam("completion"))
)

_STEP = Prepared(
    text("""
    INSERT INTO llm_steps (job_id, name, value, at)
    SELECT id, :name, :value, :now FROM llm_jobs WHERE id = :job_id AND lease_epoch = :epoch AND state = 'active'
    ON CONFLICT DO NOTHING
    """)
)

_ids = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
_COMPLETIONS = Prepared(
    select(calls.c.job_id, calls.c.step, call_completions.c.completion)
    .join(call_completions, call_completions.c.call_id == calls.c.id)
    .where(calls.c.job_id.in_(_ids), calls.c.state == lit("completed"))
)
_VALUES = Prepared(select(steps.c.job_id, steps.c.name, steps.c.value).where(steps.c.job_id.in_(_ids)))
_UNKNOWN = Prepared(
    select(calls.c.job_id, calls.c.step).where(calls.c.job_id.in_(_ids), calls.c.state == lit("unknown"))
)

# One call's tokens: what it used, where that is known, else what was reserved for it.
_USED = " + ".join(f"coalesce({name}, 0)" for name in USAGE_COLUMNS)
_RECENT = Prepared(
    text(f"""
    SELECT sent_at, CASE WHEN coalesce({", ".join(USAGE_COLUMNS)}) IS NULL THEN reserved_tokens ELSE {_USED} END
    FROM llm_calls WHERE limit_key = :limit_key AND sent_at >= :since ORDER BY sent_at
    """)
)

_holds = insert(limit_holds).values(
    key=bindparam("hold_key"), until=bindparam("until"), reason=bindparam("reason"), at=bindparam("now")
)
_SET_HOLD = Prepared(
    _holds.on_conflict_do_update(
        index_elements=["key"],
        set_={"until": _holds.excluded.until, "reason": _holds.excluded.reason, "at": _holds.excluded.at},
    )
)
_CLEAR_HOLD = Prepared(delete(limit_holds).where(limit_holds.c.key == bindparam("hold_key")))
_HOLDS = Prepared(select(limit_holds.c.key, limit_holds.c.until, limit_holds.c.reason))


def lease_stands(c: Connection, lease: Lease) -> bool:
    """Whether the lease is still the one that may write."""
    return bool(c.run(_STANDS, {"job_id": lease.job_id, "epoch": lease.epoch}))


def record_intent(c: Connection, lease: Lease, intent: CallIntent, now: int) -> int | None:
    """Commit that a call is about to leave. Returns the call's id, or None if the lease is lost: then it must not leave."""
    rows = c.run(
        _INTENT,
        {
            "job_id": lease.job_id,
            "epoch": lease.epoch,
            "step": intent.step,
            "fingerprint": intent.fingerprint,
            "provider": intent.provider,
            "model": intent.model,
            "limit_key": intent.limit_key,
            "reserved_tokens": intent.reserved_tokens,
            "reserved_cost": intent.reserved_cost,
            "now": now,
        },
    )
    return int(rows[0][0]) if rows else None


def record_outcome(c: Connection, lease: Lease, call_id: int, outcome: CallOutcome, now: int) -> bool:
    """Book how a call ended, always; returns whether the lease still stands.

    A completion is kept if its step has none yet, even from a lost lease; it is never overwritten. Recording an outcome twice changes nothing.
    """
    usage = outcome.usage or {}
    rows = c.run(
        _OUTCOME,
        {
            "job_id": lease.job_id,
            "epoch": lease.epoch,
            "call_id": call_id,
            "state": outcome.state,
            "now": now,
            "first_token_ms": outcome.first_token_ms,
            **{name: usage.get(name) for name in USAGE_COLUMNS},
            "cost": outcome.cost,
            "finish": outcome.finish,
            "request_id": None if outcome.request_id is None else clean(outcome.request_id),
            "error_class": outcome.error_class,
            "error": None if outcome.error is None else dumps(outcome.error),
        },
    )
    if rows and rows[0][0] == "completed":
        c.change(_COMPLETION, {"call_id": call_id, "completion": dumps(outcome.completion)})
    return lease_stands(c, lease)


def save_step(c: Connection, lease: Lease, name: str, value: Any, now: int) -> bool:
    """Keep the JSON-ready value of a handler's own step. The first value stays; returns False if the lease is lost."""
    params = {"job_id": lease.job_id, "epoch": lease.epoch, "name": name, "value": dumps(value), "now": now}
    return c.change(_STEP, params) == 1 or lease_stands(c, lease)


def memo(c: Connection, job_ids: Iterable[int]) -> dict[int, Memo]:
    """What earlier attempts of these jobs have paid for or done; every id asked for is in the answer."""
    wanted = list(job_ids)
    ids = {"ids": json.dumps(wanted)}
    completions: dict[int, dict[str, dict[str, Any]]] = {job_id: {} for job_id in wanted}
    for job_id, step, completion in c.run(_COMPLETIONS, ids):
        completions[job_id][step] = loads(completion)
    values: dict[int, dict[str, Any]] = {job_id: {} for job_id in wanted}
    for job_id, name, value in c.run(_VALUES, ids):
        values[job_id][name] = loads(value)
    unknown: dict[int, set[str]] = {job_id: set() for job_id in wanted}
    for job_id, step in c.run(_UNKNOWN, ids):
        unknown[job_id].add(step)
    return {
        job_id: Memo(
            completions=completions[job_id],
            values=values[job_id],
            unknown=frozenset(unknown[job_id] - completions[job_id].keys()),
        )
        for job_id in wanted
    }


def recent_usage(c: Connection, limit_key: str, since: int) -> list[tuple[int, int]]:
    """The calls charged to a limit key since then, oldest first: (sent at, epoch ms; tokens used, or reserved where that is not known)."""
    return [(sent_at, tokens) for sent_at, tokens in c.run(_RECENT, {"limit_key": limit_key, "since": since})]


def set_hold(c: Connection, key: str, until: int, reason: str, now: int) -> None:
    """Keep through restarts that a limit key admits nothing before `until`."""
    c.change(_SET_HOLD, {"hold_key": key, "until": until, "reason": clean(reason), "now": now})


def clear_hold(c: Connection, key: str) -> None:
    """The key is no longer held."""
    c.change(_CLEAR_HOLD, {"hold_key": key})


def holds(c: Connection) -> list[LimitHold]:
    """Every hold on record, also those that have passed."""
    return [LimitHold(*row) for row in c.run(_HOLDS)]
