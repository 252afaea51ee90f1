"""What a runner has in hand: a job, the calls it has made for it, and what is yet to be written of both. No I/O, no thread, no clock.

a call:  [LOOKING ─missed→] RESERVING ─granted→ INTENDING ─recorded→ CALLING ─finished/failed→ BOOKING ─recorded→ its handler is answered
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from ...persistence.batches import NewRequest
from ...persistence.limit_rules import Gate, Held
from ...persistence.model import ClaimedJob, KeptCall, Lease, Said
from ..kernel.timers import TimerToken
from ..messages import CallDeferred, CallRef, Charge, Spawn, Verdict
from ..providers.model import Answer as ModelAnswer
from ..providers.model import AnyRequest, Completion, Request
from ..settings import Route
from .dialogue import Dialogue
from .effects import CallModel, Embed, ShowProgress
from .handlers import Answer, Performance


class Stage(Enum):
    """What a call waits for: an answer that is there already, its turn, its intent on disk, the provider, its outcome on disk."""

    LOOKING = auto()
    RESERVING = auto()
    INTENDING = auto()
    CALLING = auto()
    BOOKING = auto()


@dataclass(slots=True)
class Call:
    """One call in hand. `then` is what follows once its outcome is on disk; `provider_life` the generation of the actor that makes it.

    `gate`: what its intent is to be checked and charged by, `held`: what it was charged.

    `kept`: the call of an earlier attempt that it takes up. `handle`: what it can itself be taken up by.

    `fallback`: the models that are left to go on with, after what `fallback_on` names. `downgrades`: how often a
    budget sent it on to a cheaper one. `shown`: text of it was written for readers. `looking`: what the cache knows of it, None if it was not asked.
    `alone`: whether it may go with others has been asked. `deferred`: of the models of its chain that it cannot have now, the one to be had first.
    `looks`: for a limiter that was not there.
    """

    ref: CallRef
    effect: CallModel | Embed
    answer: Answer
    route: Route
    request: AnyRequest
    charge: Charge
    stage: Stage = Stage.RESERVING
    call_id: int = 0
    provider_life: int = 0
    fallback: tuple[str, ...] = ()
    fallback_on: frozenset[str] = frozenset()
    downgrades: int = 0
    looks: int = 0
    shown: bool = False
    then: Callable[[], None] | None = None
    gate: Gate | None = None
    held: Held | None = None
    kept: KeptCall | None = None
    handle: dict[str, Any] | None = None
    looking: "Looking | None" = None
    alone: bool = False
    deferred: CallDeferred | None = None


@dataclass(slots=True)
class Looking:
    """A call's look for an answer that is there already: under which key, and since when (seconds, monotonic) it has waited for another's call.

    `ref`: the call as it was when it took the lead, None while it has none.
    """

    key: str
    since: float
    ref: CallRef | None = None
    timer: TimerToken | None = None


@dataclass(slots=True)
class Work:
    """A job in hand.

    `ended`: its handler has. `ending`: its verdict once it has one; `dropped`: its lease is lost, and no verdict may be written.
    `numbers` counts the calls, `chunk` the pieces of text written. `dialogue`: its conversation,
    `summary`: what it has summed up of one. `spawn`: the children it is about to leave for. `joins`: the requests that it is about to let go with others', once
    `gathered`.
    """

    job: ClaimedJob
    performance: Performance
    calls: dict[CallRef, Call] = field(default_factory=dict)
    saves: dict[str, Answer] = field(default_factory=dict)
    numbers: int = 0
    steps: set[str] = field(default_factory=set)
    ended: bool = False
    ending: Verdict | None = None
    dropped: bool = False
    deadline: TimerToken | None = None
    texts: list[tuple[str, str]] = field(default_factory=list)
    text_size: int = 0
    text_total: int = 0
    chunk: int = 0
    flush: TimerToken | None = None
    shown: ShowProgress | None = None
    show: TimerToken | None = None
    shows_itself: bool = False
    dialogue: Dialogue | None = None
    summary: Said | None = None
    spawn: Spawn | None = None
    joins: list[NewRequest] = field(default_factory=list)
    gathered: bool = False

    @property
    def lease(self) -> Lease:
        """The right to write about it."""
        return self.job.lease

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out: nothing new is begun for it."""
        return self.dropped or self.ending is not None

    def note_progress(self, progress: ShowProgress) -> None:
        """What is shown next: never less than before, and the last word said."""
        shown = self.shown or progress
        self.shown = ShowProgress(max(progress.percent, shown.percent), progress.message or shown.message)

    def note_text(self, step: str, text: str) -> None:
        """Keep a piece of an answer until it is written."""
        self.texts.append((step, text))
        self.text_size += len(text)
        self.text_total += len(text)

    def hear(self, effect: CallModel | Embed, request: AnyRequest | None, answer: ModelAnswer) -> None:
        """Let the job's conversation know of an answer that is part of it. `request` is None for one that an earlier attempt received."""
        if isinstance(effect, CallModel) and effect.in_conversation and self.dialogue is not None:
            assert isinstance(answer, Completion)
            sent = request.messages if isinstance(request, Request) else None
            self.dialogue.hear(effect.messages, sent, answer, corrects=effect.corrects)

    def note_restart(self, step: str) -> None:
        """What was shown of a step is void: it begins anew. An empty chunk says so to its readers."""
        self.texts.append((step, ""))

    def take_chunks(self) -> tuple[tuple[int, str, str], ...]:
        """The text kept so far as numbered chunks, pieces of one step that follow each other in one."""
        merged: list[tuple[int, str, str]] = []
        for step, text in self.texts:
            if merged and merged[-1][1] == step and merged[-1][2] and text:
                merged[-1] = (merged[-1][0], step, merged[-1][2] + text)
            else:
                self.chunk += 1
                merged.append((self.chunk, step, text))
        self.texts, self.text_size = [], 0
        return tuple(merged)


# --- a runner's own timers ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlushDue:
    """Text has waited long enough to be written together."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class ShowDue:
    """Progress may be written again."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class JoinDue:
    """The calls made side by side have been gathered."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class JobTimedOut:
    """The job has run for as long as it may."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class ReserveAgainDue:
    """The limiter may be there by now."""

    call: CallRef


@dataclass(frozen=True, slots=True)
class LookDue:
    """Another process may have made the call by now."""

    call: CallRef


@dataclass(frozen=True, slots=True)
class HandlerOverdue:
    """An interrupted handler has had its time to end."""

    lease: Lease
