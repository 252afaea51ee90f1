"""A thread for many: actors whose messages never make them wait take turns on one thread.

A message between two threads costs a wake-up and a hand-over of the interpreter, some fifty times what handling it does; between two actors
of the crew it is an entry in a list. Each actor with mail stands in the queue once, and reads at most `TURN` messages before it
stands at its end again.

That an actor never waits is its promise, and may be broken: by a bug, or by a host's code that it runs. Whoever is busy with one message for
`RELIEF` seconds therefore keeps the thread for itself: a fresh one goes on with the others, and he joins them again when he is
done. So a hang is as it is among actors with threads of their own, to be noticed and given up by the supervisor, but for a short
delay of the others. Each actor is in the queue, or in the hands of one thread, or asleep, so no two threads ever run the same one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

from .clock import Clock
from .timers import TimerThread, TimerToken

if TYPE_CHECKING:
    from .directory import Life

logger = logging.getLogger(__name__)

TURN = 64
"""Messages that one actor handles before it is another's turn."""

RELIEF = 0.25
"""Seconds on one message after which the others go on without whoever handles it; noticed at most as much later again."""


class ActorThread(threading.Thread):
    """Marks a thread as one that runs actors, so that an ask from within one can be refused. A daemon: a hang must not keep a process."""

    def __init__(self, name: str, target: Callable[[], object]) -> None:
        super().__init__(target=target, name=name, daemon=True)


class _Shift:
    """A thread's time on duty, which is over when another has taken its place. `life`: whose turn it is."""

    __slots__ = ("life",)

    def __init__(self) -> None:
        self.life: Life | None = None


class Crew:
    """The actors that share a thread, and the queue for it. Any thread may call any method.

    There is a thread while there are actors. Those that may wait in their first and last hooks (`waits_at_ends`) get a thread for these.
    """

    def __init__(self, clock: Clock, timers: TimerThread) -> None:
        self._clock = clock
        self._timers = timers
        self._ready: deque[Life] = deque()
        self._alarm: SimpleQueue[None] = SimpleQueue()
        self._sleeping = False
        self._lock = threading.Lock()  # guards what follows, and falling asleep; not the queue
        self._members: set[Life] = set()  # in the queue, asleep, or in the hands of the thread on duty
        self._shift: _Shift | None = None
        self._shifts = 0
        self._watch: TimerToken | None = None

    def admit(self, life: Life) -> None:
        """Let a life begin in its turn. Raises RuntimeError when there is no thread to be had."""
        life.inbox.attend = lambda: self._enqueue(life)
        if life.actor.waits_at_ends:
            life.thread = ActorThread(f"{life.name}#{life.generation}", lambda: self._begin_apart(life))
            life.thread.start()
            return
        with self._lock:
            if self._shift is None:
                self._start_shift()
            self._members.add(life)
        self._enqueue(life)

    def let_go(self, life: Life) -> None:
        """Note that a life was given up: if the thread is in its hands, the others go on without it, now."""
        with self._lock:
            self._relieve(life)

    # -- the queue ----------------------------------------------------------------------------------------------------

    def _enqueue(self, life: Life) -> None:
        self._ready.append(life)
        if self._sleeping:
            self._wake()

    def _wake(self) -> None:
        self._sleeping = False
        self._alarm.put(None)

    def _next(self, shift: _Shift) -> Life | None:
        """Wait for whoever is next in the queue; None when the shift is over."""
        while self._shift is shift:
            try:
                return self._ready.popleft()
            except IndexError:
                pass
            with self._lock:
                if self._shift is not shift:
                    break
                if not self._members:
                    self._shift = None
                    break
                self._sleeping = True
            if self._ready:  # came between the two looks, and may have found nobody asleep
                self._sleeping = False
                continue
            self._alarm.get()
            if self._watch is None:
                self._watch_over()
        return None

    # -- a thread on duty ---------------------------------------------------------------------------------------------

    def _start_shift(self) -> None:
        """Put a fresh thread on duty. Holding the lock."""
        shift = _Shift()
        self._shifts += 1
        ActorThread(f"actors-{self._shifts}", lambda: self._serve(shift)).start()
        self._shift = shift

    def _serve(self, shift: _Shift) -> None:
        with self._lock:  # whoever started this thread holds it until the shift is the one on duty
            pass
        self._watch_over()
        while (life := self._next(shift)) is not None:
            life.thread = threading.current_thread()
            shift.life = life
            try:
                self._turn(life, shift)
            except BaseException:
                # The end of an actor does not raise. If one ever does, the others must still have their turns.
                logger.exception("the end of %r failed; the other actors go on", life.name)
            with self._lock:
                shift.life = None
                if self._shift is not shift and life.actor.exit_reason is None:
                    self._return(life, shift)

    def _turn(self, life: Life, shift: _Shift) -> None:
        actor = life.actor
        if not life.begun:
            life.begun = True
            actor.begin()
        left = TURN
        while actor.exit_reason is None:
            if left == 0 or self._shift is not shift:
                self._enqueue(life)
                return
            left -= 1
            if not actor.step_if_mail() and life.inbox.rest():
                return
        self._retire(life)
        if not actor.waits_at_ends or self._shift is not shift:
            actor.end()
            return
        life.thread = ActorThread(f"{life.name}#{life.generation} ends", actor.end)
        life.thread.start()

    def _retire(self, life: Life) -> None:
        with self._lock:
            self._members.discard(life)
            if self._sleeping and not self._members:  # the thread on duty has nobody left
                self._wake()

    def _begin_apart(self, life: Life) -> None:
        life.begun = True
        life.actor.begin()
        if life.actor.exit_reason is not None:
            life.actor.end()
            return
        shift = _Shift()
        with self._lock:
            self._return(life, shift)
        self._enqueue(life)
        self._serve(shift)

    def _return(self, life: Life, shift: _Shift) -> None:
        """Take a life back that had a thread for itself; this thread serves the queue, if no other does. Holding the lock."""
        self._members.add(life)
        if self._shift is None:
            self._shift = shift

    # -- relief -------------------------------------------------------------------------------------------------------

    def _watch_over(self) -> None:
        """See to it that a look is taken, if none is due. Timers that are closed mean that all is over."""
        with self._lock:
            if self._watch is None:
                self._watch = TimerToken(self._clock.monotonic() + RELIEF, self._look)
                self._timers.add(self._watch)

    def _look(self, _token: TimerToken) -> None:
        """On the timers' thread, while there is something to do: whether the one whose turn it is takes too long."""
        with self._lock:
            life = None if self._shift is None else self._shift.life
            busy = None if life is None else life.actor.busy
            if life is not None and busy is not None and self._clock.monotonic() - busy[1] >= RELIEF:
                logger.info("%r is busy with %s; the other actors go on without it", life.name, busy[0])
                self._relieve(life)
            self._watch = None
            idle = self._sleeping or self._shift is None
        # In this order: whoever wakes now, or begins, sees that there is no watch, and sets one.
        if not idle:
            self._watch_over()

    def _relieve(self, life: Life) -> None:
        """If it is the turn of this life: leave it the thread. Holding the lock."""
        if self._shift is None or self._shift.life is not life or self._sleeping:
            return
        try:
            self._start_shift()
        except RuntimeError as error:  # no thread to be had: all wait, and the next look tries again
            logger.error("%r keeps the other actors waiting, and there is no thread for them: %s", life.name, error)  # noqa: TRY400
            return
        self._members.discard(life)
