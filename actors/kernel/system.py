"""The actor system: everything that one company of actors shares.

A process may hold several (tests do), and a host may run its own Pykka actors beside them: a system touches only what was started through it.
In particular `pykka.ActorRegistry.stop_all()`, which is global, is never called, and nothing an actor raises can trigger it.
"""

from __future__ import annotations

import logging
import random as random_module
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pykka import ActorRef, ActorRegistry
from pykka._envelope import Envelope

from .clock import Clock
from .dead_letters import DeadLetter, DeadLetters
from .directory import Directory, Life
from .errors import KernelError, SystemClosedError
from .messages import Down, ExitReason, Hung, Normal, Shutdown, Started, Stop, Unstuck, explain
from .scheduler import Scheduler, ThreadScheduler
from .timers import TimerToken, WatchToken

if TYPE_CHECKING:
    from .actor import Actor

logger = logging.getLogger(__name__)

NOBODY = "no actor of that name"


@dataclass(frozen=True, slots=True)
class Deferred:
    """Envelope for mail that can be recalled while it waits: timers and the `Down` of a watch. Unwrapped by the actor."""

    token: TimerToken
    message: object


@dataclass(frozen=True, slots=True)
class ActorStatus:
    """One living actor: its class, how many messages wait, and since when it is busy with what (seconds, None if idle)."""

    name: str
    generation: int
    kind: str
    waiting: int
    busy_with: str | None
    busy_for: float | None


class ActorSystem:
    """Everything one company of actors shares: clock, random numbers, names, timers, dead letters, and who gets a turn when.

    All methods may be called from any thread. `on_root_exit` is called once, on the ending actor's thread, for every
    actor without an owner that ended.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        random: random_module.Random | None = None,
        scheduler: Scheduler | None = None,
        on_dead_letter: Callable[[DeadLetter], None] | None = None,
        on_root_exit: Callable[[Down], None] | None = None,
    ) -> None:
        self.scheduler: Scheduler = scheduler or ThreadScheduler(clock)
        self.clock: Clock = clock or self.scheduler.clock
        self.random = random or self.scheduler.random
        self.directory = Directory()
        self.dead_letters = DeadLetters(self.clock, on_dead_letter)
        self.on_root_exit = on_root_exit
        self._closed = False
        self._simulated = self.scheduler.simulated

    # -- mail ---------------------------------------------------------------------------------------------------------

    def tell(self, name: str, message: object) -> bool:
        """Send a message to whoever holds the name now. Never blocks. Return False if it became a dead letter.

        True means that it is in the mailbox, not that it will be read: the actor may end before. Messages of one thread
        to one life arrive in the order they were sent.
        """
        if self._simulated:
            self.scheduler.before_send(name, message)
        life = self.directory.find(name)
        if life is not None:
            delivered = life.inbox.deliver(Envelope(message))  # a refusal is recorded by the inbox
        else:
            delivered = False
            self.dead_letters.record(name, message, NOBODY)
        if self._simulated:
            self.scheduler.after_send(name, message)
        return delivered

    def tell_life(self, life: Life, message: object) -> bool:
        """Send to one life and no later one; to a life that is over, silently nothing: nobody is meant to hear it."""
        return not life.inbox.closed and life.inbox.deliver(Envelope(message))

    def after(self, delay: float, name: str, message: object) -> TimerToken:
        """Send a message in `delay` seconds to whoever holds the name then."""

        def deliver(token: TimerToken) -> None:
            life = self.directory.find(name)
            if life is None:
                self.dead_letters.record(name, message, NOBODY)
            else:
                life.inbox.deliver(Envelope(Deferred(token, message)))

        return self._set_timer(delay, deliver)

    def after_life(self, delay: float, life: Life, message: object) -> TimerToken:
        """Send a message in `delay` seconds to this life; if it is over by then, to nobody."""
        return self._set_timer(delay, lambda token: void(self.tell_life(life, Deferred(token, message))))

    def cancel(self, token: TimerToken) -> None:
        """Cancel a timer. Its message will not be handled, even if it already waits in a mailbox."""
        self.scheduler.timers.cancel(token)

    def _set_timer(self, delay: float, action: Callable[[TimerToken], None]) -> TimerToken:
        token = TimerToken(self.scheduler.clock.monotonic() + max(0.0, delay), action)
        self.scheduler.timers.add(token)
        return token

    # -- lives --------------------------------------------------------------------------------------------------------

    def next_generation(self, name: str) -> int:
        """Return the number the next life of a name will have; it rises with every start."""
        return self.directory.next_generation(name)

    def start_actor(
        self, name: str, factory: Callable[[], Actor], *, generation: int | None = None, owner: str | None = None
    ) -> ActorRef[Any]:
        """Build an actor and let it begin. Low level: children of a supervisor are started by the supervisor.

        The factory runs in the calling thread, so constructors must only assign; opening things belongs in `on_start`.
        The owner, a living actor, is told `Started` and `Down`, and when the owner's life ends this one is ended with it.

        Raises what the factory raises, NameTakenError, SystemClosedError, and KernelError for an owner that is not alive.
        """
        if self._closed:
            raise SystemClosedError(f"cannot start {name!r}: the actor system was closed")
        owning: Life | None = None
        if owner is not None and (owning := self.directory.find(owner)) is None:
            raise KernelError(f"cannot start {name!r}: its owner {owner!r} is not alive")
        actor = factory()
        life = Life(name, generation or self.next_generation(name), actor, actor.inbox, owning)
        actor._bind(life)  # noqa: SLF001 - the other half of this function
        self.directory.add(life)
        ActorRegistry.register(actor.actor_ref)
        try:
            self.scheduler.start(life)
        except BaseException:  # no thread to be had: undo, silently, since the caller gets the error
            self._retire(life, Shutdown())
            life.finished.set()
            raise
        return actor.actor_ref

    def stop_actor(self, name: str, generation: int | None = None, reason: Normal | Shutdown | None = None) -> bool:
        """Order an actor to stop, ahead of all user mail that waits. Return False if that life is not there."""
        life = self.directory.find(name)
        if life is None or generation not in {None, life.generation}:
            return False
        return self.tell_life(life, Stop(reason or Shutdown()))

    def abandon(self, name: str, generation: int, reason: ExitReason) -> bool:
        """End a life that will not end by itself: close its inbox, free its name, send its `Down`.

        Its thread cannot be killed. It is left behind, and may still send messages when it wakes: whatever it may write must be fenced
        by the one who owns the data. When it does come back, it runs `on_stop` and its owner is told `Unstuck`.
        Return False if that life was over already.
        """
        life = self.directory.find(name)
        return life is not None and life.generation == generation and self._abandon(life, reason)

    def _abandon(self, life: Life, reason: ExitReason) -> bool:
        if not self.end_life(life, reason, abandoned=True):
            return False
        self.scheduler.let_go(life)
        return True

    def end_life(self, life: Life, reason: ExitReason, *, abandoned: bool = False) -> bool:
        """Make the end of a life known, once. Called by the actor as its last act, and by `abandon`."""
        down = Down(life.name, life.generation, reason)
        watchers = self._retire(life, reason, abandoned=abandoned)
        if watchers is None:
            return False
        # Watchers first: the owner may start the next life at once, and what that one tells them must find them knowing of this end.
        for watcher, token in watchers:
            self.tell_life(watcher, Deferred(token, down))
        if life.owner is not None:
            self.tell_life(life.owner, down)
        if life.owner is None and self.on_root_exit is not None:
            try:
                self.on_root_exit(down)
            except Exception:
                logger.exception("on_root_exit raised when told that %r %s", life.name, explain(reason))
        return True

    def _retire(
        self, life: Life, reason: ExitReason, *, abandoned: bool = False
    ) -> list[tuple[Life, WatchToken]] | None:
        ended = self.directory.end(life, reason, abandoned=abandoned)
        if ended is None:
            return None
        orphans, watchers = ended
        ActorRegistry.unregister(life.actor.actor_ref)
        life.actor.actor_stopped.set()
        life.ready.set()  # wakes whoever waits for it; `over` tells the two apart
        life.actor.refuse_leftovers()
        # An owner that ends in good order has no children left. One that crashed must not leave any behind, holding names.
        for orphan in reversed(orphans):
            self._abandon(orphan, Shutdown())
        return watchers

    def finish_life(self, life: Life) -> None:
        """Note that the thread of a life has left the actor; tell the owner if it had been given up for lost."""
        if life.abandoned and life.owner is not None:
            self.tell_life(life.owner, Unstuck(life.name, life.generation))
        life.finished.set()

    def announce(self, life: Life) -> None:
        """Tell the owner that a life is ready, once."""
        if not life.ready.is_set():
            life.ready.set()
            if life.owner is not None:
                self.tell_life(life.owner, Started(life.name, life.generation))

    # -- the edge -----------------------------------------------------------------------------------------------------

    def actor(self, name: str) -> Actor | None:
        """Return the actor that holds a name, to read what it publishes for other threads. Everything else is a message."""
        life = self.directory.find(name)
        return None if life is None else life.actor

    def status(self) -> list[ActorStatus]:
        """Return a snapshot of every living actor."""
        now = self.clock.monotonic()
        report = []
        for life in self.directory.lives():
            what, since = life.actor.busy or (None, None)
            busy_for = None if since is None else max(0.0, now - since)
            kind = type(life.actor).__name__
            report.append(ActorStatus(life.name, life.generation, kind, life.inbox.waiting, what, busy_for))
        return report

    def wait_ready(self, name: str, timeout: float) -> bool:
        """Wait at the edge until an actor is ready. Return False if it is not there, ends first, or takes over `timeout` seconds."""
        self.scheduler.refuse_inside_actor(f"wait for {name!r}")
        life = self.directory.find(name)
        return life is not None and self.scheduler.wait(life.ready, timeout) and not life.over

    def wait_ended(self, name: str, timeout: float) -> bool:
        """Wait at the edge until the life that holds the name now has ended. True at once if there is none."""
        self.scheduler.refuse_inside_actor(f"wait for {name!r}")
        life = self.directory.find(name)
        return life is None or self.scheduler.wait(life.finished, timeout)

    def close(self, timeout: float) -> bool:
        """Stop every actor without an owner, latest first (each stops what it owns), then the timers. May be called twice.

        Return True if all ended within `timeout` seconds. What did not is abandoned: its threads are daemons.
        """
        self.scheduler.refuse_inside_actor("close of the actor system")
        deadline = self.clock.monotonic() + timeout
        everyone = self.directory.lives()
        for life in reversed([life for life in everyone if life.owner is None]):
            self.tell_life(life, Stop())
            self.scheduler.wait(life.finished, max(0.0, deadline - self.clock.monotonic()))
        self._closed = True
        stuck = self.directory.lives()
        for life in reversed(stuck):
            what, since = life.actor.busy or ("its mailbox", self.clock.monotonic())
            self._abandon(life, Hung(what, self.clock.monotonic() - since))
        for life in everyone:
            self.scheduler.join(life, max(0.0, deadline - self.clock.monotonic()))
        self.scheduler.timers.close(max(0.1, deadline - self.clock.monotonic()))
        return not stuck


def void(_: object) -> None:
    """Discard a result."""
