"""What the store is told, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from ...persistence.batches import NewRequest
from ...persistence.family import Child
from ...persistence.limit_rules import Charge, Gate, Held
from ...persistence.limits import Picture
from ...persistence.model import CallIntent, CallOutcome, ClaimedJob, LaneDepth, Lease, LimitHold, Said
from .names import (
    CallRef,
    Cause,
)

Chunks: TypeAlias = tuple[tuple[int, str, str], ...]
"""Pieces of streamed text: (sequence number within the lease, step, text)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimJobs:
    """Look at the board and claim for at most `slots` runners: for each group of them at most what its part says.

    `quotas`: at most so many from each lane of a part and nothing from others; lanes with the same `keys` have theirs together.
    `number`: repeated in the answer, never used twice, so that the answer to a dispatcher that has died is told from its successor's.
    `alone`: the company is idle, so one suspect may be claimed by itself. `force`: look even if no other connection has changed the
    database since the last look that found nothing.
    """

    reply_to: str
    number: int
    slots: int
    quotas: Mapping[str, int]
    keys: Mapping[str, str]
    parts: tuple["ClaimPart", ...]
    alone: bool
    force: bool


class ClaimPart(NamedTuple):
    """What one group of runners may claim: at most `slots` jobs, of these lanes."""

    group: str
    slots: int
    lanes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsClaimed:
    """What was claimed, for which groups, and the lanes that had waiting jobs at that look (the dispatcher plans its next claim by them).

    `suspects`: jobs wait in the lanes asked for that may only run alone. `next_due_ms`: when the board changes by time alone, None if it
    does not.
    """

    number: int
    jobs: tuple[tuple[str, ClaimedJob], ...]
    lanes: tuple[LaneDepth, ...]
    suspects: bool
    next_due_ms: int | None


@dataclass(frozen=True, slots=True)
class BoardQuiet:
    """Answer to ClaimJobs: nothing has changed since the last look that found nothing."""

    number: int


@dataclass(frozen=True, slots=True)
class HoldLane:
    """Note on the waiting jobs of a lane why nobody here can run them; they stay waiting. None: somebody can, take such a note off."""

    lane: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class CheckLeases:
    """Which of these leases no longer stand?"""

    reply_to: str
    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class LeasesLost:
    """Answer to CheckLeases: these are void, cancelled by a host or rescued by another process. Usually none."""

    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Extend every lease of this process."""


@dataclass(frozen=True, slots=True)
class SweepBoard:
    """Rescue the jobs of dead processes, and hand back what this process holds but nobody in `held` works on."""

    held: frozenset[Lease]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseJob:
    """Send a job back to waiting on behalf of a runner that cannot (it died, or never got it)."""

    lease: Lease
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordIntent:
    """Commit, before the request leaves, that it is about to, if the limits that all workers share allow it. `gate` None: it has none.

    `resumes`: the earlier call, if it can still be taken up, that this one goes on with: then it has that one's row, and nothing is reserved.
    """

    reply_to: str
    call: CallRef
    intent: CallIntent
    gate: Gate | None = None
    resumes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveHandle:
    """Keep what this call can be taken up again by. Fenced by nothing but the call's id: the provider has what it has."""

    call_id: int
    handle: dict[str, Any]


@dataclass(frozen=True, slots=True)
class IntentRecorded:
    """The ledger knows of the call; it may leave now. `call_id` is its row; `held` what it was charged, None if nothing of its key is limited."""

    call: CallRef
    call_id: int
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class CallRemembered:
    """An earlier lease's call of this step has been answered since the job was claimed: the step goes by that completion.

    Answer to RecordIntent (no call is to leave), and to RecordOutcome (this call's own completion came second, and is booked only).
    """

    call: CallRef
    completion: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOutcome:
    """Commit what came of a call. What was spent is booked even when the lease is lost.

    `held`: what it was charged, to be settled with what it `used` (None: unknown) when it ended, at `ended_ms`. `cache_key`: others may wait for
    its answer under it; `keeps`: that is to be given again. `chunks`: the last of its text. `awaited`: its runner wants to be told.
    """

    reply_to: str
    call: CallRef
    call_id: int
    outcome: CallOutcome
    held: Held | None = None
    used: Charge | None = None
    ended_ms: int = 0
    cache_key: str | None = None
    keeps: bool = False
    chunks: Chunks = ()
    awaited: bool = True


@dataclass(frozen=True, slots=True)
class OutcomeRecorded:
    """The outcome is on disk: from here on it is never paid for again."""

    call: CallRef


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveStep:
    """Commit the value of a handler's own step."""

    reply_to: str
    lease: Lease
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class StepSaved:
    """The step's value is on disk."""

    lease: Lease
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendChunks:
    """Add pieces of streamed text. Answered only if the lease is lost."""

    reply_to: str
    lease: Lease
    chunks: Chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class SetProgress:
    """Note how far a job is, 0 to 100."""

    lease: Lease
    percent: int
    message: str | None


@dataclass(frozen=True, slots=True)
class Complete:
    """Verdict: done, with this JSON-ready result, and with what the log of a conversation gains by it."""

    result: Any
    said: Said | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Verdict: failed for good."""

    error: dict[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Verdict: this attempt failed; try again at `run_at_ms` if attempts are left. `max_attempts`, where given, replaces the job's own."""

    error: dict[str, Any]
    run_at_ms: int
    reason: str
    max_attempts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Verdict: back to waiting without a failure. `cause` is deferral (a limit) or handback (shutdown, a provider that restarts)."""

    cause: Cause
    reason: str
    held_by: str | None = None
    held_until_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """Verdict: create these children, and wait for them (`quorum` of them, None: all) without a runner."""

    step: str
    children: tuple[Child, ...]
    quorum: int | None


@dataclass(frozen=True, slots=True)
class JoinBatch:
    """Verdict: these requests of the job go with others'; it waits for them without a runner."""

    requests: tuple[NewRequest, ...]


Verdict = Complete | Fail | RetryLater | Release | Spawn | JoinBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCompany:
    """Is there anything that this call could go with: other jobs of the type that are there to be done, or a group that is open?"""

    reply_to: str
    call: CallRef
    type: str
    group_key: str


@dataclass(frozen=True, slots=True)
class CompanyKnown:
    """Answer to AskCompany."""

    call: CallRef
    company: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderBatch:
    """Write an order of the job that drives a batch (`persistence.batch_orders`), under its lease."""

    reply_to: str
    call: CallRef
    order: object


@dataclass(frozen=True, slots=True)
class BatchOrdered:
    """It is committed; `result` is the order's."""

    call: CallRef
    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishJob:
    """Commit a runner's verdict on its job."""

    reply_to: str
    lease: Lease
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """A write was refused because the lease is void: drop the work."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class StoreRefused:
    """The database refused a write about this lease by itself, for good (its log has the traceback). Everything else went through."""

    lease: Lease
    reason: str


@dataclass(frozen=True, slots=True)
class LoadUsage:
    """How does a limit key stand, by what all workers have written? `days`: those that matter, by the epoch ms of their beginning."""

    reply_to: str
    limit_key: str
    account: str
    days: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLoaded:
    """How a key stands; also told unasked, when an intent of the key was refused: then nothing of it is to go before `not_before_ms`."""

    limit_key: str
    picture: Picture
    not_before_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsChanged:
    """Another worker, or a person, changed holds or the lowering of this key. `lifted`: the ends (epoch ms) of holds that are gone."""

    limit_key: str
    holds: tuple[LimitHold, ...]
    lifted: tuple[int, ...]
    factor: float
    factor_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveHold:
    """Keep a hold of a key or of a whole account, for all workers and through restarts; `until_ms` None clears it. `kind` as in `LimitHold`."""

    key: str
    until_ms: int | None
    reason: str
    kind: str = "rate"


@dataclass(frozen=True, slots=True)
class LowerLimits:
    """The provider refused this key: lower its limits, for all workers, unless that was done a moment ago. Answered with LimitsChanged."""

    reply_to: str
    limit_key: str


@dataclass(frozen=True, slots=True)
class SaveDescription:
    """How a limiter stands, JSON-ready, for people to look at."""

    limit_key: str
    description: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoreUnavailable:
    """The database refuses work (disk full, locked, gone): stop claiming. The store keeps what it was told and tries again."""

    reason: str


@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """The database works again and everything told meanwhile is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentRefused:
    """Answer to RecordIntent: the call must not leave, for what all workers of the database share says no. Nothing was written.

    `cause`: limit (another worker has used what this one believed free) or budget. `until_ms`: when it may be different, None if waiting does
    not help. `action`: for a budget, what is to be done: stop, pause, wait (for calls in flight to give back what they do not use) or
    downgrade, to `model`.
    """

    call: CallRef
    cause: Literal["limit", "budget"]
    key: str
    reason: str
    until_ms: int | None = None
    action: str = ""
    model: str = ""
