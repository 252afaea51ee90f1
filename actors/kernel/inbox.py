"""The mailbox: two lanes, one closing, no reply ever lost.

Pykka asks `is_alive()` and then puts, which is not atomic: an ask that races a stop can land in a queue nobody reads again, and
its caller waits for ever. Here `put` and `close` take the same lock, so a message is either read or refused, never forgotten.

One token in a `SimpleQueue` stands for each message in the lanes. The reader blocks on the tokens (in C, without the lock) and then takes
from the system lane first. That is how a stop overtakes a thousand queued messages, and it costs less than a `Condition`.

An actor that shares its thread does not block on its mailbox: there are no tokens then, but `attend`, which is called when there is mail
and nobody looks after it, and from then on somebody does until `rest`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock
from typing import Any

from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from .errors import InboxClosedError
from .messages import Stop

DEFAULT_MAX_MAIL = 100_000
"""Messages. A tripwire against silent growth, not a means of flow control: senders are expected to send on demand."""

SYSTEM_MESSAGES: frozenset[type] = frozenset({Stop, _ActorStop})
"""Message types that travel in the system lane."""

STOPPED = "stopped"
FULL = "mailbox full"

Refuse = Callable[[Envelope[Any], str], None]


class ClosingInbox:
    """An actor's mailbox. `put` and `close` may be called from any thread, `get` from the actor's only."""

    __slots__ = ("_attended", "_closed", "_lock", "_system", "_tokens", "_user", "attend", "max_mail", "refuse")

    def __init__(self, max_mail: int = DEFAULT_MAX_MAIL) -> None:
        self.max_mail = max_mail
        self.refuse: Refuse | None = None  # set by the actor, which knows where refused mail goes
        self.attend: Callable[[], object] | None = (
            None  # set before the first mail, or never; called with the lock held
        )
        self._attended = True  # by the beginning of the actor's life
        self._lock = Lock()
        self._closed = False
        self._system: deque[Envelope[Any]] = deque()
        self._user: deque[Envelope[Any]] = deque()
        self._tokens: SimpleQueue[None] = SimpleQueue()

    def put(self, envelope: Envelope[Any], /) -> None:
        """Deliver a message: the name under which Pykka's references know it."""
        self.deliver(envelope)

    def deliver(self, envelope: Envelope[Any]) -> bool:
        """Add a message, or refuse it: to dead letters, and with an error to its asker. Return whether it was added."""
        with self._lock:
            if self._closed:
                why = STOPPED
            elif type(envelope.message) in SYSTEM_MESSAGES:
                self._system.append(envelope)
                self._signal()
                return True
            elif len(self._user) < self.max_mail:
                self._user.append(envelope)
                self._signal()
                return True
            else:
                why = FULL
        if self.refuse is not None:
            self.refuse(envelope, why)
        return False

    def _signal(self) -> None:
        if self.attend is None:
            self._tokens.put(None)
        elif not self._attended:
            self._attended = True
            self.attend()

    def take(self) -> Envelope[Any] | None:
        """Return the next message, system lane first, or None if there is none. For an actor that shares its thread."""
        try:
            return self._system.popleft() if self._system else self._user.popleft()
        except IndexError:  # empty, or closed between the two looks
            return None

    def rest(self) -> bool:
        """Have `attend` called for the next mail; False, and nothing, if some has come or the inbox is closed."""
        with self._lock:
            if self._user or self._system or self._closed:
                return False
            self._attended = False
            return True

    def get(self) -> Envelope[Any]:
        """Wait for the next message, system lane first.

        Raises InboxClosedError once the inbox is closed and empty.
        """
        self._tokens.get()
        # Another thread may close the inbox between the two lines of a branch; then the message is in its hands.
        if self._system:
            try:
                return self._system.popleft()
            except IndexError:
                pass
        try:
            return self._user.popleft()
        except IndexError:
            raise InboxClosedError("the inbox was closed; its actor is no longer part of the company") from None

    def close(self) -> deque[Envelope[Any]]:
        """Refuse all mail from now on, wake the reader, and return what was left, oldest first. May be called twice."""
        leftovers: deque[Envelope[Any]] = deque()
        with self._lock:
            self._closed = True
            for lane in (self._system, self._user):
                while lane:
                    try:
                        leftovers.append(lane.popleft())
                    except IndexError:  # the reader was quicker
                        break
            self._signal()
        return leftovers

    def empty(self) -> bool:
        """Return whether no message waits in either lane."""
        return not self._system and not self._user

    def readable(self) -> bool:
        """Return whether `get` would not block: a message waits, or the inbox is closed."""
        return not self._tokens.empty()

    @property
    def waiting(self) -> int:
        """How many user messages wait."""
        return len(self._user)

    @property
    def closed(self) -> bool:
        """Whether the inbox refuses mail."""
        return self._closed
