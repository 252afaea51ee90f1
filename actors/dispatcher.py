"""The dispatcher: looks at the board, claims for free runners, and sizes their pool.

It wakes on hints and on a timer, so that a lost hint costs latency and nothing else. What it knows of the runners is in memory only: a new
dispatcher asks them to report, claims and sweeps nothing until all have, and then hands back whatever nobody holds. The pool grows by
claiming for runners that do not exist yet and starting them; it shrinks when they idle.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..persistence.model import ClaimedJob, LaneDepth, Lease
from .kernel.actor import Actor
from .kernel.ask import ReplyTo
from .kernel.errors import ActorUnavailableError
from .kernel.messages import explain
from .kernel.system import ActorSystem
from .memory import rss_mb
from .messages import (
    ROOT,
    RUNNERS,
    STORE,
    BoardQuiet,
    CheckLeases,
    ClaimJobs,
    ClaimPart,
    Describe,
    Drain,
    HandBack,
    HandlerAbandoned,
    HandlerReturned,
    Hasten,
    HoldLane,
    JobsClaimed,
    KeyFreed,
    KeyHeld,
    LeasesLost,
    ReleaseJob,
    ReportIn,
    RevokeJob,
    RunJob,
    RunnerBusy,
    RunnerIdle,
    StoreRecovered,
    StoreUnavailable,
    SweepBoard,
    WakeUp,
    limiter_name,
)
from .plan import Allowance, Plan, plan_claim, runners_allowed, surplus
from .roster import Roster, asked, runner_groups
from .settings import CompanySettings
from .snapshot import CompanySnapshot
from .supervisor.messages import ChildDown, ChildHung, ChildStarted, GiveUp, StartChild, StopChild
from .supervisor.spec import ChildSpec

logger = logging.getLogger(__name__)

STOPPING = "the worker is stopping"
SLOTS_AT_ONCE = 64
"""What one claim takes at most, so that no claim holds up the others' writes for long; there is another at once if it took that many."""
FREED_FOR_MS = 1000
"""How long a limiter's word on its headroom is taken for true."""


@dataclass(frozen=True, slots=True)
class _Tick:
    """Look at the board."""


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Repair, shrink, report."""


@dataclass(frozen=True, slots=True)
class _DrainDeadline:
    """What is unfinished goes back."""


class DispatcherActor(Actor):
    """One per company. `runner_spec` makes the child spec of a runner by its name; `types` are the job types that can be performed."""

    shares_thread: ClassVar[bool] = True

    def __init__(
        self,
        system: ActorSystem,
        *,
        settings: CompanySettings,
        types: frozenset[str],
        runner_spec: Callable[[str], ChildSpec],
        memory: Callable[[], float | None] = rss_mb,
    ) -> None:
        super().__init__(system)
        self._settings = settings
        self._types = types
        self._runner_spec = runner_spec
        self._memory = memory
        self._idle: dict[str, float] = {}
        self._busy: dict[str, Lease] = {}
        self._starting: set[str] = set()
        self._leaving: set[str] = set()
        self._unheard: set[str] = set()
        self._roster = Roster(runner_groups(settings))
        self._unassigned: deque[tuple[str, ClaimedJob]] = deque()
        self._alone: Lease | None = None
        self._suspects = False
        self._lanes: tuple[LaneDepth, ...] = ()
        self._plan = Plan({}, {}, {})
        self._allowances: dict[str, Allowance] = {}
        self._claiming: ClaimJobs | None = None
        self._claims = 0
        self._asked: dict[tuple[str, str], int] = {}
        self._freed: set[str] = set()
        self._checking = False
        self._sweep_due = True
        self._more = True
        self._settled = False
        self._next_due: int | None = None
        self._draining: list[ReplyTo[None]] = []
        self._look_due = False
        self._fenced = False
        self._hasty = False
        self._stopping = False
        self._store_problem: str | None = None
        self._abandoned: dict[Lease, str] = {}
        self._claimed = 0
        self._memory_mb: float | None = None

    def on_start(self) -> None:
        """Learn who is there, and begin to look."""
        for name in self._roster.names:
            if self.system.directory.find(name) is not None:
                self._unheard.add(name)
                self.tell(name, ReportIn())
        for life in self.system.directory.lives():
            if life.name.startswith(limiter_name("")):
                self.tell(life.name, ReportIn())
        self.after(self._settings.poll_interval, _Tick())
        self.after(self._settings.sweep_interval, _Sweep())
        self._on_heard()

    def on_failure(self, *_: object) -> None:
        """Whoever waits for the drain waits in vain: the next life knows nothing of it."""
        for done in self._draining:
            done.fail(ActorUnavailableError("the dispatcher crashed while it drained"))

    def receive(self, message: object) -> None:
        """Dispatch."""
        match message:
            case _Tick():
                self.after(self._settings.poll_interval, _Tick())
                if self._busy and not self._checking and self._store_problem is None:
                    self._checking = True
                    self.tell(STORE, CheckLeases(self.name, tuple(self._busy.values())))
                self._look()
            case WakeUp():
                self._more = True
                self._look()
            case JobsClaimed():
                self._on_claimed(message)
            case BoardQuiet(number):
                if self._claiming is not None and self._claiming.number == number:
                    self._claiming = None
                    self._settle()
                    self._sweep_if_due()
                    self._check_drained()
            case RunnerIdle(runner, done):
                self._on_idle(runner, done)
            case RunnerBusy(runner, lease, alone):
                self._on_busy(runner, lease, alone)
            case LeasesLost(leases):
                self._on_leases_lost(leases)
            case KeyHeld(key, until_ms, _, kind):
                self._allowances[key] = Allowance(0, until_ms, kind)
            case KeyFreed(key, headroom):
                self._on_key_freed(key, headroom)
            case ChildDown(child, _, reason, will_restart):
                self._on_runner_down(child, f"runner {explain(reason)}", will_restart)
            case ChildHung(child, _, doing, seconds):
                self._on_runner_down(child, f"runner hung in {doing} for {seconds:.1f} s", will_restart=True)
            case ChildStarted():
                pass  # a runner offers itself with RunnerIdle
            case HandlerAbandoned(runner, lease):
                self._on_abandoned(runner, lease)
            case HandlerReturned(_, lease):
                self._abandoned.pop(lease, None)
            case StoreUnavailable(reason):
                self._store_problem = reason
            case StoreRecovered():
                self._store_problem = None
                self._more = True
                self._look()
            case _Sweep():
                self._on_sweep()
            case Drain(deadline, done):
                self._on_drain(deadline, done)
            case _DrainDeadline() | Hasten():
                self._hand_back_all()
            case Describe(reply_to):
                reply_to.set(self._snapshot())
            case _:
                self.unhandled(message)

    def after_batch(self) -> None:
        """One look for all the runners that were heard of together: a claim for the first alone would have the others wait for its commit."""
        if self._look_due:
            self._look_due = False
            self._look()

    # --- claiming -------------------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Ask the store for work, one question at a time."""
        if self._claiming is not None or self._stopping or self._store_problem is not None or self._alone is not None:
            return
        if self._unheard:  # their jobs count as being worked on, and one of them may have to run alone
            return
        alone = not self._busy and not self._unassigned
        slots = self._slots()
        if slots <= 0 or (self._suspects and not alone):
            return
        self._plan = self._plan_for(self._lanes, slots)
        # Where no lane is known to have jobs, a look for none would only be told what is known.
        slots = min(slots, self._plan.most or slots)
        parts = self._parts(self._plan, slots)
        # What an earlier look was not allowed to claim is claimable now although nobody has touched the board.
        force = self._more or any(
            quota > self._asked.get(what, 0) for what, quota in asked(self._plan.quotas, parts).items()
        )
        self._claim(slots, self._plan, parts, alone=alone, force=force)

    def _claim(self, slots: int, plan: Plan, parts: tuple[ClaimPart, ...], *, alone: bool, force: bool) -> None:
        self._claims += 1
        self._claiming = ClaimJobs(
            reply_to=self.name,
            number=(self.generation << 32) + self._claims,
            slots=slots,
            quotas=plan.quotas,
            keys=plan.keys,
            parts=parts,
            alone=alone,
            force=force,
        )
        self.tell(STORE, self._claiming)

    def _on_claimed(self, claimed: JobsClaimed) -> None:
        order = self._claiming
        # Asked for by the life before, which is not there to answer for them.
        if order is None or order.number != claimed.number:
            self._return((job for _, job in claimed.jobs), "its dispatcher had ended")
            return
        self._claiming = None
        if self._stopping:
            self._return((job for _, job in claimed.jobs), STOPPING)
            self._check_drained()
            return
        self._asked = asked(order.quotas, order.parts)
        self._lanes = claimed.lanes
        self._next_due = claimed.next_due_ms
        self._suspects = claimed.suspects
        self._claimed += len(claimed.jobs)
        for group, job in claimed.jobs:
            self._count_against_allowance(job)
            if job.alone:
                self._alone = job.lease
            self._assign(group, job)
        slots = self._slots()
        plan = self._plan_for(claimed.lanes, slots)
        news = {lane: reason for lane, reason in plan.unroutable.items() if lane not in self._plan.unroutable}
        self._plan = replace(plan, quotas=self._plan.quotas, keys={**self._plan.keys, **plan.keys})
        self._note_unroutable(news)
        self._free_routable(claimed.lanes)
        # Whether there is more to claim: unless that was all that a limit allows.
        self._more = len(claimed.jobs) >= order.slots and (slots <= 0 or bool(plan.quotas))
        if any(what not in self._asked for what in asked(plan.quotas, self._parts(plan, slots))):
            self._more = True
        if self._more:
            self._look()
        elif not claimed.jobs:
            self._settle()
        self._sweep_if_due()

    def _plan_for(self, lanes: tuple[LaneDepth, ...], slots: int) -> Plan:
        return plan_claim(
            lanes,
            slots=slots,
            settings=self._settings,
            types=self._types,
            allowances=self._allowances,
            now_ms=self.now_ms(),
            groups=self._roster.groups,
        )

    def _parts(self, plan: Plan, slots: int) -> tuple[ClaimPart, ...]:
        """What each group may claim: a different one first each time, for where slots are short."""
        unassigned = [group for group, _ in self._unassigned]
        return self._roster.parts(plan.groups, busy=self._busy, unassigned=unassigned, slots=slots, turn=self._claims)

    def _slots(self) -> int:
        return min(SLOTS_AT_ONCE, self._allowed() - len(self._busy) - len(self._unassigned))

    def _allowed(self) -> int:
        runners = self._settings.runners
        return runners_allowed(
            minimum=runners.min,
            maximum=runners.max,
            running=self._running(),
            memory_mb=self._memory_mb,
            cap_mb=runners.memory_mb,
        )

    def _count_against_allowance(self, job: ClaimedJob) -> None:
        key = self._plan.keys.get(job.lane)
        allowance = self._allowances.get(key) if key is not None else None
        if key is not None and allowance is not None:
            self._allowances[key] = allowance.less_one()

    def _on_key_freed(self, key: str, headroom: int | None) -> None:
        if headroom is None:
            self._allowances.pop(key, None)
        else:
            self._allowances[key] = Allowance(headroom, self.now_ms() + FREED_FOR_MS)
        self._more = True
        self._look()

    def _settle(self) -> None:
        self._settled = not self._busy and not self._unassigned

    # --- runners --------------------------------------------------------------------------------------------------------------------

    def _assign(self, group: str, job: ClaimedJob) -> None:
        self._settled = False
        # The one that idled last, so that the others can leave.
        runner = next((runner for runner in reversed(self._idle) if self._roster.group_of(runner) == group), None)
        if runner is not None:
            self._give(runner, job)
            return
        self._unassigned.append((group, job))
        self._fill_pool()

    def _give(self, runner: str, job: ClaimedJob) -> None:
        del self._idle[runner]
        self._busy[runner] = job.lease
        if not self.tell(runner, RunJob(job)):  # it has just ended; its ChildDown is on its way
            del self._busy[runner]
            self._starting.add(runner)
            if job.lease == self._alone:
                self._alone = None
            self._return([job], "its runner had just ended")

    def _fill_pool(self) -> None:
        """Start a runner for each job that has none, and as many as there must be at least."""
        missing = self._settings.runners.min - self._running()
        if len(self._unassigned) <= len(self._starting) and missing <= 0:
            return
        taken = {*self._idle, *self._busy, *self._starting, *self._leaving, *self._unheard}
        unassigned = [group for group, _ in self._unassigned]
        for name in self._roster.to_start(taken, starting=self._starting, unassigned=unassigned, at_least=missing):
            self._starting.add(name)
            self.tell(RUNNERS, StartChild(self._runner_spec(name)))

    def _running(self) -> int:
        return len(self._idle) + len(self._busy) + len(self._starting) + len(self._unheard)

    def _on_heard(self) -> None:
        """When everybody who was there at the start has reported: begin."""
        if not self._unheard:
            self._fill_pool()
            self._sweep_if_due()  # a process that takes the place of a killed one takes back its jobs at once
            self._look_due = True

    def _on_busy(self, runner: str, lease: Lease, alone: bool) -> None:
        self._unheard.discard(runner)
        self._starting.discard(runner)
        self._idle.pop(runner, None)
        self._busy[runner] = lease
        if alone:
            self._alone = lease
        if self._hasty:
            self.tell(runner, HandBack(STOPPING))
        self._on_heard()

    def _on_idle(self, runner: str, done: Lease | None) -> None:
        if runner in self._leaving or self._busy.get(runner, done) != done:
            return  # said before it got the order it has now
        self._unheard.discard(runner)
        self._starting.discard(runner)
        self._busy.pop(runner, None)
        if done is not None and done == self._alone:
            self._alone = None
            self._more = True
        self._idle.pop(runner, None)  # they stand in the order of idling
        self._idle[runner] = self.monotonic()
        group = self._roster.group_of(runner)
        waiting = next((entry for entry in self._unassigned if entry[0] == group), None)
        if waiting is not None:
            self._unassigned.remove(waiting)
            self._give(runner, waiting[1])
        self._check_drained()
        self._on_heard()

    def _on_runner_down(self, runner: str, reason: str, will_restart: bool) -> None:
        self._idle.pop(runner, None)
        self._starting.discard(runner)
        self._leaving.discard(runner)
        self._unheard.discard(runner)
        lease = self._busy.pop(runner, None)
        if lease is not None:
            if lease == self._alone:
                self._alone = None
            self.tell(STORE, ReleaseJob(lease=lease, cause="loss", reason=reason))
            self._more = True
        if will_restart:
            self._starting.add(runner)
        self._check_drained()
        self._on_heard()

    def _on_leases_lost(self, leases: tuple[Lease, ...]) -> None:
        self._checking = False
        lost = set(leases)
        for runner, lease in self._busy.items():
            if lease in lost:
                self.tell(runner, RevokeJob(lease))

    def _on_abandoned(self, runner: str, lease: Lease) -> None:
        if lease in self._abandoned:
            return
        self._abandoned[lease] = runner
        logger.error(
            "the handler of job %d did not end when it was interrupted; its thread is left behind", lease.job_id
        )
        if len(self._abandoned) > self._settings.max_abandoned:
            reason = f"{len(self._abandoned)} handlers did not end when they were interrupted (max_abandoned is {self._settings.max_abandoned})"
            self.tell(ROOT, GiveUp(reason))

    # --- repair, shrinking, ending --------------------------------------------------------------------------------------------------

    def _on_sweep(self) -> None:
        self.after(self._settings.sweep_interval, _Sweep())
        self._memory_mb = self._memory()
        self._sweep_due = True
        self._sweep_if_due()
        if self._store_problem is None:
            self._note_unroutable(self._plan.unroutable)
        if not self._stopping:
            self._fill_pool()
            self._shrink_pool()

    def _sweep_if_due(self) -> None:
        """Sweep at a moment when every job claimed is known here: none is on its way from the store, no runner has yet to report."""
        if self._sweep_due and self._claiming is None and not self._unheard and self._store_problem is None:
            self._sweep_due = False
            self.tell(STORE, SweepBoard(frozenset([*self._busy.values(), *(job.lease for _, job in self._unassigned)])))

    def _shrink_pool(self) -> None:
        kept = set(self._abandoned.values())  # only they can tell when their handler returns after all
        leaving = surplus(
            {name: since for name, since in self._idle.items() if name not in kept},
            running=self._running(),
            minimum=self._settings.runners.min,
            allowed=self._allowed(),
            now=self.monotonic(),
            idle_timeout=self._settings.runners.idle_timeout,
        )
        for runner in leaving:
            del self._idle[runner]
            self._leaving.add(runner)  # its name is free again when it is down
            self.tell(RUNNERS, StopChild(runner))

    def _note_unroutable(self, lanes: Mapping[str, str]) -> None:
        for lane, reason in lanes.items():
            self.tell(STORE, HoldLane(lane, f"unroutable: {reason}"))

    def _free_routable(self, lanes: Iterable[LaneDepth]) -> None:
        """Take off the notes of those who could not run what can be run here. Once: they may be there still, and note it again."""
        for lane in lanes:
            if lane.noted and lane.lane not in self._freed and lane.lane not in self._plan.refused:
                self._freed.add(lane.lane)
                self.tell(STORE, HoldLane(lane.lane, None))

    def _on_drain(self, deadline: float, done: ReplyTo[None]) -> None:
        self._stopping = True
        self._draining.append(done)
        self._return([job for _, job in self._unassigned], STOPPING)
        self._unassigned.clear()
        if deadline > 0:
            self.after(deadline, _DrainDeadline())
        else:
            self._hand_back_all()
        self._check_drained()

    def _return(self, jobs: Iterable[ClaimedJob], reason: str) -> None:
        """Hand back what was claimed but not begun."""
        for job in jobs:
            self.tell(STORE, ReleaseJob(lease=job.lease, cause="handback", reason=reason))
            self._more = True

    def _hand_back_all(self) -> None:
        self._hasty = True
        for runner in self._busy:
            self.tell(runner, HandBack(STOPPING))

    def _check_drained(self) -> None:
        if self._draining and not self._busy and not self._unheard and self._claiming is None:
            if not self._fenced:
                # Runners idle while the ends of their jobs are on their way to the disk: what the store answers now, it says after those.
                self._fenced = True
                self._claim(0, Plan({}, {}, {}), (), alone=False, force=True)
                return
            for done in self._draining:
                done.set(None)

    def _snapshot(self) -> CompanySnapshot:
        now = self.now_ms()
        return CompanySnapshot(
            runners=self._running(),
            busy=len(self._busy),
            settled=self._settled and not self._busy and not self._unassigned and self._claiming is None,
            draining=self._stopping,
            store_problem=self._store_problem,
            lanes=self._lanes,
            unroutable=dict(self._plan.unroutable),
            paused=tuple(self._plan.paused),
            elsewhere=tuple(self._plan.elsewhere),
            held_keys={key: a.until_ms for key, a in self._allowances.items() if a.left == 0 and a.until_ms > now},
            next_due_ms=self._next_due,
            abandoned=len(self._abandoned),
            claimed=self._claimed,
            memory_mb=self._memory_mb,
        )
