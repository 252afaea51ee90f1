"""What the store is told, and tells, about answers that are kept and calls whose answers others wait for.

JobRunner → Store   LookUpAnswer   → AnswerKept: the step is booked | AnswerMissed: make the call
                                   | AnswerAwaited: another call is under way … AnswerDue: look again
"""

from dataclasses import dataclass
from typing import Any

from ...persistence.model import CallIntent
from .names import CallRef


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUpAnswer:
    """Is there an answer to this already, no older than `max_age_ms`? Then it is booked for the step. `key` says what is the same.

    `waits`: it waits for another call that asks the same; else it goes by itself if there is no answer.
    """

    reply_to: str
    call: CallRef
    key: str
    intent: CallIntent
    max_age_ms: int
    waits: bool = True


@dataclass(frozen=True, slots=True)
class AnswerKept:
    """There is, and it is in the ledger as this step's: no call is to leave."""

    call: CallRef
    completion: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerMissed:
    """There is none. `leads`: those who ask the same from now on wait for this call, until its outcome, LeaveFlight or the end of its lease."""

    call: CallRef
    leads: bool


@dataclass(frozen=True, slots=True)
class AnswerAwaited:
    """A call that asks the same is under way; AnswerDue says when to look again, if it is made by this process."""

    call: CallRef


@dataclass(frozen=True, slots=True)
class AnswerDue:
    """The call that this one waits for has ended, one way or the other: look again."""

    call: CallRef


@dataclass(frozen=True, slots=True)
class LeaveFlight:
    """This call will not ask that after all: nobody need wait for it."""

    call: CallRef
    key: str
