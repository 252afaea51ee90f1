"""The deterministic scheduler: production actors, unchanged, on one thread, under a seed and a clock moved by hand.

Each step gives one actor one message (or its start, or its end), or lets one timer fire; which one is drawn from a seeded generator. The
same seed gives the same trace, so an interleaving that breaks something can be run again. Time moves only when told to,
or to the next timer when nothing else can happen. It works because actors only tell: an actor that waited for another
would wait for ever here.

Faults are injected by a function that sees every fault point: before and after each send, on each receipt, start, stop and batch, and wherever a
test wraps a part of its own with `fault_point(label)` (for example each call of a store). What it returns is raised there.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from .errors import AskError, SimulationError
from .timers import TimerQueue, TimerToken

if TYPE_CHECKING:
    from .directory import Life

MAX_STEPS = 1_000_000
"""Steps without the clock moving after which a simulation is taken to be going round in circles."""

START_MS = 1_700_000_000_000
"""The wall clock of a simulation that has just begun: an arbitrary, fixed day."""

TraceEntry: TypeAlias = tuple[float, str, int, str, str]
"""Seconds since the beginning, actor (or `timer`), generation, what happened, and to which message or label."""


@dataclass(frozen=True, slots=True)
class FaultPoint:
    """A place where a fault may be injected.

    `kind` is `start`, `receive` (before a message is handled), `received` (after it), `send` (before the message is in the other's mailbox),
    `sent` (after), `batch`, `stop` or `label`. `detail` is the type of the message, or the label; `to` the receiver of a
    send; `message` the message itself. `actor` is where the fault will strike.
    """

    kind: str
    actor: str
    generation: int
    detail: str
    to: str | None = None
    message: object = None


Faults: TypeAlias = Callable[[FaultPoint], BaseException | None]


class SimulatedCrashError(Exception):
    """An injected fault, for tests that need no particular one."""


class VirtualClock:
    """A clock that stands still until the simulation moves it."""

    def __init__(self, start_ms: int = START_MS) -> None:
        self._start_ms = start_ms
        self._elapsed = 0.0

    def now_ms(self) -> int:
        """Return the simulated wall clock, in milliseconds since the epoch."""
        return self._start_ms + round(self._elapsed * 1000)

    def monotonic(self) -> float:
        """Return the simulated seconds since the beginning."""
        return self._elapsed

    def move_to(self, elapsed: float) -> None:
        """Set the seconds since the beginning; never backwards."""
        self._elapsed = max(self._elapsed, elapsed)


class VirtualTimers:
    """Timers that fire when the simulation gets to them. `close` drops them all."""

    def __init__(self) -> None:
        self.queue = TimerQueue()

    def add(self, token: TimerToken) -> None:
        """Start a timer."""
        self.queue.add(token)

    def cancel(self, token: TimerToken) -> None:
        """Cancel a timer."""
        self.queue.cancel(token)

    def close(self, timeout: float | None = None) -> None:  # noqa: ARG002 - nothing to wait for
        """Drop all timers."""
        self.queue = TimerQueue()


class SimulationScheduler:
    """Runs any number of actor systems on the calling thread. Not safe for several threads; an event set by one is not waited for.

    Build a system with it: `ActorSystem(scheduler=simulation)`.
    """

    simulated = True

    def __init__(self, seed: int, *, faults: Faults | None = None) -> None:
        self.seed = seed
        self.faults = faults
        self.clock = VirtualClock()
        self.timers = VirtualTimers()
        self._lottery = random.Random(f"{seed}:schedule")
        # Apart from the lottery's, so that one draw more by an actor does not change the order.
        self.random = random.Random(f"{seed}:actors")
        self.trace: list[TraceEntry] = []
        self.steps = 0
        self._lives: list[Life] = []
        self._unbegun: set[Life] = set()
        self._current: Life | None = None

    # -- running ------------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Let one thing happen. Return False if nothing can until the clock moves."""
        self._not_inside("step")
        ready = [life for life in self._lives if life.inbox.readable() or life in self._unbegun]
        due = self.timers.queue.next_due()
        timer = due is not None and due <= self.clock.monotonic()
        if not ready and not timer:
            return False
        self.steps += 1
        choice = self._lottery.randrange(len(ready) + timer)
        if choice < len(ready):
            self._turn(ready[choice])
        else:
            token = self.timers.queue.pop_due(self.clock.monotonic())
            if token is not None:
                self._note("timer", 0, "fires", f"due {token.due:.3f}")
                token.action(token)
        return True

    def run_until_idle(self) -> None:
        """Run until nothing can happen without the clock moving.

        Raises SimulationError after MAX_STEPS steps: actors that keep each other busy without end.
        """
        for _ in range(MAX_STEPS):
            if not self.step():
                return
        raise SimulationError(f"still busy after {MAX_STEPS} steps at one instant; {self._tail()}")

    def advance(self, seconds: float) -> None:
        """Move the clock on, letting everything happen that is due on the way."""
        end = self.clock.monotonic() + seconds
        self.run_until_idle()
        while (due := self.timers.queue.next_due()) is not None and due <= end:
            self.clock.move_to(due)
            self.run_until_idle()
        self.clock.move_to(end)

    def run_until(self, condition: Callable[[], bool], timeout: float = 3600.0) -> None:
        """Run until the condition holds, jumping to the next timer whenever nothing else can happen.

        Raises SimulationError when that would take more than `timeout` simulated seconds, or when nothing is left that
        could happen at all.
        """
        if not self._reached(condition, timeout):
            raise SimulationError(
                f"the condition did not come about within {timeout:g} simulated seconds; {self._tail()}"
            )

    def fault_point(self, label: str) -> None:
        """Offer a place to fail: raises what the fault function returns for it. Outside all actors it does nothing."""
        if self._current is not None:
            self._strike(FaultPoint("label", self._current.name, self._current.generation, label))

    # -- what an actor system asks of its scheduler -------------------------------------------------------------------

    def start(self, life: Life) -> None:
        """Enter a life into the lottery; it begins in one of the next steps."""
        self._lives.append(life)
        self._unbegun.add(life)

    def let_go(self, life: Life) -> None:
        """Do nothing: there is no thread."""

    def spawn_thread(self, name: str, fn: Callable[[], None]) -> NoReturn:
        """Raise SimulationError: what runs on a thread is not deterministic."""
        raise SimulationError(
            f"no helper thread {name!r} ({fn!r}) in a simulation; give the actor a part that needs none"
        )

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Run until the event is set, at most `timeout` simulated seconds."""
        return self._reached(event.is_set, timeout)

    def join(self, life: Life, timeout: float) -> None:
        """Do nothing: there is no thread."""

    def refuse_inside_actor(self, what: str) -> None:
        """Raise AskError when called from within a step."""
        if self._current is not None:
            raise AskError(
                f"{what} from inside an actor: actors only tell; send a message and handle the answer as one"
            )

    def before_send(self, to: str, message: object) -> None:
        """Fault point before a send; the sender is the actor whose turn it is."""
        self._send_point("send", to, message)

    def after_send(self, to: str, message: object) -> None:
        """Fault point after a send: the message is delivered, but the sender may not live to know."""
        self._send_point("sent", to, message)

    def reach(self, life: Life, point: str, message: object) -> None:
        """Fault point inside a life."""
        detail = "" if message is None else type(message).__name__
        if point in {"start", "receive", "stop"}:
            self._note(life.name, life.generation, point, detail)
        self._strike(FaultPoint(point, life.name, life.generation, detail, None, message))

    # -- inside -------------------------------------------------------------------------------------------------------

    def _turn(self, life: Life) -> None:
        self._current = life
        actor = life.actor
        try:
            if life in self._unbegun:
                self._unbegun.discard(life)
                if not life.over:  # abandoned before its first turn
                    actor.begin()
            else:
                actor.step()
            if actor.exit_reason is not None or life.over:
                self._lives.remove(life)
                actor.end()
                self._note(life.name, life.generation, "ends", type(actor.exit_reason).__name__)
        finally:
            self._current = None

    def _reached(self, condition: Callable[[], bool], timeout: float) -> bool:
        self._not_inside("wait")
        end = self.clock.monotonic() + timeout
        since = self.steps
        while not condition():
            if self.step():
                if self.steps - since > MAX_STEPS:
                    raise SimulationError(f"still busy after {MAX_STEPS} steps at one instant; {self._tail()}")
                continue
            due = self.timers.queue.next_due()
            if due is None or due > end:
                self.clock.move_to(end)
                return False
            self.clock.move_to(due)
            since = self.steps
        return True

    def _send_point(self, kind: str, to: str, message: object) -> None:
        if self._current is not None:
            detail = type(message).__name__
            self._strike(FaultPoint(kind, self._current.name, self._current.generation, detail, to, message))

    def _strike(self, point: FaultPoint) -> None:
        error = None if self.faults is None else self.faults(point)
        if error is not None:
            self._note(point.actor, point.generation, f"fault at {point.kind}", point.detail)
            raise error

    def _note(self, actor: str, generation: int, what: str, detail: str) -> None:
        self.trace.append((self.clock.monotonic(), actor, generation, what, detail))

    def _not_inside(self, what: str) -> None:
        if self._current is not None:
            raise SimulationError(
                f"{what} from inside actor {self._current.name!r}: the simulation is driven from outside"
            )

    def _tail(self) -> str:
        lines = "\n".join(f"  {entry}" for entry in self.trace[-20:])
        return f"seed {self.seed}, the last steps were:\n{lines}"
