"""The half of a runner that makes the calls its handler asks for, and writes what is seen of them meanwhile.

    effect CallModel:  [LOOKING ─missed→] RESERVING ─granted→ INTENDING ─recorded→ CALLING ─finished/failed→ BOOKING ─recorded→ answer the handler

Each arrow is a message; what becomes of the job when a call ends it is the other half's business (`actor.py`).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from ...persistence.limit_rules import Gate, Held
from ...persistence.model import CallOutcome, Lease
from ..kernel.actor import Actor
from ..kernel.messages import Down
from ..kernel.system import ActorSystem
from ..messages import (
    STORE,
    AppendChunks,
    CallDeferred,
    CallFailed,
    CallFinished,
    CallGranted,
    CallHeld,
    CallRef,
    CallRemembered,
    Chunks,
    Fail,
    IntentRecorded,
    IntentRefused,
    OutcomeRecorded,
    RecordIntent,
    RecordOutcome,
    Release,
    ReserveCall,
    SaveHandle,
    SetProgress,
    SettleCall,
    StartCall,
    TextArrived,
    Verdict,
    WithdrawCall,
    limiter_name,
    provider_name,
)
from ..providers.model import Answer as ModelAnswer
from ..providers.model import Billed, CallError, Completion, ErrorClass, Request, answer_from_json
from ..settings import CompanySettings, Route, UnknownModelError, covers, route
from . import booking, budget_refusals, charges, fallback, resuming, retry
from .dialogue import in_conversation, shortened
from .effects import CallFailedError, CallModel, Embed, ShowProgress
from .handlers import Answer
from .work import Call, FlushDue, ReserveAgainDue, ShowDue, Stage, Work

FLUSH_AFTER = 0.1
"""Seconds that streamed text may wait, at most, to be written together; the first piece of an answer does not wait."""
FLUSH_CHARS = 4096
PROGRESS_EVERY = 0.15
RESERVE_AGAIN = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Seconds between looks for a limiter that is being started: mostly it is there in milliseconds."""
GO_BACK_FOR = 0.25
"""Seconds until a job may be claimed again whose provider was restarting."""


class CallingActor(Actor):
    """Makes calls for the job in hand."""

    shares_thread: ClassVar[bool] = True

    def __init__(
        self, system: ActorSystem, *, settings: CompanySettings, open_limiter: Callable[[Route], None]
    ) -> None:
        super().__init__(system)
        self._settings = settings
        self._open_limiter = open_limiter
        self._work: Work | None = None

    @abstractmethod
    def _leave(self, work: Work, verdict: Verdict) -> None:
        """Bring the job to its end with this verdict, unless it has one."""

    @abstractmethod
    def _again(self, work: Work, error: dict[str, Any], reason: str, retry_after: float | None = None) -> Verdict:
        """Another attempt when the policy of the job's type says, or its end."""

    @abstractmethod
    def _finish_when_quiet(self, work: Work) -> None:
        """Go on leaving, if no call keeps the job here any more."""

    @abstractmethod
    def _leave_to_wait(self, work: Work) -> None:
        """Leave for the children, once what the handler has under way beside them is done."""

    @abstractmethod
    def _begin_call(self, work: Work, call: Call) -> None:
        """Look whether the answer of a call in hand is there already; if not, or not wanted, `_make` it."""

    @abstractmethod
    def _cached_as(self, call: Call, outcome: CallOutcome) -> tuple[str | None, bool]:
        """The key under which others may wait for the answer of a call that has ended, and whether it is to be kept."""

    @abstractmethod
    def _goes_with_others(self, work: Work, call: Call) -> bool:
        """Whether this call, not yet begun, has been dealt with otherwise: it waits for company, say."""

    def receive_of_calls(self, message: object) -> None:
        """Dispatch what concerns calls. What is about a call that is no longer in hand is history."""
        match message:
            case CallGranted(ref, gate):
                self._with_call(ref, Stage.RESERVING, lambda _, call: self._on_granted(call, gate))
            case CallDeferred(call=ref):
                self._with_call(ref, Stage.RESERVING, lambda work, call: self._on_deferred(work, call, message))
            case IntentRecorded(ref, call_id, held):
                self._with_call(ref, Stage.INTENDING, lambda work, call: self._on_intent(work, call, call_id, held))
            case IntentRefused(call=ref, cause="limit"):
                self._with_call(ref, Stage.INTENDING, self._on_no_room)
            case IntentRefused(call=ref, cause="budget"):
                self._with_call(ref, Stage.INTENDING, lambda work, call: self._on_no_budget(work, call, message))
            case CallRemembered(ref, kept):
                self._with_call(ref, Stage.INTENDING, lambda work, call: self._on_remembered(work, call, kept))
                self._with_call(ref, Stage.BOOKING, lambda work, call: self._on_outdone(work, call, kept))
            case TextArrived(ref, text):
                self._with_call(ref, Stage.CALLING, lambda work, call: self._on_text(work, call, text))
            case CallFinished(ref, completion, text):
                self._with_call(ref, Stage.CALLING, lambda work, call: self._on_finished(work, call, completion, text))
            case CallHeld(ref, handle):
                self._with_call(ref, Stage.CALLING, lambda _, call: self._on_held(call, handle))
            case CallFailed(ref, error):
                self._with_call(ref, Stage.CALLING, lambda work, call: self._on_failed(work, call, error))
            case OutcomeRecorded(ref):
                self._with_call(ref, Stage.BOOKING, self._on_booked)
            case Down(child, generation):
                self._on_down(child, generation)
            case FlushDue(lease):
                if (work := self._held(lease)) is not None:
                    self._flush_text(work)
            case ShowDue(lease):
                if (work := self._held(lease)) is not None:
                    self._write_progress(work)
            case ReserveAgainDue(ref):
                self._with_call(ref, Stage.RESERVING, lambda _, call: self._reserve(call))
            case _:
                self.unhandled(message)

    def _held(self, lease: Lease) -> Work | None:
        return self._work if self._work is not None and self._work.lease == lease else None

    def _with_call(self, ref: CallRef, stage: Stage, act: Callable[[Work, Call], None]) -> None:
        work = self._held(ref.lease)
        call = work.calls.get(ref) if work is not None else None
        if work is not None and call is not None and call.stage is stage:
            act(work, call)

    # --- from an effect to its answer -----------------------------------------------------------------------------------------------

    def _call(self, work: Work, effect: CallModel | Embed, answer: Answer) -> None:
        memo = work.job.memo
        if effect.step in work.steps:
            answer.refuse(
                ValueError(f"step {effect.step!r} was used twice in one attempt; give each call a name of its own")
            )
            return
        work.steps.add(effect.step)
        if memo is not None and effect.step in memo.completions:
            self._recall(work, effect, answer, memo.completions[effect.step])
            return
        try:
            where = route(self._settings, effect.model or work.job.model)
        except UnknownModelError as error:
            answer.refuse(CallFailedError(CallError(kind=ErrorClass.NOT_FOUND, message=f"model: {error}", sent=False)))
            return
        request = booking.request_of(effect, where)
        if isinstance(effect, CallModel) and isinstance(request, Request) and effect.in_conversation:
            try:
                request = in_conversation(work.dialogue, request)
            except CallFailedError as error:
                answer.refuse(error)
                return
        begins = resuming.beginning(memo, effect, request, where, self._settings)
        if (
            begins.kept is None
            and memo is not None
            and effect.step in memo.unknown
            and work.job.options.on_unknown == "park"
        ):
            self._leave(work, Fail(*booking.parked(f"step {effect.step!r} has a call whose outcome is unknown")))
            return
        work.numbers += 1
        ref = CallRef(work.lease.job_id, work.lease.epoch, work.numbers)
        call = Call(ref, effect, answer, begins.route, begins.request, charges.charge_of(begins.request, begins.route))
        call.fallback, call.fallback_on = begins.fallback, where.fallback_on
        call.kept = begins.kept
        work.calls[ref] = call
        self._begin_call(work, call)

    def _make(self, work: Work, call: Call) -> None:
        """Make a call that is in hand, whose answer is not there yet; the first time perhaps with others."""
        if call.kept is None and not call.alone:
            call.alone = True
            del work.calls[call.ref]
            if self._goes_with_others(work, call):
                return
            work.calls[call.ref] = call
        self._reserve(call)

    def _reserve(self, call: Call) -> None:
        call.stage = Stage.RESERVING
        name = limiter_name(call.route.limit_key)
        if self.system.directory.find(name) is None:
            self._open_limiter(call.route)
            self._reserve_soon(call)
            return
        self.watch(name)
        assert self._work is not None
        order = ReserveCall(
            reply_to=self.name,
            call=call.ref,
            charge=call.charge if call.kept is None else resuming.CHARGE,
            priority=self._work.job.priority,
            assumed_output=charges.assumed_output(call.request) if call.kept is None else 0,
        )
        self.tell(name, order)

    def _reserve_soon(self, call: Call) -> None:
        self.after(RESERVE_AGAIN[min(call.looks, len(RESERVE_AGAIN) - 1)], ReserveAgainDue(call.ref))
        call.looks += 1

    def _on_granted(self, call: Call, gate: Gate) -> None:
        call.stage = Stage.INTENDING
        call.gate = gate
        if call.kept is None:
            call.charge = gate.charge
        intent = booking.intent_of(call.effect, call.request, call.route, call.charge)
        resumes = None if call.kept is None else call.kept.call_id
        self.tell(STORE, RecordIntent(reply_to=self.name, call=call.ref, intent=intent, resumes=resumes, gate=gate))

    def _on_deferred(self, work: Work, call: Call, deferred: CallDeferred) -> None:
        del work.calls[call.ref]
        self._note_deferral(call, deferred)
        if call.kept is None and call.fallback and covers(call.fallback_on, deferred.kind):
            self._go_elsewhere(work, call)
            return
        first = call.deferred or deferred
        self._leave(
            work,
            Release(cause="deferral", reason=first.reason, held_by=first.limit_key, held_until_ms=first.until_ms),
        )

    @staticmethod
    def _note_deferral(call: Call, deferred: CallDeferred) -> None:
        if call.deferred is None or deferred.until_ms < call.deferred.until_ms:
            call.deferred = deferred

    def _on_held(self, call: Call, handle: dict[str, Any]) -> None:
        call.handle = handle
        self.tell(STORE, SaveHandle(call_id=call.call_id, handle=handle))

    def _on_no_room(self, work: Work, call: Call) -> None:
        """Other workers have used what the limiter believed free; it has been told, so ask it again."""
        self.tell(limiter_name(call.route.limit_key), WithdrawCall(call.ref))
        if work.leaving:
            del work.calls[call.ref]
            self._finish_when_quiet(work)
        else:
            self._reserve(call)

    def _on_intent(self, work: Work, call: Call, call_id: int, held: Held | None) -> None:
        call.call_id, call.held = call_id, held
        call.kept = resuming.taken_up(call)
        call.stage = Stage.CALLING
        if work.leaving:
            self._on_failed(work, call, booking.not_sent("the job left before the call did"))
            return
        name = provider_name(call.route.provider)
        order = StartCall(
            reply_to=self.name,
            call=call.ref,
            limit_key=call.route.limit_key,
            request=call.request,
            timeouts=booking.timeouts_of(work.job, self._settings),
            handle=None if call.kept is None else call.kept.handle,
        )
        # To this very life: the end of an earlier one may still be in the mailbox, and must not be taken for the end of this call.
        life = self.system.directory.find(name)
        if life is not None:
            self.watch(name)
            call.provider_life = life.generation
            if self.system.tell_life(life, order):
                return
        self._on_failed(work, call, booking.not_sent(f"provider {call.route.provider} is restarting"))

    def _on_no_budget(self, work: Work, call: Call, refused: IntentRefused) -> None:
        del work.calls[call.ref]
        self.tell(limiter_name(call.route.limit_key), WithdrawCall(call.ref))
        if work.leaving:
            self._finish_when_quiet(work)
        elif budget_refusals.goes_on(refused, call, self._settings):
            call.downgrades += 1
            call.fallback = (refused.model,)
            self._go_elsewhere(work, call)
        else:
            self._leave(work, budget_refusals.verdict(refused))

    def _on_remembered(self, work: Work, call: Call, kept: dict[str, Any]) -> None:
        del work.calls[call.ref]
        self.tell(limiter_name(call.route.limit_key), WithdrawCall(call.ref))
        if work.leaving:
            self._finish_when_quiet(work)
        else:
            self._recall(work, call.effect, call.answer, kept)
            self._leave_to_wait(work)

    def _on_outdone(self, work: Work, call: Call, kept: dict[str, Any]) -> None:
        call.then = lambda: self._recall(work, call.effect, call.answer, kept)
        self._on_booked(work, call)

    @staticmethod
    def _recall(work: Work, effect: CallModel | Embed, answer: Answer, kept: dict[str, Any]) -> None:
        """Answer with what the ledger has."""
        found = answer_from_json(kept)
        work.hear(effect, None, found)
        answer.give(found)

    def _on_finished(self, work: Work, call: Call, completion: ModelAnswer, text: str) -> None:
        if text and not work.leaving:
            work.note_text(call.effect.step, text)
            call.shown = True
        # What it took up was charged when it was made.
        used = charges.used_by(completion.usage, call.charge, call.route) if call.kept is None else None
        settled = booking.settle_completed(call.ref, used)
        if isinstance(completion, Completion) and fallback.passes_over(completion, call):
            call.then = lambda: self._go_elsewhere(work, call)
            self._book(work, call, booking.passed_over(completion, call.route), settled)
            return
        # What a built-in does next is a write behind this one, or another call: the outcome is committed with what follows from it, or
        # before it. Not for a job that had a holder before: another answer may have been kept first.
        waits = not work.performance.inline or work.lease.epoch > 1
        call.then = lambda: self._tell_handler(work, call, completion)
        self._book(work, call, booking.completed(completion, call.route), settled, awaited=waits)
        if not waits:
            self._on_booked(work, call)

    def _tell_handler(self, work: Work, call: Call, completion: ModelAnswer) -> None:
        work.hear(call.effect, call.request, completion)
        call.answer.give(completion)

    def _on_failed(self, work: Work, call: Call, error: CallError) -> None:
        error = resuming.judged(call, error)
        settled = booking.settle_failed(call.ref, error, charges.used_by_failed(error))
        call.then = lambda: self._act_on(work, call, error)
        self._book(work, call, booking.failed(error), settled)

    def _book(self, work: Work, call: Call, outcome: CallOutcome, settled: SettleCall, *, awaited: bool = True) -> None:
        """Tell what came of a call. It is `awaited`: `call.then` when that is on disk."""
        call.stage = Stage.BOOKING
        cache_key, keeps = self._cached_as(call, outcome)
        order = RecordOutcome(
            reply_to=self.name,
            call=call.ref,
            call_id=call.call_id,
            outcome=outcome,
            held=call.held,
            used=settled.used,
            ended_ms=self.now_ms(),
            cache_key=cache_key,
            keeps=keeps,
            chunks=self._take_text(work),
            awaited=awaited,
        )
        self.tell(STORE, order)
        # After the store: what the limiter now lets go must find this one ended there.
        self.tell(limiter_name(call.route.limit_key), settled)

    def _on_booked(self, work: Work, call: Call) -> None:
        del work.calls[call.ref]
        if work.leaving:
            self._finish_when_quiet(work)
        elif call.then is not None:
            # Let go of: it knows the call that knows it, and an answer may be large.
            then, call.then = call.then, None
            then()
            self._leave_to_wait(work)

    def _go_elsewhere(self, work: Work, call: Call) -> None:
        """Ask the next model of the chain. No attempt is used: the job has not failed yet."""
        name, *rest = call.fallback
        where = route(self._settings, name)
        if call.shown:
            work.note_restart(call.effect.step)
        call.route, call.fallback, call.shown = where, tuple(rest), False
        call.kept = call.handle = None
        call.request = fallback.rerouted(call.request, where, call.effect)
        call.charge = charges.charge_of(call.request, where)
        self._reserve_anew(work, call)

    def _ask_anew(self, work: Work, call: Call) -> None:
        """Make a call that could not be taken up."""
        if call.shown:
            work.note_restart(call.effect.step)
        call.kept, call.handle, call.shown = None, None, False
        self._reserve_anew(work, call)

    def _reserve_anew(self, work: Work, call: Call) -> None:
        work.numbers += 1
        call.ref = CallRef(work.lease.job_id, work.lease.epoch, work.numbers)
        work.calls[call.ref] = call
        call.alone = True
        self._begin_call(work, call)

    def _asked_shorter(self, work: Work, call: Call, error: CallError) -> bool:
        """Whether a turn that was too long is asked again with less of the past."""
        shorter = shortened(work.dialogue, call.effect, call.request, error)
        if shorter is not None:
            call.request, call.charge = shorter, charges.charge_of(shorter, call.route)
            self._reserve_anew(work, call)
        return shorter is not None

    def _act_on(self, work: Work, call: Call, error: CallError) -> None:
        if resuming.gone(call, error, on_unknown=work.job.options.on_unknown):
            self._ask_anew(work, call)
            return
        if self._asked_shorter(work, call, error):
            return
        if not error.resumable and fallback.applies(error, call, on_unknown=work.job.options.on_unknown):
            if error.kind in retry.HOLDS_KEY:
                self._note_deferral(call, fallback.deferral(error, call, self.now_ms(), self._settings.park_after))
            self._go_elsewhere(work, call)
            return
        call.kept = resuming.again(call, error)
        match retry.decide(error, on_unknown=work.job.options.on_unknown):
            case retry.ReserveAgain():
                self._reserve_anew(work, call)
            case retry.TryLater(retry_after):
                self._leave(work, self._again(work, error.to_json(), f"{error.kind}: {error.message}", retry_after))
            case retry.TellHandler():
                call.answer.refuse(CallFailedError(error))
            case retry.Park():
                self._leave(work, Fail(*booking.parked(error.message)))
            case retry.GoBack():
                # Not at once: a provider that is down would have it claimed and handed back at the speed of the disk.
                until_ms = self.now_ms() + round(GO_BACK_FOR * 1000)
                self._leave(
                    work, Release(cause="handback", reason=error.message, held_by=error.message, held_until_ms=until_ms)
                )

    # --- what is seen of it meanwhile -----------------------------------------------------------------------------------------------

    def _on_text(self, work: Work, call: Call, text: str) -> None:
        if work.leaving:
            return
        work.note_text(call.effect.step, text)
        call.shown = True
        if work.chunk == 0 or work.text_size >= FLUSH_CHARS:
            self._flush_text(work)
        elif work.flush is None:
            # At the same moments for all jobs, so that what they have to write goes into one transaction.
            work.flush = self.after(FLUSH_AFTER - self.monotonic() % FLUSH_AFTER, FlushDue(work.lease))
        if (most := booking.output_at_most(call.request, assumed=0)) and not work.shows_itself:
            self._show(work, ShowProgress(min(99, 100 * work.text_total // (4 * most))))

    def _take_text(self, work: Work) -> Chunks:
        if work.flush is not None:
            self.cancel(work.flush)
            work.flush = None
        return work.take_chunks() if work.texts else ()

    def _flush_text(self, work: Work) -> None:
        if chunks := self._take_text(work):
            self.tell(STORE, AppendChunks(reply_to=self.name, lease=work.lease, chunks=chunks))

    def _show(self, work: Work, progress: ShowProgress) -> None:
        work.note_progress(progress)
        if work.show is None:
            work.show = self.after(PROGRESS_EVERY, ShowDue(work.lease))

    def _write_progress(self, work: Work) -> None:
        work.show = None
        if work.shown is not None and not work.leaving:
            self.tell(STORE, SetProgress(lease=work.lease, percent=work.shown.percent, message=work.shown.message))

    # --- others come and go ---------------------------------------------------------------------------------------------------------

    def _on_down(self, name: str, generation: int) -> None:
        if self._work is None:
            return
        for call in list(self._work.calls.values()):
            if call.stage is Stage.RESERVING and name == limiter_name(call.route.limit_key):
                self._reserve_soon(call)
            elif call.stage is Stage.CALLING and name == provider_name(call.route.provider):
                if call.provider_life > generation:
                    self.watch(name)
                    continue
                error = CallError(
                    kind=ErrorClass.CANCELLED, message=f"provider {call.route.provider} restarted", billed=Billed.MAYBE
                )
                self._on_failed(self._work, call, error)
