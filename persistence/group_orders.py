"""What the job that drives a group (texts of several jobs, embedded by one call) does to the board: one order, one transaction.

A group is made of whoever joined it, and of the waiting jobs like them, which it adopts without any of them having been claimed. Its one call
is an ordinary call of the driving job. Its answer is shared out in one transaction: each member's part becomes an answered call of the
member's own step, and what the call used becomes theirs, to the last token and nano-dollar, so that nothing is counted twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import batch_orders, batches, budgets
from .batch_orders import Member
from .batches import BatchRow, NewRequest
from .budgets import Budget
from .engine import Connection
from .json_text import dumps, loads
from .sql import Prepared

_ALIKE = Prepared("batches.ALIKE")
_ADOPT = Prepared("batches.ADOPT")
_GROUP_CALL = Prepared("batches.GROUP_CALL")
_FINGERPRINT = Prepared("batches.FINGERPRINT")
_MEMBER = Prepared("batches.MEMBER")
_SHARE = Prepared("batches.SHARE")
_SHARED_OUT = Prepared("batches.SHARED_OUT")
_FORGET_ANSWER = Prepared("batches.FORGET_ANSWER")
_COMPLETION = Prepared("ledger.COMPLETION")


@dataclass(frozen=True, slots=True)
class Alike:
    """A waiting job that may be adopted: as much of it as says what it asks for. `options` as they are stored."""

    job_id: int
    model: str | None
    data: Any
    options: str


@dataclass(frozen=True, slots=True)
class ListAlike:
    """Waiting jobs of this type and of the lanes of the members, never begun, at most `limit`."""

    type: str
    limit: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Let these jobs wait for the group instead of for a runner: (job, its request). Results in how many were still there."""

    requests: Sequence[tuple[int, NewRequest]]


@dataclass(frozen=True, slots=True)
class Part:
    """A member's part of the group's answer: the answer as its own call would have had it, and its share of what was used, by weight."""

    request: int
    completion: dict[str, Any]
    weight: int


@dataclass(frozen=True, slots=True)
class ShareOut:
    """Give each member its part of the answer to the driving job's call of this step."""

    step: str
    parts: Sequence[Part]


def perform(c: Connection, batch: BatchRow, order: Any, now: int, actor: str, configured: Sequence[Budget] = ()) -> Any:
    """Write an order of the job that drives this group, and return its result. `configured`: budgets, as in `batch_orders`."""
    match order:
        case ListAlike(kind, limit):
            rows = c.run(_ALIKE, {"batch": batch.id, "type": kind, "now": now, "limit": limit})
            return [Alike(job_id, model, loads(data), options) for job_id, model, data, options, _ in rows]
        case Adopt(requests):
            return sum(_adopt(c, batch, job_id, new, now, actor) for job_id, new in requests)
        case ShareOut():
            return _share_out(c, batch, order, now, actor, configured)
    raise TypeError(f"not an order of a driving job: {order!r}")


def _adopt(c: Connection, batch: BatchRow, job_id: int, new: NewRequest, now: int, actor: str) -> int:
    params = {"job_id": job_id, "reason": f"goes with others (step {new.step!r})", "now": now, "actor": actor}
    if c.change(_ADOPT, params) != 1:
        return 0
    batches.add_request(c, batch.id, batch.job_id, job_id, new, now)
    return 1


def _share_out(
    c: Connection, batch: BatchRow, order: ShareOut, now: int, actor: str, configured: Sequence[Budget]
) -> None:
    rows = c.run(_GROUP_CALL, {"driver": batch.job_id, "step": order.step})
    if not rows:  # shared out before
        return
    call_id, tokens, cost = rows[0]
    there = []  # but for those whose jobs were deleted
    for part in order.parts:
        there += [
            (part, batch_orders.member_of(row)) for row in c.run(_MEMBER, {"batch": batch.id, "request": part.request})
        ]
    weights = [part.weight for part, _ in there]
    costs = [None] * len(there) if cost is None else shares(cost, weights)
    for (part, member), share, paid in zip(there, shares(tokens, weights), costs, strict=True):
        params = {
            "job_id": member.job_id,
            "step": member.step,
            "fingerprint": c.run(_FINGERPRINT, {"request": member.id})[0][0],
            "call_id": call_id,
            "tokens": share,
            "cost": paid,
            "now": now,
        }
        kept = c.run(_SHARE, params)
        if kept:
            c.change(_COMPLETION, {"call_id": kept[0][0], "completion": dumps(part.completion)})
            _count(c, batch, member, kept[0][0], paid, share, now, configured)
        batch_orders.tell(c, batch, member.id, "done", None, now, actor)
    c.change(_SHARED_OUT, {"call_id": call_id})
    c.change(_FORGET_ANSWER, {"call_id": call_id})


def _count(
    c: Connection,
    batch: BatchRow,
    member: Member,
    call_id: int,
    paid: int | None,
    tokens: int,
    now: int,
    configured: Sequence[Budget],
) -> None:
    """Put a member's share into the budgets of its own; those of provider, model and day have the group's call already."""
    claims = budgets.claims(
        c,
        configured,
        budgets.known(c),
        job_id=member.job_id,
        provider=batch.provider,
        model=member.provider_model,
        amount=paid,
        tokens=tokens,
        now=now,
    )
    own = [claim for claim in claims if claim.budget.scope in ("job", "tag", "tree")]
    if own:
        budgets.reserve(c, own, call_id, now)
        budgets.settle(c, call_id)


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` divided by weight, in whole parts whose sum is exactly `total`. Pure.

    Each gets the difference of two rounded running sums, so that no part is off by more than one, and nothing is left over.
    """
    whole = sum(weights) or 1
    done, seen, parts = 0, 0, []
    for weight in weights:
        seen += weight
        upto = total * seen // whole if sum(weights) else 0
        parts.append(upto - done)
        done = upto
    if parts:
        parts[-1] += total - done
    return parts
