"""The supervisor: an actor that keeps other actors alive, in OTP's terms, within the limits of threads.

It starts its children in order, each when the one before is ready; starts again those that end, after a delay that grows; stops
them in reverse order, each within its deadline; and gives up when restarting is pointless, by stopping everything and
ending as a crash, which its own supervisor (or the process) then sees. It never blocks and never asks: each message changes its records,
and then `_reconcile` does whatever the rules of order (children.py) allow next. The restart decision itself is decision.py.

A thread cannot be killed. A child that hangs is therefore *abandoned*: its mailbox is closed, its name goes to a new life, and its thread
is left behind and counted. When too many are, the supervisor gives up.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from ..kernel.actor import Actor
from ..kernel.messages import (
    Crashed,
    Down,
    ExitReason,
    Hung,
    Normal,
    Shutdown,
    Started,
    StartFailed,
    Unstuck,
    explain,
)
from ..kernel.system import ActorSystem
from ..kernel.timers import TimerToken
from .children import (
    ALIVE,
    SETTLED,
    Child,
    ChildState,
    ChildStatus,
    SupervisorStatus,
    next_to_take_down,
    startable,
    to_stop_at_the_end,
)
from .decision import Escalate, Remove, RestartAfter, decide
from .messages import (
    CheckForHangs,
    ChildDown,
    ChildHung,
    ChildStarted,
    GiveUp,
    RestartDue,
    StartChild,
    StartTimedOut,
    StopChild,
    StopTimedOut,
)
from .spec import ChildSpec, Intensity, Restart, Strategy

logger = logging.getLogger(__name__)

MAX_ABANDONED = 4
"""Threads a supervisor may have left behind at once before it gives up."""

HANG_CHECKS_PER_LIMIT = 4
"""How often a child is looked at within its `hang_after`, so that a hang is noticed at most a quarter late."""

LONGEST_HANG_CHECK = 1.0
"""Seconds. The most that passes between two looks."""


class EscalatedError(Exception):
    """A supervisor gave up; the text says over which child and why."""


class SupervisorActor(Actor):
    """Keeps its children alive.

    `children` are started in order and, with `rest_for_one`, depend on those before them. More come and go with `StartChild` and
    `StopChild`. The actor named `notify` is told `ChildStarted`, `ChildDown` and `ChildHung`; while it is not running they are not sent,
    so it must look at `status()` when it starts. The supervisor itself is ready when all its children have been.
    """

    announces_ready: ClassVar[bool] = True

    def __init__(
        self,
        system: ActorSystem,
        children: Sequence[ChildSpec] = (),
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        notify: str | None = None,
        max_abandoned: int = MAX_ABANDONED,
    ) -> None:
        super().__init__(system)
        repeated = [name for name, times in Counter(spec.id for spec in children).items() if times > 1]
        if repeated:
            raise ValueError(f"children need different ids, but {repeated} occur more than once")
        self._children = {spec.id: Child(spec, dynamic=False) for spec in children}
        self._strategy = strategy
        self._intensity = intensity or Intensity()
        self._notify = notify
        self._max_abandoned = max_abandoned
        self._recent: tuple[float, ...] = ()
        self._restarts = 0
        self._abandoned: set[tuple[str, int]] = set()
        self._closing: ExitReason | None = None
        self._is_ready = False
        self._hang_check: tuple[float, TimerToken] | None = None  # how long it waits, and its timer
        self._crash_sites: Counter[str] = Counter()

    def status(self) -> SupervisorStatus:
        """Return a snapshot of this supervisor and its children. Any thread may call it."""
        children = tuple(
            ChildStatus(child.spec.id, child.generation, child.state.value, child.restarts, child.last_error)
            for child in tuple(self._children.values())
        )
        state = "stopping" if self._closing is not None else "running" if self._is_ready else "starting"
        return SupervisorStatus(self.name, self.generation, state, children, self._restarts, len(self._abandoned))

    # -- messages -----------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Start the first child; the others follow as it becomes ready."""
        self._reconcile()

    def receive(self, message: object) -> None:
        """Note what happened, then do what may be done next."""
        match message:
            case Started(name, generation):
                self._on_started(name, generation)
            case Down(name, generation, reason):
                child = self._current(name, generation)
                if child is not None and child.state in ALIVE:
                    self._on_end(child, reason)
            case StartChild(spec):
                self._on_start_child(spec)
            case StopChild(name):
                self._on_stop_child(name)
            case GiveUp(reason):
                self._give_up(reason)
            case RestartDue(name, generation):
                child = self._current(name, generation)
                if child is not None and child.state is ChildState.BACKOFF:
                    child.state = ChildState.PENDING
            case StartTimedOut(name, generation):
                self._on_start_timeout(name, generation)
            case StopTimedOut(name, generation):
                self._on_stop_timeout(name, generation)
            case CheckForHangs():
                self._check_for_hangs()
            case Unstuck(name, generation):
                self._abandoned.discard((name, generation))
            case _:
                self.unhandled(message)
        self._reconcile()

    def stop_requested(self, reason: Normal | Shutdown) -> bool:
        """Stop the children first; the life ends when the last of them has."""
        self._close(reason)
        self._reconcile()
        return False

    def _on_started(self, name: str, generation: int) -> None:
        child = self._current(name, generation)
        if child is None or child.state is not ChildState.STARTING:
            return
        self._cancel_timer(child)
        child.state = ChildState.RUNNING
        child.ready_at = self.monotonic()
        self._tell_notify(ChildStarted(name, generation))
        self._watch_for_hangs()

    def _on_start_child(self, spec: ChildSpec) -> None:
        if self._closing is not None:
            return
        if spec.id in self._children:
            logger.error("%r cannot start a child %r: it has one of that id; stop it first", self.name, spec.id)
            return
        self._children[spec.id] = Child(spec, dynamic=True)

    def _on_stop_child(self, name: str) -> None:
        child = self._children.get(name)
        if child is None:
            return
        child.restart_after_stop = False
        if child.state in {ChildState.STARTING, ChildState.RUNNING}:
            self._stop_child(child)
        elif child.state is not ChildState.STOPPING:
            self._done(child)

    def _on_start_timeout(self, name: str, generation: int) -> None:
        child = self._current(name, generation)
        if child is not None and child.state is ChildState.STARTING:
            reason = StartFailed(f"not ready within {child.spec.start_timeout:g} s")
            self._abandon(child, reason)

    def _on_stop_timeout(self, name: str, generation: int) -> None:
        child = self._current(name, generation)
        if child is not None and child.state is ChildState.STOPPING:
            busy = self._busy(child)
            self._abandon(child, Hung(f"stopping, in {busy[0]}" if busy else "stopping", child.spec.stop_timeout))

    # -- the end of a child -------------------------------------------------------------------------------------------

    def _on_end(self, child: Child, reason: ExitReason) -> None:
        """Decide what follows from the end of a child, and tell."""
        self._cancel_timer(child)
        ordered_to_stop = child.state is ChildState.STOPPING or child.take_down
        child.take_down = False
        if not isinstance(reason, Normal | Shutdown):
            child.crashes += 1
            child.last_error = explain(reason)
            self._log_end(child, reason)
        if self._closing is not None:
            self._done(child, reason)
        elif ordered_to_stop:
            if child.restart_after_stop and child.spec.restart is not Restart.TEMPORARY:
                child.state = ChildState.PENDING
                self._tell_down(child, reason, will_restart=True)
            else:
                self._done(child, reason)
        else:
            self._restart_or_not(child, reason)
        child.restart_after_stop = False

    def _restart_or_not(self, child: Child, reason: ExitReason) -> None:
        history = child.history(self._recent)
        decision = decide(child.spec, self._intensity, history, reason, self.monotonic(), self.system.random.random())
        match decision:
            case RestartAfter(delay, after):
                self._recent, child.consecutive = after.recent, after.consecutive
                self._restarts += 1
                child.restarts += 1
                child.state = ChildState.BACKOFF
                self._tell_down(child, reason, will_restart=True)
                child.timer = self.after(delay, RestartDue(child.spec.id, child.generation))
                if self._strategy is Strategy.REST_FOR_ONE and not child.dynamic:
                    self._take_down_after(child)
            case Remove():
                self._done(child, reason)
                if child.spec.significant:
                    self._close(Shutdown())
            case Escalate(why):
                self._done(child, reason)
                self._give_up(why)

    def _take_down_after(self, child: Child) -> None:
        ordered = [other for other in self._children.values() if not other.dynamic]
        for later in ordered[ordered.index(child) + 1 :]:
            if later.state in {ChildState.STARTING, ChildState.RUNNING}:
                later.take_down = later.restart_after_stop = True
            elif later.state is ChildState.BACKOFF:
                self._cancel_timer(later)
                later.state = ChildState.PENDING

    def _done(self, child: Child, reason: ExitReason | None = None) -> None:
        """Note that a child will not be started again, and, if a life of it ended just now, tell."""
        self._cancel_timer(child)
        child.state = ChildState.DONE
        if child.dynamic:
            del self._children[child.spec.id]
        if reason is not None:
            self._tell_down(child, reason, will_restart=False)

    def _give_up(self, why: str) -> None:
        if self._closing is None:
            error = EscalatedError(f"supervisor {self.name!r} gave up: {why}")
            logger.critical("%s", error)
            self._close(Crashed(str(error), "", error))

    def _close(self, reason: ExitReason) -> None:
        """Begin to stop everything; the first reason counts."""
        if self._closing is not None:
            return
        self._closing = reason
        for child in tuple(self._children.values()):
            if child.state not in ALIVE:
                self._done(child)

    # -- what may be done next ----------------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        while self._closing is None:
            victim = next_to_take_down(self._children.values())
            if victim is not None:
                self._stop_child(victim)
            starting = startable(tuple(self._children.values()), self._strategy)
            if not starting:
                break
            # One at a time: a factory that fails may change what comes next.
            self._start_child(starting[0])
        if self._closing is not None:
            for child in to_stop_at_the_end(tuple(self._children.values())):
                self._stop_child(child)
            if not any(child.state in ALIVE for child in self._children.values()):
                self.exit(self._closing)
        elif not self._is_ready and all(c.state in SETTLED for c in self._children.values() if not c.dynamic):
            self._is_ready = True
            self.ready()

    def _start_child(self, child: Child) -> None:
        spec = child.spec
        child.generation = self.system.next_generation(spec.id)
        child.state = ChildState.STARTING
        child.ready_at = None
        try:
            self.system.start_actor(spec.id, spec.start, generation=child.generation, owner=self.name)
        except Exception as error:  # noqa: BLE001 - a child that cannot be built is a child that failed, not our crash
            self._on_end(child, StartFailed.of(error))
            return
        child.timer = self.after(spec.start_timeout, StartTimedOut(spec.id, child.generation))

    def _stop_child(self, child: Child) -> None:
        self._cancel_timer(child)
        child.state = ChildState.STOPPING
        self.system.stop_actor(child.spec.id, child.generation)
        child.timer = self.after(child.spec.stop_timeout, StopTimedOut(child.spec.id, child.generation))

    # -- hangs --------------------------------------------------------------------------------------------------------

    def _watch_for_hangs(self) -> None:
        limits = [c.spec.hang_after for c in self._children.values() if c.spec.hang_after and c.state in ALIVE]
        if not limits:
            return
        wait = min(min(limits) / HANG_CHECKS_PER_LIMIT, LONGEST_HANG_CHECK)
        if self._hang_check is not None:
            if self._hang_check[0] <= wait:
                return
            self.cancel(self._hang_check[1])  # a child with a shorter limit has come
        self._hang_check = (wait, self.after(wait, CheckForHangs()))

    def _check_for_hangs(self) -> None:
        self._hang_check = None
        for child in tuple(self._children.values()):
            limit, busy = child.spec.hang_after, self._busy(child)
            if limit is None or busy is None or child.state is not ChildState.RUNNING:
                continue
            seconds = self.monotonic() - busy[1]
            if seconds > limit:
                self._tell_notify(ChildHung(child.spec.id, child.generation, busy[0], seconds))
                self._abandon(child, Hung(busy[0], seconds))
        self._watch_for_hangs()

    def _busy(self, child: Child) -> tuple[str, float] | None:
        life = self.system.directory.find(child.spec.id)
        return life.actor.busy if life is not None and life.generation == child.generation else None

    def _abandon(self, child: Child, reason: ExitReason) -> None:
        """Give up a life whose thread does not answer. Its `Down` follows as a message, as for every end."""
        if not self.system.abandon(child.spec.id, child.generation, reason):
            return  # it ended just now, and its `Down` is on its way
        self._abandoned.add((child.spec.id, child.generation))
        logger.error("%r left a thread of %r behind: it %s", self.name, child.spec.id, explain(reason))
        if len(self._abandoned) > self._max_abandoned:
            self._give_up(
                f"{len(self._abandoned)} threads of hung children were left behind (limit {self._max_abandoned})"
            )

    # -- small things -------------------------------------------------------------------------------------------------

    def _current(self, name: str, generation: int) -> Child | None:
        """Return the child if the generation is its current one; mail about an older life is stale."""
        child = self._children.get(name)
        return child if child is not None and child.generation == generation else None

    def _cancel_timer(self, child: Child) -> None:
        if child.timer is not None:
            self.cancel(child.timer)
            child.timer = None

    def _tell_down(self, child: Child, reason: ExitReason, *, will_restart: bool) -> None:
        self._tell_notify(ChildDown(child.spec.id, child.generation, reason, will_restart))

    def _tell_notify(self, message: object) -> None:
        # At a shutdown the one to be told has usually stopped first; that is no dead letter.
        if self._notify is not None and self.system.directory.find(self._notify) is not None:
            self.tell(self._notify, message)

    def _log_end(self, child: Child, reason: ExitReason) -> None:
        """Log a crash with its traceback the first time it happens at that place, and as one line after that."""
        text = reason.traceback if isinstance(reason, Crashed | StartFailed) else ""
        frames = [line for line in text.splitlines() if line.startswith("  File ")]
        site = frames[-1] if frames else explain(reason).partition(":")[0]
        self._crash_sites[site] += 1
        if self._crash_sites[site] == 1:
            exception = reason.exception if isinstance(reason, Crashed | StartFailed) else None
            logger.error("%r (generation %d) %s", child.spec.id, child.generation, explain(reason), exc_info=exception)
        else:
            times = self._crash_sites[site]
            logger.warning(
                "%r (generation %d) %s (%d times here)", child.spec.id, child.generation, explain(reason), times
            )
