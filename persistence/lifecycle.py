"""The life of a job: its states and the only legal moves between them.

    add ──▶ waiting ──claim──▶ active ──▶ completed
              ▲  ▲               │ ├────▶ failed
              │  └──release──────┤ └────▶ cancelled
              └──due── delayed ◀─┤
                          │      └────▶ waiting_children ──▶ waiting
                          └──due, but waits on others──▲

A failed or cancelled job that a person sends back goes to waiting, or to waiting_children if something it waits on is live. A turn that is
added to a conversation goes from waiting to waiting_children at once if there is a live turn before it.

This table is the single source: the database's triggers are generated from it (`persistence.schema`), the store's functions follow it,
and the tests enumerate it. It has no I/O.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobState(StrEnum):
    """BullMQ's names. *Paused* belongs to a queue; *held by a limit* is a reason a waiting job carries."""

    WAITING = "waiting"
    DELAYED = "delayed"
    WAITING_CHILDREN = "waiting_children"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FIRST_STATES = frozenset({JobState.WAITING, JobState.DELAYED, JobState.WAITING_CHILDREN})
"""The states a job may be added in."""

TERMINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
"""The states a job never leaves by itself; a person may send a failed or cancelled one back to waiting."""

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.WAITING: frozenset(
            {JobState.ACTIVE, JobState.DELAYED, JobState.WAITING_CHILDREN, JobState.FAILED, JobState.CANCELLED}
        ),
        JobState.DELAYED: frozenset({JobState.WAITING, JobState.WAITING_CHILDREN, JobState.FAILED, JobState.CANCELLED}),
        JobState.WAITING_CHILDREN: frozenset({JobState.WAITING, JobState.FAILED, JobState.CANCELLED}),
        JobState.ACTIVE: frozenset(
            {
                JobState.WAITING,
                JobState.DELAYED,
                JobState.WAITING_CHILDREN,
                JobState.COMPLETED,
                JobState.FAILED,
                JobState.CANCELLED,
            }
        ),
        JobState.COMPLETED: frozenset(),
        JobState.FAILED: frozenset({JobState.WAITING, JobState.WAITING_CHILDREN}),
        JobState.CANCELLED: frozenset({JobState.WAITING, JobState.WAITING_CHILDREN}),
    }
)


def is_legal(before: JobState | None, after: JobState) -> bool:
    """Whether a job may go from `before` (None: it is being added) to `after`."""
    if before is None:
        return after in FIRST_STATES
    return after in TRANSITIONS[before]
