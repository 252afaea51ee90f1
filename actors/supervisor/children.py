"""The supervisor's record of its children, and the rules of order: who may start, and who must stop, next.

PENDING ──start──▶ STARTING ──Started──▶ RUNNING ──stop──▶ STOPPING
   ▲                   │ Down               │ Down            │ Down
   │                   ▼                    ▼                 ▼
   └──────delay──── BACKOFF ◀───────────────┘       PENDING (taken down by a sibling) or DONE

The rules are functions of the whole list, so that the supervisor, after each event, only asks what may happen next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from ..kernel.timers import TimerToken
from .decision import History
from .spec import ChildSpec, Strategy


class ChildState(Enum):
    """Where a child is in its life."""

    PENDING = "pending"
    BACKOFF = "backoff"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"


ALIVE = frozenset({ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING})
SETTLED = frozenset({ChildState.RUNNING, ChildState.DONE})


@dataclass(slots=True, eq=False)
class Child:
    """A supervisor's record of one child. Only the supervisor's thread changes it."""

    spec: ChildSpec
    dynamic: bool
    state: ChildState = ChildState.PENDING
    generation: int = 0  # of the current life, or the last one
    consecutive: int = 0
    ready_at: float | None = None
    restarts: int = 0
    crashes: int = 0
    last_error: str | None = None
    take_down: bool = False  # a sibling's end asks for this life to be stopped
    restart_after_stop: bool = False
    timer: TimerToken | None = None

    def history(self, recent: tuple[float, ...]) -> History:
        """Return what a restart decision about this child rests on."""
        return History(recent, self.consecutive, self.ready_at)


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """A snapshot of one child. `last_error` is one line, and stays after a successful restart."""

    id: str
    generation: int
    state: str
    restarts: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """A snapshot of a supervisor: its state (`starting`, `running` or `stopping`), its children, and the threads it had to abandon."""

    name: str
    generation: int
    state: str
    children: tuple[ChildStatus, ...]
    restarts: int
    abandoned: int


def startable(children: Sequence[Child], strategy: Strategy) -> list[Child]:
    """Return the children that may be started now, in order.

    Dynamic children wait for nobody. The others start one after the other, each when those before it are ready: at first, and with
    `rest_for_one` always, since there a child may depend on those before it. And there none starts while one after it lives.
    """
    found: list[Child] = []
    ordered = [child for child in children if not child.dynamic]
    rest_for_one = strategy is Strategy.REST_FOR_ONE
    for index, child in enumerate(ordered):
        if child.state is not ChildState.PENDING:
            continue
        in_order = rest_for_one or child.generation == 0
        if in_order and not all(earlier.state in SETTLED for earlier in ordered[:index]):
            continue
        if in_order and any(earlier in found for earlier in ordered[:index]):
            continue
        if rest_for_one and any(later.state in ALIVE for later in ordered[index + 1 :]):
            continue
        found.append(child)
    return found + [child for child in children if child.dynamic and child.state is ChildState.PENDING]


def next_to_take_down(children: Iterable[Child]) -> Child | None:
    """Return the child that a sibling's end takes down next: the last one, and only when none is stopping for that reason."""
    waiting = [child for child in children if child.take_down]
    if not waiting or any(child.state is ChildState.STOPPING for child in waiting):
        return None
    return waiting[-1]


def to_stop_at_the_end(children: Sequence[Child]) -> list[Child]:
    """Return the children to stop now when all must end: the dynamic ones together, then the others in reverse order."""
    dynamic = [child for child in children if child.dynamic and child.state in ALIVE]
    if dynamic:
        return [child for child in dynamic if child.state is not ChildState.STOPPING]
    ordered = [child for child in children if child.state in ALIVE]
    return [ordered[-1]] if ordered and not any(c.state is ChildState.STOPPING for c in ordered) else []
