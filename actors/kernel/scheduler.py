"""What gives an actor its turns: a thread of its own, one that it shares (crew.py), or (in a simulation) a place in a seeded lottery."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .clock import Clock, SystemClock
from .crew import ActorThread, Crew
from .errors import AskError
from .timers import TimerThread, TimerToken

if TYPE_CHECKING:
    from .directory import Life


class Timers(Protocol):
    """Where timers wait. Any thread may call any method."""

    def add(self, token: TimerToken) -> None:
        """Start a timer."""
        ...

    def cancel(self, token: TimerToken) -> None:
        """Cancel a timer."""
        ...

    def close(self, timeout: float | None = None) -> None:
        """Drop all timers."""
        ...


class Scheduler(Protocol):
    """Gives actors their turns and callers their waits."""

    @property
    def clock(self) -> Clock:
        """The clock timers run by."""
        ...

    @property
    def random(self) -> random.Random:
        """Random numbers for the actors."""
        ...

    @property
    def timers(self) -> Timers:
        """Where timers wait."""
        ...

    def start(self, life: Life) -> None:
        """Let a life begin, soon and not within this call."""
        ...

    def let_go(self, life: Life) -> None:
        """Note that a life was given up: nobody may have to wait for its thread from now on."""
        ...

    def spawn_thread(self, name: str, fn: Callable[[], None]) -> threading.Thread:
        """Start a helper thread (daemon). A simulation has no threads and refuses."""
        ...

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait at the edge, outside all actors, until the event is set; return whether it was set in time (seconds)."""
        ...

    def join(self, life: Life, timeout: float) -> None:
        """Wait until the thread of a finished life is gone, at most `timeout` seconds."""
        ...

    def refuse_inside_actor(self, what: str) -> None:
        """Raise AskError when the caller is an actor: an actor that waits for another can deadlock the company."""
        ...

    def before_send(self, to: str, message: object) -> None:
        """Fault point before a message is put into a mailbox. Real threads have none."""
        ...

    def after_send(self, to: str, message: object) -> None:
        """Fault point after a message was put into a mailbox. Real threads have none."""
        ...

    def reach(self, life: Life, point: str, message: object) -> None:
        """Fault point inside a life (`start`, `receive`, `received`, `batch`, `stop`). Real threads have none."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether the fault points above do anything; when not, they are not called, to keep sending fast."""
        ...


class ThreadScheduler:
    """Daemon threads: a hung actor must never keep the process from ending. One for every actor, and one for all that share it."""

    simulated = False

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.random = random.Random()
        timers = TimerThread(self.clock)
        self.timers: Timers = timers
        self._crew = Crew(self.clock, timers)

    def start(self, life: Life) -> None:
        """Start the actor's thread, named after the actor, or let it join the crew."""
        if life.actor.shares_thread:
            self._crew.admit(life)
            return
        life.thread = ActorThread(f"{life.name}#{life.generation}", life.actor._actor_loop)  # noqa: SLF001 - Pykka's own name for it
        life.thread.start()

    def let_go(self, life: Life) -> None:
        """Let the crew go on without the life, if it is one of them."""
        if life.actor.shares_thread:
            self._crew.let_go(life)

    def spawn_thread(self, name: str, fn: Callable[[], None]) -> threading.Thread:
        """Start a daemon thread that runs `fn`, for an actor that must host blocking work; the caller keeps and ends it."""
        thread = threading.Thread(target=fn, name=name, daemon=True)
        thread.start()
        return thread

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Block the calling thread until the event is set, at most `timeout` seconds."""
        return event.wait(timeout)

    def join(self, life: Life, timeout: float) -> None:
        """Join the actor's thread."""
        if life.thread is not None and life.thread is not threading.current_thread():
            life.thread.join(max(0.0, timeout))

    def refuse_inside_actor(self, what: str) -> None:
        """Raise AskError when called on an actor's thread."""
        if isinstance(threading.current_thread(), ActorThread):
            raise AskError(
                f"{what} from inside an actor: actors only tell; send a message and handle the answer as one"
            )

    def before_send(self, to: str, message: object) -> None:
        """Do nothing: faults are injected in simulations only."""

    def after_send(self, to: str, message: object) -> None:
        """Do nothing: faults are injected in simulations only."""

    def reach(self, life: Life, point: str, message: object) -> None:
        """Do nothing: faults are injected in simulations only."""
