"""What the dispatcher is told, and what it answers."""

from dataclasses import dataclass
from typing import Any

from ...persistence.model import Lease
from ..kernel.ask import ReplyTo


@dataclass(frozen=True, slots=True)
class KeyHeld:
    """No further call of this key would be admitted before `until_ms`: claim no jobs for it, but those that may go elsewhere after this `kind`.

    `kind`: of the hold, as in `LimitHold`; rate where limits are used up.
    """

    limit_key: str
    until_ms: int
    reason: str
    kind: str = "rate"


@dataclass(frozen=True, slots=True)
class KeyFreed:
    """This many further calls of the key would be admitted soon; None: the key is not limited at the moment."""

    limit_key: str
    headroom: int | None


@dataclass(frozen=True, slots=True)
class RunnerIdle:
    """A runner has nothing to do. `done` is the lease it just ended, None when it has just started."""

    runner: str
    done: Lease | None


@dataclass(frozen=True, slots=True)
class ReportIn:
    """Tell the dispatcher (a new one, which knows nothing) what you are doing: RunnerIdle or RunnerBusy."""


@dataclass(frozen=True, slots=True)
class RunnerBusy:
    """A runner works on this lease. `alone`: nothing may be claimed beside it."""

    runner: str
    lease: Lease
    alone: bool


@dataclass(frozen=True, slots=True)
class HandlerAbandoned:
    """A handler did not end when it was interrupted: its thread is left behind, fenced off by its lease."""

    runner: str
    lease: Lease


@dataclass(frozen=True, slots=True)
class HandlerReturned:
    """An abandoned handler has ended after all."""

    runner: str
    lease: Lease


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A hint that the board has changed; may be lost without changing any result."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Claim nothing more. `deadline` seconds from now, unfinished jobs are handed back (0: now). `done` is answered when none is left."""

    deadline: float
    done: ReplyTo[None]


@dataclass(frozen=True, slots=True)
class Hasten:
    """While draining: hand back what is unfinished now."""


@dataclass(frozen=True, slots=True)
class Describe:
    """How does the company stand? Answered with a `CompanySnapshot`."""

    reply_to: ReplyTo[Any]
