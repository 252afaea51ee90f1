"""The journal of what costs money: calls and memoised steps.

A call's intent is committed before the request leaves, its outcome with what follows from it. What was spent is booked even for a lease that
was lost, because the money is gone either way. A step of a job has at most one completion for ever: the first that arrives is kept, a
later one is booked as superseded, and the unique index `llm_calls_once` stands behind that.

Every function is called inside the caller's write transaction, except the readers, which may run anywhere.
"""

import json
from collections.abc import Iterable
from typing import Any

from . import batch_memo, budgets, handles
from .engine import Connection
from .json_text import clean, dumps, loads
from .model import USAGE_COLUMNS, CallIntent, CallOutcome, Lease, Memo
from .sql import Prepared

STORE_RESULT = Prepared("ledger.STORE_RESULT")
_STANDS = Prepared("ledger.STANDS")
_INTENT = Prepared("ledger.INTENT")
_OUTCOME = Prepared("ledger.OUTCOME")
_COMPLETION = Prepared("ledger.COMPLETION")
_STEP = Prepared("ledger.STEP")
_COMPLETIONS = Prepared("ledger.COMPLETIONS")
_VALUES = Prepared("ledger.VALUES")
_UNKNOWN = Prepared("ledger.UNKNOWN")
_FIRST = Prepared("ledger.FIRST")

"""Keep a job's result or error, in place of what an earlier attempt left."""


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
            "reserved_input": intent.reserved_input,
            "reserved_output": intent.reserved_output,
            "requests": intent.requests,
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
            "price_id": outcome.price_id,
            "finish": outcome.finish,
            "request_id": None if outcome.request_id is None else clean(outcome.request_id),
            "error_class": outcome.error_class,
            "error": None if outcome.error is None else dumps(outcome.error),
        },
    )
    if not rows:
        return lease_stands(c, lease)
    state, stands, reserved = rows[0]
    if reserved:
        budgets.settle(c, call_id)
    if state == "completed":
        c.change(_COMPLETION, {"call_id": call_id, "completion": dumps(outcome.completion)})
    return bool(stands)


def first_completion(c: Connection, call_id: int) -> dict[str, Any] | None:
    """The completion that a call's step goes by if another call's was kept before its own; None if it is its own."""
    rows = c.run(_FIRST, {"call_id": call_id})
    return loads(rows[0][0]) if rows else None


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
    kept = handles.kept(c, wanted)
    batched = batch_memo.past(c, wanted)
    return {
        job_id: Memo(
            completions=completions[job_id],
            values=values[job_id],
            unknown=frozenset(unknown[job_id] - completions[job_id].keys()),
            batched=batched.get(job_id, {}),
            kept=kept.get(job_id, {}),
        )
        for job_id in wanted
    }
