"""What the kernel itself sends: beginnings and ends of lives, and the order to stop.

A *life* is one start of an actor: a name plus a generation, which rises with every start of that name. Every life that began
ends in exactly one `Down`, whatever ended it, and the reason says what that was.
"""

from __future__ import annotations

import traceback as traceback_module
from dataclasses import dataclass
from typing import Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Normal:
    """The actor ended by its own choice: its work is done."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The actor was told to stop, and did."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """An exception left a handler, or a hook that ends a life.

    `exception` keeps its traceback and with it every frame below; do not store a reason, store `error`.
    """

    error: str
    traceback: str = ""
    exception: BaseException | None = None

    @classmethod
    def of(cls, exception: BaseException) -> Self:
        """Describe an exception: one line for people, the traceback as text, and the exception itself."""
        return cls(describe(exception), format_traceback(exception), exception)


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The actor could not be built, its `on_start` raised, or it was not ready in time (`exception` is None then)."""

    error: str
    traceback: str = ""
    exception: BaseException | None = None

    @classmethod
    def of(cls, exception: BaseException) -> Self:
        """Describe the exception that prevented the start."""
        return cls(describe(exception), format_traceback(exception), exception)


@dataclass(frozen=True, slots=True)
class Hung:
    """The actor was given up while it was busy: a thread cannot be killed, so the life was ended and the thread left behind."""

    doing: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NotRunning:
    """Answer to a watch of a name of which no life is on record."""


ExitReason: TypeAlias = Normal | Shutdown | Crashed | StartFailed | Hung | NotRunning


def describe(exception: BaseException) -> str:
    """Return `TypeName: text` for an exception, on one line."""
    try:
        text = " ".join(str(exception).split())
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide that something crashed
        text = "(its text cannot be shown)"
    return f"{type(exception).__name__}: {text}" if text else type(exception).__name__


def format_traceback(exception: BaseException) -> str:
    """Return the traceback of an exception as text, as the interpreter would print it."""
    return "".join(traceback_module.format_exception(exception))


def explain(reason: ExitReason) -> str:
    """Return an exit reason as one line for logs and status pages."""
    match reason:
        case Normal():
            return "ended normally"
        case Shutdown():
            return "was stopped"
        case Crashed(error=error):
            return f"crashed: {error}"
        case StartFailed(error=error):
            return f"failed to start: {error}"
        case Hung(doing=doing, seconds=seconds):
            return f"hung: busy with {doing} for {seconds:.1f} s"
        case NotRunning():
            return "is not running"


def without_exception(reason: ExitReason) -> ExitReason:
    """Return the reason without the exception object, safe to keep: an exception holds every frame of its traceback."""
    match reason:
        case Crashed(error=error, traceback=text):
            return Crashed(error, text)
        case StartFailed(error=error, traceback=text):
            return StartFailed(error, text)
        case _:
            return reason


@dataclass(frozen=True, slots=True)
class Started:
    """To the owner: this life of the child is ready for work."""

    child: str
    generation: int


@dataclass(frozen=True, slots=True)
class Down:
    """To the owner and to every watcher: this life is over. Sent exactly once per life to each of them."""

    child: str
    generation: int
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Unstuck:
    """To the owner: the thread of a life that had been abandoned came back and has ended. Its `Down` was sent long ago."""

    child: str
    generation: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Order to end. Travels in the system lane: it overtakes all user mail that waits, and is not counted as mail."""

    reason: Normal | Shutdown = Shutdown()
