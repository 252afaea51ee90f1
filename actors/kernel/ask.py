"""Asking, for the edge only: public functions that must return an answer. Actors tell each other, and never ask.

The message carries a `ReplyTo`, a one-shot promise. Whoever gets it may answer from any thread, now or later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import ActorUnavailableError, AskTimeoutError

if TYPE_CHECKING:
    from .system import ActorSystem

T = TypeVar("T")


class ReplyTo(Generic[T]):
    """A promise of one answer. Any thread may call any method; the first answer counts and later ones are ignored.

    A message that carries it in a field `reply_to` is answered with an error by the kernel if it is refused, is left over in the mailbox
    of an actor that ended, or crashes the actor that handles it.
    """

    __slots__ = ("_error", "_event", "_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    def set(self, value: T) -> bool:
        """Answer. Return False if there was an answer already."""
        return self._resolve(value, None)

    def fail(self, error: BaseException) -> bool:
        """Answer with an error, which the asker will see raised. Return False if there was an answer already."""
        return self._resolve(None, error)

    @property
    def event(self) -> threading.Event:
        """Set once there is an answer."""
        return self._event

    def result(self) -> T:
        """Return the answer, or raise it. Only after `event` is set."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set together with the event, and T may include None

    def _resolve(self, value: T | None, error: BaseException | None) -> bool:
        with self._lock:
            if self._event.is_set():
                return False
            self._value, self._error = value, error
            self._event.set()
            return True


def ask(system: ActorSystem, name: str, make_message: Callable[[ReplyTo[Any]], object], timeout: float) -> Any:
    """Send `make_message(reply_to)` to an actor and wait for the answer, at most `timeout` seconds. Not from inside an actor.

    Raises ActorUnavailableError when the actor is not running or ends before it reads the message, AskTimeoutError when
    there is no answer in time (the actor may still act on the message), AskError when called from inside an actor, and
    whatever error the actor answers with.
    """
    reply_to: ReplyTo[Any] = ReplyTo()
    message = make_message(reply_to)
    kind = type(message).__name__
    system.scheduler.refuse_inside_actor(f"ask of {kind} to {name!r}")
    if not system.tell(name, message) and not reply_to.event.is_set():
        raise ActorUnavailableError(f"cannot ask {name!r} for {kind}: no actor of that name takes mail now")
    if not system.scheduler.wait(reply_to.event, timeout):
        raise AskTimeoutError(
            f"no answer from {name!r} to {kind} within {timeout:g} s; the actor does not know and may still act on it"
        )
    return reply_to.result()
