"""The store's actor: the one writer of the database in this process.

Group commit: what arrives while a transaction runs is written together in the next one, and every answer is sent only after its commit.
A database that refuses work (full disk, locked by a stranger) is a state to wait out, not a crash: everything told meanwhile is kept and
tried again. A write that is refused by itself, for good, is separated from the others and its job is told.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..persistence import batches, claims, conversations, family, flows, handles, job_store, ledger
from ..persistence.budgets import Budget
from ..persistence.claims import FOREVER
from ..persistence.engine import Connection
from ..persistence.errors import (
    DatabaseBusyError,
    DatabaseDiskError,
    DatabaseError,
    DatabaseFullError,
    DatabaseReadOnlyError,
)
from ..persistence.lifecycle import TERMINAL_STATES, JobState
from ..persistence.model import ClaimedJob, LaneDepth
from . import batch_desk
from .answer_cache import AnswerCache
from .cache_settings import CacheSettings
from .kernel.actor import Actor
from .kernel.system import ActorSystem
from .messages import (
    DISPATCHER,
    AppendChunks,
    AskCompany,
    BoardQuiet,
    CallRemembered,
    CheckLeases,
    ClaimJobs,
    Complete,
    EndKept,
    Fail,
    FinishJob,
    HoldLane,
    IntentRecorded,
    JobRecorded,
    JobsClaimed,
    JoinBatch,
    LeaseLost,
    LeasesLost,
    LeaveFlight,
    LoadUsage,
    LookUpAnswer,
    LowerLimits,
    OrderBatch,
    OutcomeRecorded,
    RecordIntent,
    RecordOutcome,
    Release,
    ReleaseJob,
    RenewLeases,
    RetryLater,
    SaveDescription,
    SaveHandle,
    SaveHold,
    SaveStep,
    SetProgress,
    Spawn,
    StepSaved,
    StoreRecovered,
    StoreRefused,
    StoreUnavailable,
    SweepBoard,
    limiter_name,
    provider_name,
)
from .settings import AgeingSettings
from .shared_budgets import SharedBudgets
from .shared_limits import SharedLimits
from .upkeep import Upkeep

logger = logging.getLogger(__name__)

Replies = list[tuple[str, object]]
CHECKPOINT_EVERY = 1.0
"""Seconds."""
TRY_AGAIN = 0.5
"""Seconds between tries while the database refuses work."""
REPAIR_LIMIT = 2000
"""Waiting jobs that one pass of the repair looks at; what it settles is bounded as any cascade is."""
PASS_LIMIT = 500
"""Jobs promoted, expired or rescued in one pass: bounded work, so that no pass holds the write lock for long."""

_UNAVAILABLE = (DatabaseBusyError, DatabaseFullError, DatabaseDiskError, DatabaseReadOnlyError)
_REFUSED = (DatabaseError, TypeError, ValueError, OverflowError, RecursionError)
"""The database's own no, and what the driver and the JSON encoder raise for a value that neither can hold."""


class Board(Protocol):
    """What the store's actor writes to, and how it knows which owners are dead."""

    owner: str

    def connect(self) -> Connection:
        """A connection of its own."""

    def is_dead(self, owner: str) -> bool | None:
        """Whether the process of an owner is dead; None: it cannot be told."""

    def forget(self, owner: str) -> None:
        """A dead owner has no jobs left."""


@dataclass(frozen=True, slots=True)
class _TryAgain:
    """Time to see whether the database works again."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What a look found that lasts until somebody else commits (another `data_version`) or a write of our own puts jobs on the board.

    `due_ms`: nothing changes by time alone before then.
    """

    version: int
    lanes: tuple[LaneDepth, ...]
    due_ms: int | None

    def holds(self, version: int, now: int) -> bool:
        """Whether it is still so."""
        return self.version == version and (self.due_ms is None or now < self.due_ms)


@dataclass(frozen=True, slots=True)
class _SettleMore:
    """Go on telling those who waited on jobs that ended: there were more than one transaction should move."""


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """Time to move what was committed into the database file."""


class StoreActor(Actor):
    """Writes for everybody, in the order it is told."""

    drains_before_stop: ClassVar[bool] = True

    def __init__(
        self,
        system: ActorSystem,
        *,
        board: Board,
        lease_ttl: float,
        ageing: AgeingSettings | None = None,
        retention_days: float = 0.0,
        budgets: tuple[Budget, ...] = (),
        cache: CacheSettings | None = None,
    ) -> None:
        super().__init__(system)
        self._board = board
        self._ttl_ms = round(lease_ttl * 1000)
        self._ageing = ageing
        self._upkeep = Upkeep(retention_days)
        self._limits = SharedLimits(board.owner)
        self._budgets = SharedBudgets(budgets)
        self._answers = AnswerCache(cache or CacheSettings())
        self._lanes: tuple[str, ...] = ()
        self._start = ""
        self._pending: list[object] = []
        self._available = True
        self._connection: Connection | None = None
        self._checkpointed = 0
        self._try_now = False
        self._seen_version: int | None = None
        self._known: _Known | None = None
        self._settling = False
        self._repaired_to = 0

    def on_start(self) -> None:
        """Open the connection, and begin to renew: the life before may have been down for a while."""
        self._connection = self._board.connect()
        self.after(0.0, RenewLeases())
        self.after(CHECKPOINT_EVERY, _Checkpoint())

    def on_stop(self) -> None:
        """Write what waits and hand back what is still held: whoever worked on it has been stopped before. Then close the connection."""
        try:
            with self._open_connection.write():
                for message in self._pending:
                    self._write(self._open_connection, message)
            with self._open_connection.write():
                left = claims.sweep_orphans(
                    self._open_connection, self._board.owner, frozenset(), FOREVER, self.now_ms()
                )
            if left:
                logger.warning("handed back %d jobs that were not finished when the company stopped", len(left))
        except _REFUSED as error:
            logger.error("%s; jobs of this worker go back to the board when their leases expire", error)  # noqa: TRY400  # no bug of ours
        finally:
            self._close()

    def on_failure(self, *_: object) -> None:
        """Close the connection."""
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def _open_connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def receive(self, message: object) -> None:
        """Answer what needs no transaction; keep the rest for the next one."""
        match message:
            case ClaimJobs() if self._quiet(message):
                self.tell(message.reply_to, BoardQuiet(message.number))
            case _TryAgain():
                self._try_now = True
            case _Checkpoint():
                self._checkpoint()
            case RenewLeases():
                self._pending.append(message)
                self.after(self._ttl_ms / 3000, RenewLeases())
            case _:
                self._pending.append(message)

    def after_batch(self) -> None:
        """Commit everything that is pending, then answer. While the database refuses work, only when it is time to try again."""
        if not self._pending or not (self._available or self._try_now):
            return
        self._try_now = False
        batch, self._pending = self._pending, []
        try:
            replies = self._commit(batch)
        except _UNAVAILABLE as error:
            self._wait_out(batch, error)
            return
        except _REFUSED as error:
            self._stir()  # what was seen in a transaction that was undone is not so
            replies = self._write_refused(batch[0], error) if len(batch) == 1 else self._one_by_one(batch)
        if not self._available and not self._pending:
            self._available = True
            logger.warning("the database works again; nothing was lost")
            replies.append((DISPATCHER, StoreRecovered()))
        for name, reply in replies:
            self.tell(name, reply)

    def _commit(self, batch: Sequence[object]) -> Replies:
        connection = self._open_connection
        replies: Replies = []
        with connection.write():
            for message in batch:
                replies += self._write(connection, message)
        if connection.unsettled and not self._settling:
            self._settling = True
            self.after(0.0, _SettleMore())
        return replies

    def _one_by_one(self, batch: list[object]) -> Replies:
        replies: Replies = []
        for position, message in enumerate(batch):
            try:
                replies += self._commit([message])
            except _UNAVAILABLE as error:
                self._wait_out(batch[position:], error)
                return replies
            except _REFUSED as error:
                self._stir()
                replies += self._write_refused(message, error)
        return replies

    def _write_refused(self, message: object, error: Exception) -> Replies:
        """The traceback goes to the log, and to the job that somebody refused its write. With nobody to tell it is a bug, for the supervisor."""
        lease = getattr(message, "lease", None) or getattr(getattr(message, "call", None), "lease", None)
        reply_to = getattr(message, "reply_to", None)
        if lease is None or reply_to is None:
            raise error
        logger.error("the database refused %s", type(message).__name__, exc_info=error)
        return [
            (reply_to, StoreRefused(lease, f"{type(message).__name__} was refused; the worker's log has the details"))
        ]

    def _wait_out(self, batch: list[object], error: DatabaseError) -> None:
        self._pending = batch + self._pending
        self._stir()  # as above
        if self._available:
            self._available = False
            logger.error("%s; waiting for it to work again, nothing is lost meanwhile", error)
            self.tell(DISPATCHER, StoreUnavailable(str(error)))
        self.after(TRY_AGAIN, _TryAgain())

    def _write(self, c: Connection, message: object) -> Replies:
        match message:
            case ClaimJobs():
                return self._claim(c, message)
            case CheckLeases():
                return self._check(c, message)
            case HoldLane():
                return self._hold_lane(c, message)
            case RenewLeases():
                return self._renew(c, message)
            case SweepBoard():
                return self._sweep(c, message)
            case RecordIntent():
                return self._intend(c, message)
            case LookUpAnswer():
                return self._answers.look_up(c, message, self.now_ms())
            case LeaveFlight():
                return self._answers.leave(c, message)
            case RecordOutcome():
                return self._book(c, message)
            case SaveStep():
                return self._save_step(c, message)
            case SaveHandle(call_id=call_id, handle=handle):
                handles.keep(c, call_id, handle)
                return []
            case AppendChunks():
                return self._append(c, message)
            case SetProgress():
                return self._progress(c, message)
            case FinishJob():
                return self._finish(c, message)
            case ReleaseJob():
                return self._release(c, message)
            case LoadUsage():
                return self._limits.load(c, message, self.now_ms())
            case SaveHold():
                return self._limits.save_hold(c, message, self.now_ms())
            case LowerLimits():
                return self._limits.lower(c, message, self.now_ms())
            case SaveDescription():
                return self._limits.describe(c, message, self.now_ms())
            case AskCompany() | OrderBatch():
                return batch_desk.answer(c, message, self.now_ms(), self.name, self._budgets.configured)
            case _SettleMore():
                return self._settle_more(c)
            case _:
                self.unhandled(message)

    def _checkpoint(self) -> None:
        """Apart from any commit, so that nobody waits behind it: a commit that checkpoints takes tens of milliseconds."""
        self.after(CHECKPOINT_EVERY, _Checkpoint())
        if self._available and self._open_connection.commits != self._checkpointed:
            self._checkpointed = self._open_connection.commits
            try:
                self._open_connection.checkpoint()
            except DatabaseError as error:
                logger.warning("could not checkpoint, the next one may: %s", error)

    # --- looking without a transaction ----------------------------------------------------------------------------------------------

    def _quiet(self, look: ClaimJobs) -> bool:
        """Whether nothing can have changed since a look that left nothing claimable: no commit by others, nothing due, none of our own."""
        if look.force or not self._available or self._pending or self._seen_version is None:
            return False
        due = self._known.due_ms if self._known is not None else None
        if due is not None and due <= self.now_ms():
            return False
        return self._version() == self._seen_version

    def _version(self) -> int | None:
        try:
            return self._open_connection.data_version()
        except DatabaseError:
            return None  # no information: look properly

    # --- the writes -----------------------------------------------------------------------------------------------------------------

    def _claim(self, c: Connection, order: ClaimJobs) -> Replies:
        now = self.now_ms()
        # Before the transaction's reads, so that a commit that comes after them is seen as a change.
        version = c.data_version()
        known = self._known if self._known is not None and self._known.holds(version, now) else None
        if known is None:
            self._upkeep.fire_schedules(c, now)
            claims.promote_due(c, now, PASS_LIMIT)
            claims.expire_unstarted(c, now, PASS_LIMIT)
        jobs: list[tuple[str, ClaimedJob]] = []
        suspects = claims.suspects_waiting(c, now=now, lanes=order.quotas)
        if order.alone or not suspects:
            jobs = self._claim_parts(c, order, now, alone=suspects)
        self._lanes = tuple(order.quotas)
        # While claims are filled, the lanes are as they were, but for how deep they are.
        if known is None or len(jobs) < order.slots:
            known = _Known(version, tuple(claims.lanes(c)), claims.next_due(c, now))
        self._seen_version, self._known = version, known
        claimed = JobsClaimed(
            number=order.number, jobs=tuple(jobs), lanes=known.lanes, suspects=suspects, next_due_ms=known.due_ms
        )
        return [(order.reply_to, claimed)]

    def _claim_parts(self, c: Connection, order: ClaimJobs, now: int, *, alone: bool) -> list[tuple[str, ClaimedJob]]:
        """For one group of runners after the other, each from what those before it have left."""
        claimed: list[tuple[str, ClaimedJob]] = []
        left = dict(order.quotas)
        for part in order.parts:
            slots = min(part.slots, order.slots - len(claimed))
            if slots <= 0 or (alone and claimed):
                break
            jobs = claims.claim(
                c,
                owner=self._board.owner,
                slots=slots,
                quotas={lane: left[lane] for lane in part.lanes},
                shared=order.keys,
                start=self._start,
                lease_until=now + self._ttl_ms,
                now=now,
                actor=order.reply_to,
                alone=alone,
            )
            for job in jobs:
                shared = order.keys.get(job.lane)
                for lane in [job.lane] if shared is None else [lane for lane in left if order.keys.get(lane) == shared]:
                    left[lane] -= 1
            claimed += [(part.group, job) for job in jobs]
        return claimed

    def _check(self, c: Connection, order: CheckLeases) -> Replies:
        return [(order.reply_to, LeasesLost(tuple(claims.lost(c, order.leases))))]

    def _hold_lane(self, c: Connection, order: HoldLane) -> Replies:
        if order.reason is None:
            claims.free_lane(c, order.lane, self.now_ms())
        else:
            claims.hold_lane(c, order.lane, order.reason, self.now_ms())
        return []

    def _renew(self, c: Connection, _: RenewLeases) -> Replies:
        claims.renew(c, self._board.owner, self.now_ms() + self._ttl_ms)
        return []

    def _sweep(self, c: Connection, order: SweepBoard) -> Replies:
        now = self.now_ms()
        board = self._board
        before = set(claims.owners(c))
        back = claims.rescue(c, now=now, is_dead=board.is_dead, my_owner=board.owner, limit=PASS_LIMIT)
        if back:
            logger.warning("took back %d jobs of processes that died", len(back))
        for owner in before - set(claims.owners(c)) - {board.owner}:
            board.forget(owner)
        claims.expire_unstarted(c, now, PASS_LIMIT)  # also when nobody has a free runner to claim for
        self._age(c, now)
        self._start = claims.next_start(c, self._lanes, self._start)
        orphans = claims.sweep_orphans(c, board.owner, order.held, FOREVER, now)
        if orphans:
            logger.warning("handed back %d jobs that nobody here was working on", len(orphans))
        repaired = self._repair(c, now)
        fired = self._upkeep.fire_schedules(c, now)  # as above
        self._upkeep.prune(c, now)
        self._answers.prune(c, now)
        freed = self._budgets.begin(c, now)
        if back or orphans or repaired or fired or freed:
            self._stir()
        return self._limits.news(c, self._limit_keys(), now)

    def _limit_keys(self) -> list[str]:
        prefix = limiter_name("")
        names = [life.name for life in self.system.directory.lives()]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    def _age(self, c: Connection, now: int) -> None:
        ageing = self._ageing
        if ageing is not None:
            claims.age(
                c,
                now,
                after=round(ageing.after * 1000),
                step=ageing.step,
                every=max(1, round(ageing.every * 1000)),
                most=ageing.max,
                limit=PASS_LIMIT,
            )

    def _intend(self, c: Connection, order: RecordIntent) -> Replies:
        if order.call.epoch > 1 and ledger.lease_stands(c, order.call.lease):
            # Whoever held the job before may have been answered, and booked it, after this lease got its memo.
            kept = ledger.memo(c, [order.call.job_id])[order.call.job_id].completions.get(order.intent.step)
            if kept is not None:
                return [(order.reply_to, CallRemembered(order.call, kept))]
        if order.resumes is not None and handles.take_up(c, order.call.lease, order.resumes):
            return [(order.reply_to, IntentRecorded(order.call, order.resumes))]
        now = self.now_ms()
        if refused := self._limits.check(c, order.call, order.reply_to, order.gate, now):
            return refused
        if (too_dear := self._budgets.refuses(c, order, now)) is not None:
            return [(order.reply_to, too_dear)]
        call_id = ledger.record_intent(c, order.call.lease, order.intent, now)
        if call_id is None:
            return [(order.reply_to, LeaseLost(order.call.lease))]
        self._budgets.reserve(c, call_id, now)
        return [(order.reply_to, IntentRecorded(order.call, call_id, self._limits.charge(c, order.gate, now)))]

    def _book(self, c: Connection, order: RecordOutcome) -> Replies:
        now = self.now_ms()
        self._limits.settle(c, order.held, order.used, order.ended_ms, now)
        woken = self._answers.on_outcome(c, order, now)
        return [*self._book_outcome(c, order, now), *woken]

    def _book_outcome(self, c: Connection, order: RecordOutcome, now: int) -> Replies:
        if not ledger.record_outcome(c, order.call.lease, order.call_id, order.outcome, now):
            unwanted = handles.give_up(c, order.call_id)
            lost = (order.reply_to, LeaseLost(order.call.lease))
            return [lost] if unwanted is None else [lost, (provider_name(unwanted[0]), EndKept(unwanted[1]))]
        # Whoever held the job before may have been answered while this call was under way: the step goes by what was kept first.
        first = ledger.first_completion(c, order.call_id) if order.call.epoch > 1 else None
        return [(order.reply_to, OutcomeRecorded(order.call) if first is None else CallRemembered(order.call, first))]

    def _save_step(self, c: Connection, order: SaveStep) -> Replies:
        kept = ledger.save_step(c, order.lease, order.name, order.value, self.now_ms())
        return [(order.reply_to, StepSaved(order.lease, order.name) if kept else LeaseLost(order.lease))]

    def _append(self, c: Connection, order: AppendChunks) -> Replies:
        kept = job_store.append_chunks(c, order.lease, order.chunks, self.now_ms())
        return [] if kept else [(order.reply_to, LeaseLost(order.lease))]

    def _progress(self, c: Connection, order: SetProgress) -> Replies:
        job_store.set_progress(c, order.lease, order.percent, order.message, self.now_ms())
        return []

    def _finish(self, c: Connection, order: FinishJob) -> Replies:
        state = self._write_verdict(c, order)
        if state is None:
            return [(order.reply_to, LeaseLost(order.lease))]
        if state in TERMINAL_STATES:
            self._seen_version = None  # look again; but it has put nothing on the board
        else:
            self._stir()
        return [(order.reply_to, JobRecorded(order.lease, state)), *self._answers.on_lease_over(order.lease)]

    def _write_verdict(self, c: Connection, order: FinishJob) -> JobState | None:
        lease, now, actor = order.lease, self.now_ms(), order.reply_to
        match order.verdict:
            case Complete(result, said):
                if not job_store.complete(c, lease, result, now, actor):
                    return None
                if said is not None:
                    conversations.extend(c, lease.job_id, said, now, actor=actor)
                return JobState.COMPLETED
            case Fail(error, reason):
                return JobState.FAILED if job_store.fail(c, lease, error, now, actor, reason) else None
            case RetryLater(error, run_at_ms, reason, most):
                return job_store.retry_later(c, lease, error, run_at_ms, now, actor, reason, max_attempts=most)
            case Spawn(step=step, children=children, quorum=quorum):
                spawned = family.spawn(c, lease, step, children, quorum, now, actor)
                return JobState.WAITING_CHILDREN if spawned else None
            case JoinBatch(requests):
                return JobState.WAITING_CHILDREN if batches.join(c, lease, requests, now, actor) else None
            case Release(cause=cause, reason=reason, held_by=held_by, held_until_ms=held_until):
                return job_store.release(
                    c, lease, cause=cause, reason=reason, now=now, actor=actor, held_by=held_by, held_until=held_until
                )

    def _release(self, c: Connection, order: ReleaseJob) -> Replies:
        job_store.release(c, order.lease, cause=order.cause, reason=order.reason, now=self.now_ms(), actor=self.name)
        self._stir()
        return self._answers.on_lease_over(order.lease)

    def _settle_more(self, c: Connection) -> Replies:
        self._settling = False
        flows.settle_more(c, self.now_ms(), self.name)
        self._stir()
        return []

    def _repair(self, c: Connection, now: int) -> list[int]:
        """Put right who waits on what has ended already: by plain SQL, or in a cascade that its writer did not live to finish."""
        repaired, self._repaired_to = flows.repair(
            c, after=self._repaired_to, now=now, actor=self.name, limit=REPAIR_LIMIT
        )
        if repaired:
            logger.warning(
                "put right %d jobs that waited on what had ended, among them job %d", len(repaired), repaired[0]
            )
        return repaired

    def _stir(self) -> None:
        """Our own commit may have made a job claimable, or due at some time, which `data_version` does not show."""
        self._seen_version = self._known = None
