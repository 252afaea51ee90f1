"""Every message of the company, actor by actor: a reader sees each protocol whole.

Orders are imperative (`RunJob`), facts past tense (`JobRecorded`). All are frozen, carry no secrets, and are told, never asked: a reply is a
message to the name in `reply_to`. Times are epoch milliseconds (`_ms`), durations seconds. Messages about a job carry its `Lease`, so
that a receiver can drop what concerns a lease it no longer holds.

One job, line by line:

    Dispatcher → Store         ClaimJobs                          → JobsClaimed
    Dispatcher → JobRunner     RunJob
    JobRunner  → RateLimiter   ReserveCall                        → CallGranted | CallDeferred
    JobRunner  → Store         RecordIntent                       → IntentRecorded | CallRemembered | LeaseLost
    JobRunner  → Provider      StartCall                          → TextArrived… → CallFinished | CallFailed
    Provider   → RateLimiter   LimitsObserved, KeyRefused         RateLimiter → Dispatcher  KeyHeld | KeyFreed
    JobRunner  → Store         AppendChunks…, RecordOutcome       → OutcomeRecorded | LeaseLost
    JobRunner  → RateLimiter   SettleCall
    JobRunner  → Store         FinishJob                          → JobRecorded | LeaseLost
    JobRunner  → Dispatcher    RunnerIdle
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..persistence.family import Child
from ..persistence.lifecycle import JobState
from ..persistence.model import CallIntent, CallOutcome, ClaimedJob, LaneDepth, Lease, Said
from .kernel.ask import ReplyTo
from .providers.model import CallError, Completion, LimitSnapshot, Request, Timeouts

Cause = Literal["loss", "deferral", "handback"]
"""Why a job goes back to waiting: its runner died, a limit makes it wait, or it was simply put back. The first two are counted."""

ROOT = "company"
STORE = "store"
DISPATCHER = "dispatcher"
RUNNERS = "runners"
LIMITERS = "limiters"
PROVIDERS = "providers"


def limiter_name(limit_key: str) -> str:
    """The directory name of the limiter of a key."""
    return f"limiter:{limit_key}"


def provider_name(provider: str) -> str:
    """The directory name of a provider's actor."""
    return f"provider:{provider}"


class CallRef(NamedTuple):
    """One call of one claim of a job: what permits and in-flight calls are keyed by. `number` counts from 1 within the lease."""

    job_id: int
    epoch: int
    number: int

    @property
    def lease(self) -> Lease:
        """The lease it was made under."""
        return Lease(self.job_id, self.epoch)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call takes from its limit key: one request, and this many tokens."""

    tokens: int


# --- Store -------------------------------------------------------------------------------------------------------------------------------


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
    """Commit, before the request leaves, that it is about to."""

    reply_to: str
    call: CallRef
    intent: CallIntent


@dataclass(frozen=True, slots=True)
class IntentRecorded:
    """The ledger knows of the call; it may leave now. `call_id` is its row."""

    call: CallRef
    call_id: int


@dataclass(frozen=True, slots=True)
class CallRemembered:
    """An earlier lease's call of this step has been answered since the job was claimed: the step goes by that completion.

    Answer to RecordIntent (no call is to leave), and to RecordOutcome (this call's own completion came second, and is booked only).
    """

    call: CallRef
    completion: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOutcome:
    """Commit what came of a call. What was spent is booked even when the lease is lost."""

    reply_to: str
    call: CallRef
    call_id: int
    outcome: CallOutcome


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
    """Add pieces of streamed text: (sequence number within the lease, step, text). Answered only if the lease is lost."""

    reply_to: str
    lease: Lease
    chunks: tuple[tuple[int, str, str], ...]


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


Verdict = Complete | Fail | RetryLater | Release | Spawn


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishJob:
    """Commit a runner's verdict on its job."""

    reply_to: str
    lease: Lease
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class JobRecorded:
    """The verdict is committed and the job is in `state`."""

    lease: Lease
    state: JobState


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
    """What was charged to a limit key since then, and is it on hold?"""

    reply_to: str
    limit_key: str
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLoaded:
    """The ledger's recent calls of a key as (sent at, epoch ms; tokens), and its hold if one stands."""

    limit_key: str
    entries: tuple[tuple[int, int], ...]
    hold_until_ms: int | None
    hold_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveHold:
    """Keep a key's hold through restarts; `until_ms` None clears it."""

    limit_key: str
    until_ms: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class StoreUnavailable:
    """The database refuses work (disk full, locked, gone): stop claiming. The store keeps what it was told and tries again."""

    reason: str


@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """The database works again and everything told meanwhile is committed."""


# --- RateLimiter -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveCall:
    """May this call go? Higher priority first."""

    reply_to: str
    call: CallRef
    charge: Charge
    priority: int


@dataclass(frozen=True, slots=True)
class CallGranted:
    """It may, now. The permit is the CallRef; settle it, whatever happens."""

    call: CallRef


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDeferred:
    """Not before `until_ms`: longer than a runner should wait. The reservation is gone."""

    call: CallRef
    until_ms: int
    limit_key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleCall:
    """A granted call is over. `tokens`: what it really used (None: unknown, the charge stands). `sent` False: nothing left, refund it all."""

    call: CallRef
    tokens: int | None
    sent: bool = True
    refund_tokens: bool = False


@dataclass(frozen=True, slots=True)
class WithdrawCall:
    """The caller no longer wants this reservation, granted or not; it was not sent."""

    call: CallRef


@dataclass(frozen=True, slots=True)
class LimitsObserved:
    """A provider's reply began: the call was counted by now, and these were its headers (None: it said nothing of limits)."""

    call: CallRef
    snapshot: LimitSnapshot | None


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The provider refused this key: hold it. `retry_after` in seconds, None: not said. `scope` is a `Scope`, `kind` an `ErrorClass`."""

    call: CallRef
    kind: str
    scope: str
    retry_after: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class DescribeLimits:
    """How do the limits stand? Answered with `LimitsDescribed`."""

    reply_to: str


@dataclass(frozen=True, slots=True)
class LimitsDescribed:
    """One key's limits as a JSON-ready mapping."""

    limit_key: str
    description: dict[str, Any]


# --- Dispatcher --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyHeld:
    """No further call of this key would be admitted before `until_ms`: claim no jobs for it."""

    limit_key: str
    until_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class KeyFreed:
    """This many further calls of the key would be admitted soon; None: the key is not limited at the moment."""

    limit_key: str
    headroom: int | None


@dataclass(frozen=True, slots=True)
class RunnerIdle:
    """A runner has nothing to do. `done` is the lease it just ended, None when it has just started."""

    runner: str
    done: Lease | None


@dataclass(frozen=True, slots=True)
class ReportIn:
    """Tell the dispatcher (a new one, which knows nothing) what you are doing: RunnerIdle or RunnerBusy."""


@dataclass(frozen=True, slots=True)
class RunnerBusy:
    """A runner works on this lease. `alone`: nothing may be claimed beside it."""

    runner: str
    lease: Lease
    alone: bool


@dataclass(frozen=True, slots=True)
class HandlerAbandoned:
    """A handler did not end when it was interrupted: its thread is left behind, fenced off by its lease."""

    runner: str
    lease: Lease


@dataclass(frozen=True, slots=True)
class HandlerReturned:
    """An abandoned handler has ended after all."""

    runner: str
    lease: Lease


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A hint that the board has changed; may be lost without changing any result."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Claim nothing more. `deadline` seconds from now, unfinished jobs are handed back (0: now). `done` is answered when none is left."""

    deadline: float
    done: ReplyTo[None]


@dataclass(frozen=True, slots=True)
class Hasten:
    """While draining: hand back what is unfinished now."""


@dataclass(frozen=True, slots=True)
class Describe:
    """How does the company stand? Answered with a `CompanySnapshot`."""

    reply_to: ReplyTo[Any]


# --- JobRunner ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunJob:
    """Perform this job under its lease."""

    job: ClaimedJob


@dataclass(frozen=True, slots=True)
class RevokeJob:
    """The lease is void (`LeasesLost`): abort and drop the work."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class HandBack:
    """Abort the work and send the job back to waiting, its attempt refunded (shutdown)."""

    reason: str


# --- Provider ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCall:
    """Make this call; its intent is on disk. Facts about it go to `reply_to`, facts about limits to its limiter."""

    reply_to: str
    call: CallRef
    limit_key: str
    request: Request
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class AbortCall:
    """Close the connection of this call now. It still ends with CallFailed (cancelled)."""

    call: CallRef


@dataclass(frozen=True, slots=True)
class TextArrived:
    """A piece of the answer."""

    call: CallRef
    text: str


@dataclass(frozen=True, slots=True)
class CallFinished:
    """The answer is complete."""

    call: CallRef
    completion: Completion


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The call is over without an answer."""

    call: CallRef
    error: CallError
