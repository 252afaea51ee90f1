"""The store's actor: the one writer of the database in this process.

Group commit: what arrives while a transaction runs is written together in the next one, and every answer is sent only after its commit.
A database that refuses work (full disk, locked by a stranger) is a state to wait out, not a crash: everything told meanwhile is kept and
tried again. A write that is refused by itself, for good, is separated from the others and its job is told.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import ClassVar

from ..persistence import flows, handles
from ..persistence.budgets import Budget
from ..persistence.engine import Connection
from ..persistence.errors import (
    DatabaseBusyError,
    DatabaseDiskError,
    DatabaseError,
    DatabaseFullError,
    DatabaseReadOnlyError,
)
from . import batch_desk
from .answer_cache import AnswerCache
from .cache_settings import CacheSettings
from .claim_desk import Board, ClaimDesk
from .job_desk import JobDesk
from .kernel.actor import Actor
from .kernel.system import ActorSystem
from .messages import (
    DISPATCHER,
    AppendChunks,
    AskCompany,
    BoardQuiet,
    CheckLeases,
    ClaimJobs,
    Fail,
    FinishJob,
    HoldLane,
    LeasesLost,
    LeaveFlight,
    LoadUsage,
    LookUpAnswer,
    LowerLimits,
    OrderBatch,
    RecordIntent,
    RecordOutcome,
    ReleaseJob,
    RenewLeases,
    SaveDescription,
    SaveHandle,
    SaveHold,
    SaveStep,
    SetProgress,
    StoreRecovered,
    StoreRefused,
    StoreUnavailable,
    SweepBoard,
    limiter_name,
)
from .settings import AgeingSettings
from .shared_budgets import SharedBudgets
from .shared_limits import SharedLimits

logger = logging.getLogger(__name__)

Replies = list[tuple[str, object]]
CHECKPOINT_EVERY = 1.0
"""Seconds."""
TRY_AGAIN = 0.5
"""Seconds between tries while the database refuses work."""

_UNAVAILABLE = (DatabaseBusyError, DatabaseFullError, DatabaseDiskError, DatabaseReadOnlyError)
_REFUSED = (DatabaseError, TypeError, ValueError, OverflowError, RecursionError)
"""The database's own no, and what the driver and the JSON encoder raise for a value that neither can hold."""


@dataclass(frozen=True, slots=True)
class _TryAgain:
    """Time to see whether the database works again."""


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
        self._limits = SharedLimits(board.owner)
        self._budgets = SharedBudgets(budgets)
        self._answers = AnswerCache(cache or CacheSettings())
        self._claims = ClaimDesk(
            board,
            ttl_ms=self._ttl_ms,
            ageing=ageing,
            retention_days=retention_days,
            limits=self._limits,
            budgets=self._budgets,
            answers=self._answers,
        )
        self._jobs = JobDesk(claims=self._claims, limits=self._limits, budgets=self._budgets, answers=self._answers)
        self._pending: list[object] = []
        self._available = True
        self._connection: Connection | None = None
        self._checkpointed = 0
        self._try_now = False
        self._settling = False

    def on_start(self) -> None:
        """Open the connection, and begin to renew: the life before may have been down for a while."""
        self._connection = self._board.connect()
        self.after(0.0, RenewLeases())
        self.after(CHECKPOINT_EVERY, _Checkpoint())

    def on_stop(self) -> None:
        """Write what waits and hand back what is still held: whoever worked on it has been stopped before. Then close the connection."""
        try:
            with self._transaction():
                for message in self._pending:
                    self._write(self._open_connection, message)
            with self._transaction():
                self._claims.hand_back_all(self._open_connection, self.now_ms())
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
            case CheckLeases() if self._available and self._claims.all_stand(self._version(), self.now_ms()):
                self.tell(message.reply_to, LeasesLost(()))
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
            self._claims.stir()  # what was seen in a transaction that was undone is not so
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
        with self._transaction():
            for message in batch:
                replies += self._write(connection, message)
        if connection.unsettled and not self._settling:
            self._settling = True
            self.after(0.0, _SettleMore())
        return replies

    def _transaction(self) -> AbstractContextManager[object]:
        """Begin to write, remembering nothing of what others may have changed since the last time."""
        self._limits.new_transaction()
        self._budgets.new_transaction()
        return self._open_connection.write()

    def _one_by_one(self, batch: list[object]) -> Replies:
        replies: Replies = []
        for position, message in enumerate(batch):
            try:
                replies += self._commit([message])
            except _UNAVAILABLE as error:
                self._wait_out(batch[position:], error)
                return replies
            except _REFUSED as error:
                self._claims.stir()
                replies += self._write_refused(message, error)
        return replies

    def _write_refused(self, message: object, error: Exception) -> Replies:
        """The traceback goes to the log, and to the job that somebody refused its write. With nobody to tell it is a bug, for the supervisor."""
        if isinstance(message, FinishJob) and not isinstance(message.verdict, Fail):
            # Its runner has gone on to another job: nobody but us can say how this one ends.
            logger.error("the database refused how job %d ended", message.lease.job_id, exc_info=error)
            reason = f"the database refused a write: {error}"
            return self._one_by_one([replace(message, verdict=Fail({"class": "store", "message": reason}, reason))])
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
        self._claims.stir()  # as above
        if self._available:
            self._available = False
            logger.error("%s; waiting for it to work again, nothing is lost meanwhile", error)
            self.tell(DISPATCHER, StoreUnavailable(str(error)))
        self.after(TRY_AGAIN, _TryAgain())

    def _write(self, c: Connection, message: object) -> Replies:
        now = self.now_ms()
        match message:
            case ClaimJobs():
                return self._claims.claim(c, message, now)
            case CheckLeases():
                return self._claims.check(c, message, now)
            case HoldLane():
                return self._claims.hold_lane(c, message, now)
            case RenewLeases():
                return self._claims.renew(c, now)
            case SweepBoard():
                return self._claims.sweep(c, message, self._limit_keys(), now, self.name)
            case RecordIntent():
                return self._jobs.intend(c, message, now)
            case LookUpAnswer():
                return self._answers.look_up(c, message, now)
            case LeaveFlight():
                return self._answers.leave(c, message)
            case RecordOutcome():
                return self._jobs.book(c, message, now)
            case SaveStep():
                return self._jobs.save_step(c, message, now)
            case SaveHandle(call_id=call_id, handle=handle):
                handles.keep(c, call_id, handle)
                return []
            case AppendChunks():
                return self._jobs.append(c, message, now)
            case SetProgress():
                return self._jobs.progress(c, message, now)
            case FinishJob():
                return self._jobs.finish(c, message, now)
            case ReleaseJob():
                return self._jobs.release(c, message, now, self.name)
            case LoadUsage():
                return self._limits.load(c, message, now)
            case SaveHold():
                return self._limits.save_hold(c, message, now)
            case LowerLimits():
                return self._limits.lower(c, message, now)
            case SaveDescription():
                return self._limits.describe(c, message, now)
            case AskCompany() | OrderBatch():
                return batch_desk.answer(c, message, now, self.name, self._budgets.configured)
            case _SettleMore():
                return self._settle_more(c, now)
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
        if look.force or not self._available or self._pending or not self._claims.nothing_due(self.now_ms()):
            return False
        return self._claims.seen(self._version())

    def _version(self) -> int | None:
        try:
            return self._open_connection.data_version()
        except DatabaseError:
            return None  # no information: look properly

    # --- the rest ---------------------------------------------------------------------------------------------------------------------

    def _limit_keys(self) -> list[str]:
        prefix = limiter_name("")
        names = [life.name for life in self.system.directory.lives()]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    def _settle_more(self, c: Connection, now: int) -> Replies:
        self._settling = False
        flows.settle_more(c, now, self.name)
        self._claims.stir()
        return []
