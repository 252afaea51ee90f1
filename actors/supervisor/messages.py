"""The protocol of a supervisor: what it is told, and what it tells the actor named by its `notify`."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernel.messages import ExitReason
from .spec import ChildSpec

# -- orders to a supervisor -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a child beside those it was built with. A spec whose id is in use is refused, and logged."""

    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class StopChild:
    """Stop a child and forget it. An unknown id is ignored: the child may have ended by itself."""

    id: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Something that no restart heals: stop everything and end as a crash, as when a limit is exceeded."""

    reason: str


# -- facts to `notify` ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """A life of a child is ready for work. It follows the `ChildDown` of the life before."""

    child: str
    generation: int


@dataclass(frozen=True, slots=True)
class ChildDown:
    """A life of a child is over. Sent before its replacement starts, so that what it held can be taken back first."""

    child: str
    generation: int
    reason: ExitReason
    will_restart: bool


@dataclass(frozen=True, slots=True)
class ChildHung:
    """A child is being given up while busy. Fence off what it may still write; its `ChildDown` follows."""

    child: str
    generation: int
    doing: str
    seconds: float


# -- a supervisor's own timers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartTimedOut:
    """A child did not become ready in time."""

    id: str
    generation: int


@dataclass(frozen=True, slots=True)
class StopTimedOut:
    """A child did not end in time after the order to stop."""

    id: str
    generation: int


@dataclass(frozen=True, slots=True)
class RestartDue:
    """A child's backoff is over."""

    id: str
    generation: int


@dataclass(frozen=True, slots=True)
class CheckForHangs:
    """Time to look at what the children are busy with."""
