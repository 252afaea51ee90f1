"""What the job that drives a batch does to the board: one order, one transaction.

Each order is written under the driving job's lease, so that two workers never drive one batch, and moves the batch one arrow on, or a bounded
part of its members. Doing an order again after a crash changes nothing that was done: members are known by their row, calls by theirs.
What a member is told ends its edge to the driving job, and with it its wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from . import batches, budgets, flows, ledger
from .batches import BatchRow
from .budgets import Budget, Refusal
from .engine import Connection
from .json_text import dumps, loads
from .model import CallOutcome, Lease
from .sql import Prepared

_UNSUSPECT = Prepared("batches.UNSUSPECT")
_BATCH = Prepared("batches.BATCH")
_MOVE = Prepared("batches.MOVE")
_DROP_GONE = Prepared("batches.DROP_GONE")
_RECOUNT = Prepared("batches.RECOUNT")
_MEMBERS = Prepared("batches.MEMBERS")
_MEMBER = Prepared("batches.MEMBER")
_FIND = Prepared("batches.FIND")
_LIVE = Prepared("batches.LIVE")
_END_REQUEST = Prepared("batches.END_REQUEST")
_UNINTENDED = Prepared("batches.UNINTENDED")
_INTENT = Prepared("batches.INTENT")
_INTENDED = Prepared("batches.INTENDED")
_FORGET_BODY = Prepared("batches.FORGET_BODY")
_HOLD = Prepared("batches.HOLD")
_CALL = Prepared("batches.CALL")
_EDGE_OPEN = Prepared("batches.EDGE_OPEN")
_UNANSWERED = Prepared("batches.UNANSWERED")
_LATE = Prepared("batches.LATE")
_NEXT_DEADLINE = Prepared("batches.NEXT_DEADLINE")
_LATENCIES = Prepared("batches.LATENCIES")
_KNOWN = Prepared("batches.KNOWN")
_PART = Prepared("batches.PART")
_MOVE_REQUEST = Prepared("batches.MOVE_REQUEST")
_MOVE_EDGE = Prepared("batches.MOVE_EDGE")
_HASTEN = Prepared("batches.HASTEN")
_GROW = Prepared("batches.GROW")

PER_ORDER = 200
"""Members that one transaction deals with, so that it holds the write lock for some tens of milliseconds at most."""

HELD_MS = 300_000
"""How long a member waits at least that would fit its budget when others are settled. Raising the budget lets it go at once."""

MemberState = Literal["done", "failed", "again"]


@dataclass(frozen=True, slots=True)
class Member:
    """A request of a batch. `request` is its JSON form as `ListMembers` gives it; elsewhere it is left out."""

    id: int
    job_id: int
    step: str
    state: str
    model: str
    provider_model: str
    tokens: int
    call_id: int | None
    size: int
    request: dict[str, Any] = field(default_factory=dict)


class Asked(NamedTuple):
    """What reading an answer takes: the request, its job, the model as it was asked for, and how many texts are to be embedded (0: a chat)."""

    id: int
    job_id: int
    model: str
    inputs: int


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a member: its `outcome` for the ledger, and whether it is done, refused for good (`error`), or to be asked again."""

    request: int
    state: MemberState
    outcome: CallOutcome
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """The batch that this job drives; None if it drives none."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Nobody joins any more, and who no longer waits is left out. Results in the batch."""


@dataclass(frozen=True, slots=True)
class ListMembers:
    """The members in this state behind `after`, `most` at most."""

    state: str
    after: int = 0
    most: int = PER_ORDER


@dataclass(frozen=True, slots=True)
class FindMembers:
    """Of these requests those that are members (and were not deleted with their jobs), as `Asked`."""

    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The next arrow, with what is known by now; None leaves a column as it is. Results in the batch."""

    state: str
    sha256: str | None = None
    requests: int | None = None
    file_id: str | None = None
    batch_id: str | None = None
    results: tuple[str, ...] | None = None
    offset: int | None = None
    polls: int | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Intend:
    """Commit for some members that their requests are about to leave. Results in how many were looked at; 0: all have been."""


@dataclass(frozen=True, slots=True)
class Create:
    """Every member is about to leave with the batch. Results in the batch."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Book these results and tell the jobs that wait for them; `offset`: how far the results are read by then."""

    results: Sequence[Answered]
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Book this outcome for some of those that have no answer, and have them ask again. Results in how many; 0: none is left."""

    outcome: CallOutcome


@dataclass(frozen=True, slots=True)
class Refuse:
    """These members cannot be sent at all: their jobs are told why."""

    errors: Sequence[tuple[int, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class LeaveLate:
    """Let go of the members whose deadline is nearer than `margin_ms`, or than three times what nearly all recent calls took.

    Results in the next deadline less the margin (epoch ms), None if there is none.
    """

    margin_ms: int


@dataclass(frozen=True, slots=True)
class CountLive:
    """How many members still wait. Those whose jobs no longer wait for them are left out first."""


@dataclass(frozen=True, slots=True)
class ListKnown:
    """The provider's ids of this provider's batches since `since` (epoch ms)."""

    since: int


@dataclass(frozen=True, slots=True)
class Divide:
    """Move some of the members of a batch that was refused into two others, half each. Results in how many; 0: none is left.

    `outcome` is booked for the calls that came to nothing. `tags` are the names of the two, if they are yet to be made. They begin when the
    last member has come (`LetDivided`).
    """

    outcome: CallOutcome
    tags: tuple[str, str]


@dataclass(frozen=True, slots=True)
class LetDivided:
    """The two halves may begin; this batch is over."""


Order = (
    Load
    | Seal
    | ListMembers
    | FindMembers
    | Move
    | Intend
    | Create
    | Apply
    | GiveUp
    | Refuse
    | LeaveLate
    | CountLive
    | ListKnown
    | Divide
    | LetDivided
)


def perform(c: Connection, lease: Lease, order: Any, now: int, actor: str, configured: Sequence[Budget] = ()) -> Any:
    """Write an order of a driving job whose lease stands (these, and those of `group_orders`), and return its result.

    A job that drives nothing gets None from all of them. `configured`: the budgets that its members count in, beside those of the board.
    """
    rows = c.run(_BATCH, {"driver": lease.job_id})
    if not rows:
        return None
    batch = batches.batch_of(rows[0])
    if not isinstance(order, Load | ListMembers | FindMembers | ListKnown):
        c.change(_UNSUSPECT, {"driver": batch.job_id})
    match order:
        case Load():
            return batch
        case Seal():
            return _seal(c, batch, now)
        case ListMembers(state, after, most):
            found = c.run(_MEMBERS, {"batch": batch.id, "state": state, "after": after, "limit": most})
            return [member_of(row) for row in found]
        case FindMembers(requests):
            return [Asked(*row) for row in c.run(_FIND, {"batch": batch.id, "ids": dumps(list(requests))})]
        case Move():
            return move_on(c, batch, order, now)
        case Intend():
            return _intend(c, batch, now, actor, configured)
        case Create():
            return move_on(c, batch, Move(state="creating"), now)
        case Apply(results, offset):
            for answered in results:
                _answer(c, batch, answered, now, actor)
            return move_on(c, batch, Move(state=batch.state, offset=offset), now)
        case GiveUp(outcome):
            return _give_up(c, batch, outcome, now, actor)
        case Refuse(errors):
            for request, error in errors:
                tell(c, batch, request, "failed", error, now, actor)
            return None
        case LeaveLate(margin_ms):
            return _leave_late(c, batch, margin_ms, now, actor)
        case CountLive():
            c.change(_DROP_GONE, {"batch": batch.id, "driver": batch.job_id})
            return c.run(_LIVE, {"batch": batch.id})[0][0]
        case ListKnown(since):
            return tuple(known for (known,) in c.run(_KNOWN, {"provider": batch.provider, "since": since}))
        case Divide():
            return _divide(c, batch, order, now, actor)
        case LetDivided():
            for _, driver in (batch.error or {}).get("divided", ()):
                c.change(_HASTEN, {"driver": driver, "priority": -1_000_000_000, "run_at": now})
            return move_on(c, batch, Move(state="failed"), now)
    from . import group_orders

    return group_orders.perform(c, batch, order, now, actor, configured)


def member_of(row: Sequence[Any]) -> Member:
    """A row of `llm_batch_requests`."""
    *known, size = row[:9]
    identity, job_id, step, state, model, provider_model, tokens, call_id = known
    request = loads(row[9]) if len(row) > 9 else {}
    return Member(identity, job_id, step, state, model, provider_model, tokens, call_id, size, request)


def _seal(c: Connection, batch: BatchRow, now: int) -> BatchRow:
    c.change(_DROP_GONE, {"batch": batch.id, "driver": batch.job_id})
    c.change(_RECOUNT, {"batch": batch.id})
    return move_on(c, batch, Move(state="sealed"), now)


def move_on(c: Connection, batch: BatchRow, move: Move, now: int) -> BatchRow:
    """Take the arrow, and return the batch as it is then."""
    params = {
        "batch": batch.id,
        "state": move.state,
        "sha256": move.sha256,
        "requests": move.requests,
        "file_id": move.file_id,
        "batch_id": move.batch_id,
        "results": None if move.results is None else dumps(list(move.results)),
        "offset": move.offset,
        "polls": move.polls,
        "error": None if move.error is None else dumps(move.error),
        "now": now,
    }
    c.change(_MOVE, params)
    return batches.batch_of(c.run(_BATCH, {"driver": batch.job_id})[0])


def _intend(c: Connection, batch: BatchRow, now: int, actor: str, configured: Sequence[Budget]) -> int:
    """Whoever does not fit its budgets leaves: to wait for another batch where the budget says so, else to ask by itself and be told."""
    rows = c.run(_UNINTENDED, {"batch": batch.id, "limit": PER_ORDER})
    known = budgets.known(c)
    for request, job_id, step, _, fingerprint, limit_key, tokens, reserved_cost, provider_model, deadline in rows:
        called = {"provider": batch.provider, "model": provider_model, "now": now}
        asked = budgets.claims(c, configured, known, job_id=job_id, amount=reserved_cost, tokens=tokens, **called)
        if (refusal := budgets.check(c, asked, **called)) is not None:
            waits = refusal.until is not None and deadline is None
            told = {"class": "budget", "message": refusal.reason}
            tell(c, batch, request, "again" if waits else "left", told, now, actor)
            if waits:
                _hold(c, job_id, refusal, now, actor)
            continue
        params = {
            "job_id": job_id,
            "step": step,
            "fingerprint": fingerprint,
            "provider": batch.provider,
            "provider_model": provider_model,
            "limit_key": limit_key,
            "tokens": tokens,
            "reserved_cost": reserved_cost,
            "now": now,
        }
        call_id = c.run(_INTENT, params)[0][0]
        c.change(_INTENDED, {"request": request, "call_id": call_id})
        budgets.reserve(c, asked, call_id, now)
    return len(rows)


def _hold(c: Connection, job_id: int, refusal: Refusal, now: int, actor: str) -> None:
    """By itself it would cost twice as much, of a budget that is used up. What is in flight may be a batch, which takes its time."""
    assert refusal.until is not None
    held = {"held_by": f"{budgets.HELD_BY}{refusal.key}", "reason": refusal.reason}
    c.change(_HOLD, {**held, "job_id": job_id, "until": max(refusal.until, now + HELD_MS), "now": now, "actor": actor})


def _answer(c: Connection, batch: BatchRow, answered: Answered, now: int, actor: str) -> None:
    rows = c.run(_MEMBER, {"batch": batch.id, "request": answered.request})
    if not rows:  # its job was deleted
        return
    member = member_of(rows[0])
    _book(c, member, answered.outcome, now)
    if member.state in ("waiting", "sent"):
        tell(c, batch, member.id, answered.state, answered.error, now, actor)


def _book(c: Connection, member: Member, outcome: CallOutcome, now: int) -> None:
    """Book a member's outcome, once; a completion is kept whatever has become of its job."""
    if member.call_id is None:
        return
    job_id, epoch = c.run(_CALL, {"call_id": member.call_id})[0]
    ledger.record_outcome(c, Lease(job_id, epoch), member.call_id, outcome, now)


def tell(
    c: Connection, batch: BatchRow, request: int, state: str, error: dict[str, Any] | None, now: int, actor: str
) -> None:
    """The request has come to its end, and its job waits for it no more."""
    rows = c.run(_MEMBER, {"batch": batch.id, "request": request})
    if not rows or rows[0][3] not in ("waiting", "sent"):
        return
    c.change(_FORGET_BODY, {"request_id": request})
    c.change(_END_REQUEST, {"request": request, "state": state, "error": None if error is None else dumps(error)})
    job_id, step = rows[0][1], batches.edge_step(request)
    if c.run(_EDGE_OPEN, {"job_id": job_id, "driver": batch.job_id, "step": step}):
        flows.let_go(c, job_id, batch.job_id, step, now, actor)


def _give_up(c: Connection, batch: BatchRow, outcome: CallOutcome, now: int, actor: str) -> int:
    rows = c.run(_UNANSWERED, {"batch": batch.id, "limit": PER_ORDER})
    for row in rows:
        member = member_of(row)
        _book(c, member, outcome, now)
        tell(c, batch, member.id, "again", outcome.error, now, actor)
    return len(rows)


def _leave_late(c: Connection, batch: BatchRow, margin_ms: int, now: int, actor: str) -> int | None:
    durations = [row[0] for row in c.run(_LATENCIES, {"provider": batch.provider})]
    if durations:
        margin_ms = max(margin_ms, 3 * durations[min(len(durations) - 1, len(durations) * 95 // 100)])
    while rows := c.run(_LATE, {"batch": batch.id, "until": now + margin_ms, "limit": PER_ORDER}):
        for row in rows:
            error = {"class": "deadline", "message": "its deadline came near before the batch was done"}
            tell(c, batch, row[0], "left", error, now, actor)
    deadline = c.run(_NEXT_DEADLINE, {"batch": batch.id})[0][0]
    return None if deadline is None else int(deadline) - margin_ms


def _divide(c: Connection, batch: BatchRow, order: Divide, now: int, actor: str) -> int:
    members = [member_of(row) for row in c.run(_PART, {"batch": batch.id, "limit": PER_ORDER})]
    halves: list[list[int]] | None = (batch.error or {}).get("divided")
    if halves is None and members:
        # Not due before the last member has come: `LetDivided` says when.
        later = now + 86_400_000
        like = (batch.kind, batch.provider, batch.group_key, batch.endpoint, members[0].model)
        halves = [list(batches.open_batch(c, *like, tag, later, now, actor, state="sealed")) for tag in order.tags]
        move_on(c, batch, Move(state="failed", error={**(batch.error or {}), "divided": halves}), now)
    for place, member in enumerate(members):
        assert halves is not None
        target, driver = halves[place % 2]
        _book(c, member, order.outcome, now)
        c.change(_MOVE_REQUEST, {"request": member.id, "target": target})
        edge = {"job_id": member.job_id, "old": batch.job_id, "step": batches.edge_step(member.id)}
        c.change(_MOVE_EDGE, {**edge, "driver": driver})
        grown = {"batch": target, "requests": 1, "bytes": member.size, "tokens": member.tokens, "now": now}
        c.change(_GROW, grown)
    return len(members)
