"""What the store does about the board itself: it claims jobs for the dispatcher, keeps leases, and sweeps up what died or fell due.

It remembers what the last look found, so that looking again costs nothing while nothing can have changed. For the store's actor, in its
transactions.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ..persistence import claims, flows
from ..persistence.claims import FOREVER
from ..persistence.engine import Connection
from ..persistence.model import ClaimedJob, LaneDepth
from .answer_cache import AnswerCache
from .messages import CheckLeases, ClaimJobs, HoldLane, JobsClaimed, LeasesLost, SweepBoard
from .settings import AgeingSettings
from .shared_budgets import SharedBudgets
from .shared_limits import SharedLimits
from .upkeep import Upkeep

logger = logging.getLogger(__name__)

Replies = list[tuple[str, object]]
CHECK_ANYWAY_MS = 1000
"""Leases are checked so often although nobody else has written: should a write of our own ever take one."""
LANES_FOR_MS = 100
"""How long the lanes that a look found are believed in."""
REPAIR_LIMIT = 2000
"""Waiting jobs that one pass of the repair looks at; what it settles is bounded as any cascade is."""
PASS_LIMIT = 500
"""Jobs promoted, expired or rescued in one pass: bounded work, so that no pass holds the write lock for long."""


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
class _Known:
    """What a look found that lasts until somebody else commits (another `data_version`) or a write of our own puts jobs on the board.

    `due_ms`: nothing changes by time alone before then. `until_ms`: a write of our own may also let go jobs of a lane that had none (who waited on
    others, whose hold was lifted); where every look is filled from the lanes that are known, nobody would ever see them.
    """

    version: int
    lanes: tuple[LaneDepth, ...]
    due_ms: int | None
    until_ms: int

    def holds(self, version: int, now: int) -> bool:
        """Whether it is still so."""
        return self.version == version and now < self.until_ms and (self.due_ms is None or now < self.due_ms)


class ClaimDesk:
    """Claims and sweeps for one store. For one thread. `limits`, `budgets`, `answers`: a sweep looks after what they keep on the board as well."""

    def __init__(
        self,
        board: Board,
        *,
        ttl_ms: int,
        ageing: AgeingSettings | None,
        retention_days: float,
        limits: SharedLimits,
        budgets: SharedBudgets,
        answers: AnswerCache,
    ) -> None:
        self._board = board
        self._ttl_ms = ttl_ms
        self._ageing = ageing
        self._upkeep = Upkeep(retention_days)
        self._limits = limits
        self._budgets = budgets
        self._answers = answers
        self._lanes: tuple[str, ...] = ()
        self._start = ""
        self._seen_version: int | None = None
        self._checked: tuple[int, int] | None = None
        self._known: _Known | None = None
        self._repaired_to = 0

    # --- what is known without a look -----------------------------------------------------------------------------------------------

    def nothing_due(self, now: int) -> bool:
        """Whether the last look left nothing claimable, and time alone has changed nothing since."""
        due = self._known.due_ms if self._known is not None else None
        return self._seen_version is not None and (due is None or now < due)

    def seen(self, version: int | None) -> bool:
        """Whether the last look saw this version of the database."""
        return version == self._seen_version

    def look_again(self) -> None:
        """Our own commit freed somebody to take a job; but it has put nothing on the board."""
        self._seen_version = None

    def stir(self) -> None:
        """Our own commit may have made a job claimable, or due at some time, which `data_version` does not show."""
        self._seen_version = self._known = None

    # --- claims ---------------------------------------------------------------------------------------------------------------------

    def claim(self, c: Connection, order: ClaimJobs, now: int) -> Replies:
        """Claim what is asked for, and tell how the board stands."""
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
            known = _Known(version, tuple(claims.lanes(c)), claims.next_due(c, now), now + LANES_FOR_MS)
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

    def check(self, c: Connection, order: CheckLeases, now: int) -> Replies:
        """Which of these leases no longer stand."""
        version = c.data_version()
        lost = tuple(claims.lost(c, order.leases))
        self._checked = None if lost else (version, now + CHECK_ANYWAY_MS)
        return [(order.reply_to, LeasesLost(lost))]

    def all_stand(self, version: int | None, now: int) -> bool:
        """Whether the leases stand for all that a look can tell: they did when last checked, and nobody else has committed since."""
        return self._checked is not None and self._checked[0] == version and now < self._checked[1]

    def hold_lane(self, c: Connection, order: HoldLane, now: int) -> Replies:
        """Say why the jobs of a lane are not claimed, or that they are again."""
        if order.reason is None:
            claims.free_lane(c, order.lane, now)
        else:
            claims.hold_lane(c, order.lane, order.reason, now)
        return []

    def renew(self, c: Connection, now: int) -> Replies:
        """Renew every lease of this worker."""
        claims.renew(c, self._board.owner, now + self._ttl_ms)
        return []

    # --- sweeps ---------------------------------------------------------------------------------------------------------------------

    def sweep(self, c: Connection, order: SweepBoard, limit_keys: Iterable[str], now: int, actor: str) -> Replies:
        """Take back what died, let go what is due, forget what is old; the news of the limits of `limit_keys`."""
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
        repaired = self._repair(c, actor, now)
        fired = self._upkeep.fire_schedules(c, now)  # as above
        self._upkeep.prune(c, now)
        self._answers.prune(c, now)
        freed = self._budgets.begin(c, now)
        if back or orphans or repaired or fired or freed:
            self.stir()
        return self._limits.news(c, limit_keys, now)

    def hand_back_all(self, c: Connection, now: int) -> None:
        """The company stops: what is still held goes back to the board."""
        left = claims.sweep_orphans(c, self._board.owner, frozenset(), FOREVER, now)
        if left:
            logger.warning("handed back %d jobs that were not finished when the company stopped", len(left))

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

    def _repair(self, c: Connection, actor: str, now: int) -> list[int]:
        """Put right who waits on what has ended already: by plain SQL, or in a cascade that its writer did not live to finish."""
        repaired, self._repaired_to = flows.repair(c, after=self._repaired_to, now=now, actor=actor, limit=REPAIR_LIMIT)
        if repaired:
            logger.warning(
                "put right %d jobs that waited on what had ended, among them job %d", len(repaired), repaired[0]
            )
        return repaired
