"""Calls that the provider goes on with when nobody listens: kept by their handle, so that they are taken up again instead of being paid twice.

Such a call has one row in the ledger, whichever attempts followed it: the row goes from unknown back to open, under the lease of the attempt that
takes it up, and what was reserved for it stays reserved. Every function is called inside the caller's transaction.
"""

import json
from collections.abc import Iterable
from typing import Any

from .engine import Connection
from .json_text import dumps, loads
from .model import KeptCall, Lease
from .sql import Prepared

_KEEP = Prepared("handles.KEEP")
_KEPT = Prepared("handles.KEPT")
_GIVE_UP = Prepared("handles.GIVE_UP")
_TAKE_UP = Prepared("handles.TAKE_UP")


def keep(c: Connection, call_id: int, handle: dict[str, Any]) -> None:
    """Keep what a call can be taken up by again. By its id alone: also a lease that is lost may have been told."""
    c.change(_KEEP, {"call_id": call_id, "kept": dumps(handle)})


def kept(c: Connection, job_ids: Iterable[int]) -> dict[int, dict[str, KeptCall]]:
    """The calls of these jobs that can be taken up again, by job and step; of several of one step, the last."""
    found: dict[int, dict[str, KeptCall]] = {}
    for job_id, step, call_id, fingerprint, provider, model, handle in c.run(_KEPT, {"ids": json.dumps(list(job_ids))}):
        found.setdefault(job_id, {})[step] = KeptCall(
            call_id=call_id, fingerprint=fingerprint, provider=provider, model=model, handle=loads(handle)
        )
    return found


def give_up(c: Connection, call_id: int) -> tuple[str, dict[str, Any]] | None:
    """The provider and the handle of a call that goes on for a job that was cancelled, so that it can be ended there; None if it is not so."""
    rows = c.run(_GIVE_UP, {"call_id": call_id})
    return (rows[0][0], loads(rows[0][1])) if rows else None


def take_up(c: Connection, lease: Lease, call_id: int) -> bool:
    """Go on with a call under this lease; False if the lease is lost, or the call is not there to be taken up."""
    params = {"job_id": lease.job_id, "epoch": lease.epoch, "call_id": call_id}
    return bool(c.run(_TAKE_UP, params))
