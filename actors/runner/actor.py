"""The actor that performs one job at a time.

It reads its mailbox and nothing else: the handler works elsewhere and asks for effects, calls are made by the provider's actor, writes by the
store's. So a cancel, a lost lease or a shutdown reaches it at once. Whatever ends a job early first brings its calls to an end (what was
spent is booked, even for a lost lease), and only then commits the verdict.
"""

from collections.abc import Callable
from typing import Any

from ...persistence.errors import InvalidJobError
from ...persistence.model import ClaimedJob, Lease
from ..kernel.actor import Actor
from ..kernel.messages import Down
from ..kernel.system import ActorSystem, void
from ..kernel.timers import TimerToken
from ..messages import (
    DISPATCHER,
    STORE,
    AbortCall,
    AppendChunks,
    CallDeferred,
    CallFailed,
    CallFinished,
    CallGranted,
    CallRef,
    CallRemembered,
    Fail,
    FinishJob,
    HandBack,
    HandlerAbandoned,
    HandlerReturned,
    IntentRecorded,
    JobRecorded,
    LeaseLost,
    OutcomeRecorded,
    RecordIntent,
    RecordOutcome,
    Release,
    ReportIn,
    ReserveCall,
    RevokeJob,
    RunJob,
    RunnerBusy,
    RunnerIdle,
    SaveStep,
    SetProgress,
    Spawn,
    StartCall,
    StepSaved,
    StoreRefused,
    TextArrived,
    Verdict,
    WithdrawCall,
    limiter_name,
    provider_name,
)
from ..providers.model import Billed, CallError, Completion, ErrorClass
from ..settings import CompanySettings, Route, UnknownModelError, route
from . import booking, retry
from .children import AnswerInstead, children_of
from .dialogue import Dialogue, in_conversation
from .effects import CallFailedError, CallModel, Effect, KeepSummary, KeepValue, ShowProgress, SpawnChildren
from .handlers import Answer, EffectAsked, HandlerEnded, HandlerRegistry
from .verdicts import result_verdict, verdict_of
from .work import Call, FlushDue, HandlerOverdue, JobTimedOut, ReserveAgainDue, ShowDue, Stage, Work

FLUSH_AFTER = 0.1
"""Seconds that streamed text may wait to be written together; the first piece of an answer does not wait."""
FLUSH_CHARS = 4096
PROGRESS_EVERY = 0.15
RESERVE_AGAIN = 0.1
GO_BACK_FOR = 0.25
"""Seconds until a job may be claimed again whose provider was restarting."""
HANDLER_GRACE = 10.0
"""Seconds a handler has to end after it was interrupted, before its thread counts as abandoned."""


class JobRunnerActor(Actor):
    """Performs one job at a time, under its lease. `open_limiter` has the limiter of a route started if it is not there."""

    def __init__(
        self,
        system: ActorSystem,
        *,
        settings: CompanySettings,
        handlers: HandlerRegistry,
        open_limiter: Callable[[Route], None],
    ) -> None:
        super().__init__(system)
        self._settings = settings
        self._handlers = handlers
        self._retries = retry.RetryPolicies(settings.retries, handlers.retry_policies)
        self._open_limiter = open_limiter
        self._work: Work | None = None
        self._lingering: dict[Lease, TimerToken | None] = {}

    def on_start(self) -> None:
        """Offer itself."""
        self.tell(DISPATCHER, RunnerIdle(self.name, None))

    def on_stop(self) -> None:
        """Let go of what it holds; the dispatcher, or the sweep, hands the job back."""
        self._let_go()

    def on_failure(self, *_: Any) -> None:
        """Let go of what it holds; the dispatcher counts the loss."""
        self._let_go()

    def receive(self, message: object) -> None:
        """Dispatch. What concerns a lease or call that is no longer held is dropped: it is history."""
        match message:
            case RunJob(job):
                self._begin(job)
            case EffectAsked(lease, effect, answer):
                # What is asked while the job is about to wait for children is asked again when it comes back.
                if (work := self._held(lease)) is not None and not work.leaving and work.spawn is None:
                    self._perform(work, effect, answer)
            case HandlerEnded(lease):
                self._on_handler_ended(message)
            case CallGranted(ref):
                self._with_call(ref, Stage.RESERVING, self._on_granted)
            case CallDeferred(call=ref):
                self._with_call(ref, Stage.RESERVING, lambda work, call: self._on_deferred(work, call, message))
            case IntentRecorded(ref, call_id):
                self._with_call(ref, Stage.INTENDING, lambda work, call: self._on_intent(work, call, call_id))
            case CallRemembered(ref, kept):
                self._with_call(ref, Stage.INTENDING, lambda work, call: self._on_remembered(work, call, kept))
                self._with_call(ref, Stage.BOOKING, lambda work, call: self._on_outdone(work, call, kept))
            case TextArrived(ref, text):
                self._with_call(ref, Stage.CALLING, lambda work, call: self._on_text(work, call, text))
            case CallFinished(ref, completion):
                self._with_call(ref, Stage.CALLING, lambda work, call: self._on_finished(work, call, completion))
            case CallFailed(ref, error):
                self._with_call(ref, Stage.CALLING, lambda work, call: self._on_failed(work, call, error))
            case OutcomeRecorded(ref):
                self._with_call(ref, Stage.BOOKING, self._on_booked)
            case StepSaved(lease, name):
                if (work := self._held(lease)) is not None and name in work.saves:
                    work.saves.pop(name).give(None)
                    self._leave_to_wait(work)
            case JobRecorded(lease):
                if (work := self._held(lease)) is not None and work.finishing:
                    self._idle(work)
            case LeaseLost(lease) | RevokeJob(lease):
                if (work := self._held(lease)) is not None:
                    self._on_lease_lost(work, isinstance(message, LeaseLost))
            case StoreRefused(lease, reason):
                if (work := self._held(lease)) is not None:
                    self._on_refused(work, reason)
            case HandBack(reason):
                if self._work is not None:
                    self._leave(self._work, Release(cause="handback", reason=reason))
            case ReportIn():
                self._report()
            case Down(child, generation):
                self._on_down(child, generation)
            case FlushDue(lease):
                if (work := self._held(lease)) is not None:
                    self._flush_text(work)
            case ShowDue(lease):
                if (work := self._held(lease)) is not None:
                    self._write_progress(work)
            case JobTimedOut(lease):
                if (work := self._held(lease)) is not None:
                    self._on_deadline(work)
            case ReserveAgainDue(ref):
                self._with_call(ref, Stage.RESERVING, lambda _, call: self._reserve(call))
            case HandlerOverdue(lease):
                if lease in self._lingering:
                    self._lingering[lease] = None
                    self.tell(DISPATCHER, HandlerAbandoned(self.name, lease))
            case _:
                self.unhandled(message)

    # --- a job begins and ends ------------------------------------------------------------------------------------------------------

    def _begin(self, job: ClaimedJob) -> None:
        if self._work is not None:
            raise AssertionError(f"{self.name} was given job {job.id} while it works on job {self._work.job.id}")
        name, system = self.name, self.system
        performance = self._handlers.perform(job, lambda message: void(system.tell(name, message)))
        dialogue = None if job.history is None else Dialogue(job.history)
        work = self._work = Work(job=job, performance=performance, dialogue=dialogue)
        timeout = job.options.job_timeout or self._settings.job_timeout
        work.deadline = self.after(timeout, JobTimedOut(job.lease))
        performance.start()

    def _on_handler_ended(self, ended: HandlerEnded) -> None:
        lease = ended.lease
        if lease in self._lingering:
            timer = self._lingering.pop(lease)
            if timer is not None:
                self.cancel(timer)
            else:
                self.tell(DISPATCHER, HandlerReturned(self.name, lease))
            return
        work = self._held(lease)
        if work is None:  # perhaps one that an earlier life of this runner left behind
            self.tell(DISPATCHER, HandlerReturned(self.name, lease))
            return
        work.ended = True
        if not work.leaving:
            if ended.error is None:
                verdict = result_verdict(ended.value, work.summary or (work.dialogue.said if work.dialogue else None))
            else:
                verdict = verdict_of(ended.error, lambda error, reason: self._again(work, error, reason))
            self._leave(work, verdict)

    def _on_deadline(self, work: Work) -> None:
        timeout = work.job.options.job_timeout or self._settings.job_timeout
        reason = f"ran for longer than its job_timeout of {timeout:g} s"
        self._leave(work, self._again(work, {"class": str(ErrorClass.TIMEOUT), "message": reason}, reason))

    def _again(self, work: Work, error: dict[str, Any], reason: str, retry_after: float | None = None) -> Verdict:
        """Another attempt when the policy of the job's type says, or its end."""
        return self._retries.verdict(
            work.job.type,
            work.job.failures,
            error,
            reason,
            now_ms=self.now_ms(),
            random_value=self.system.random.random(),
            retry_after=retry_after,
        )

    def _leave(self, work: Work, verdict: Verdict) -> None:
        """Bring the job to its end with this verdict, unless it has one."""
        if work.leaving:
            return
        work.ending = verdict
        self._wind_down(work)

    def _on_lease_lost(self, work: Work, refused_write: bool) -> None:
        work.dropped = True
        if refused_write:  # nothing told to the store under this lease gets another answer
            work.finishing = False
            for call in list(work.calls.values()):
                if call.stage is Stage.INTENDING:
                    self.tell(limiter_name(call.route.limit_key), WithdrawCall(call.ref))
                    del work.calls[call.ref]
                elif call.stage is Stage.BOOKING:
                    del work.calls[call.ref]
        self._wind_down(work)

    def _on_refused(self, work: Work, reason: str) -> None:
        """A bug, or data the database cannot hold. The job fails; if that is refused as well, the sweep hands it back."""
        if work.finishing:
            self._idle(work)
            return
        for call in list(work.calls.values()):
            if call.stage is Stage.INTENDING:
                self.tell(limiter_name(call.route.limit_key), WithdrawCall(call.ref))
            if call.stage in (Stage.INTENDING, Stage.BOOKING):
                del work.calls[call.ref]
        work.ending = work.ending or Fail(
            {"class": "store", "message": reason}, f"the database refused a write: {reason}"
        )
        self._wind_down(work)

    def _wind_down(self, work: Work) -> None:
        if not work.ended:
            work.performance.interrupt()
        for call in list(work.calls.values()):
            if call.stage is Stage.RESERVING:
                self.tell(limiter_name(call.route.limit_key), WithdrawCall(call.ref))
                del work.calls[call.ref]
            elif call.stage is Stage.CALLING:
                self.tell(provider_name(call.route.provider), AbortCall(call.ref))
        self._finish_when_quiet(work)

    def _finish_when_quiet(self, work: Work) -> None:
        if work.calls or work.finishing:
            return
        if work.dropped or work.ending is None:
            self._idle(work)
            return
        self._flush_text(work)
        work.finishing = True
        self.tell(STORE, FinishJob(reply_to=self.name, lease=work.lease, verdict=work.ending))

    def _report(self) -> None:
        """Tell a new dispatcher what its predecessor knew."""
        work = self._work
        if work is None:
            self.tell(DISPATCHER, RunnerIdle(self.name, None))
        else:
            self.tell(DISPATCHER, RunnerBusy(self.name, work.lease, work.job.alone))
        for lease, timer in self._lingering.items():
            if timer is None:
                self.tell(DISPATCHER, HandlerAbandoned(self.name, lease))

    def _idle(self, work: Work) -> None:
        for timer in (work.deadline, work.flush, work.show):
            if timer is not None:
                self.cancel(timer)
        if not work.ended:
            self._lingering[work.lease] = self.after(HANDLER_GRACE, HandlerOverdue(work.lease))
        self._work = None
        self.tell(DISPATCHER, RunnerIdle(self.name, work.lease))

    def _let_go(self) -> None:
        work = self._work
        if work is None:
            return
        if not work.ended:
            work.performance.interrupt()
        for call in work.calls.values():
            if call.stage is Stage.CALLING:
                self.tell(provider_name(call.route.provider), AbortCall(call.ref))

    # --- effects --------------------------------------------------------------------------------------------------------------------

    def _perform(self, work: Work, effect: Effect, answer: Answer) -> None:
        match effect:
            case CallModel():
                self._call(work, effect, answer)
            case KeepValue(name, value):
                if name in work.saves:
                    answer.refuse(ValueError(f"step {name!r} is being kept already; give each step a name of its own"))
                    return
                work.saves[name] = answer
                self.tell(STORE, SaveStep(reply_to=self.name, lease=work.lease, name=name, value=value))
            case ShowProgress():
                work.shows_itself = True
                self._show(work, effect)
                answer.give(None)
            case SpawnChildren():
                self._spawn(work, effect, answer)
            case KeepSummary(said):
                work.summary = said
                answer.give(None)

    def _spawn(self, work: Work, effect: SpawnChildren, answer: Answer) -> None:
        step, memo = effect.step, work.job.memo
        if step in work.steps:
            answer.refuse(ValueError(f"step {step!r} was used twice in one attempt; give each a name of its own"))
            return
        work.steps.add(step)
        if memo is not None and step in memo.values:
            answer.give(work.job.outcomes(step))
            return
        try:
            children, quorum = children_of(effect, self.now_ms())
        except InvalidJobError as error:
            answer.refuse(error)
            return
        if not children:
            self._perform(work, KeepValue(step, []), AnswerInstead(answer, []))
            return
        work.spawn = Spawn(step=step, children=children, quorum=quorum)
        self._leave_to_wait(work)

    def _leave_to_wait(self, work: Work) -> None:
        """Leave for the children, once what the handler has under way beside them is done: it is paid for."""
        if work.spawn is not None and not work.calls and not work.saves:
            self._leave(work, work.spawn)

    def _call(self, work: Work, effect: CallModel, answer: Answer) -> None:
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
        if memo is not None and effect.step in memo.unknown and work.job.options.on_unknown == "park":
            self._leave(work, Fail(*booking.parked(f"step {effect.step!r} has a call whose outcome is unknown")))
            return
        try:
            where = route(self._settings, effect.model or work.job.model)
        except UnknownModelError as error:
            answer.refuse(CallFailedError(CallError(kind=ErrorClass.NOT_FOUND, message=f"model: {error}", sent=False)))
            return
        request = booking.request_of(effect, where)
        if effect.in_conversation:
            try:
                request = in_conversation(work.dialogue, request)
            except CallFailedError as error:
                answer.refuse(error)
                return
        work.numbers += 1
        ref = CallRef(work.lease.job_id, work.lease.epoch, work.numbers)
        call = work.calls[ref] = Call(ref, effect, answer, where, request, booking.charge_of(request, where))
        self._reserve(call)

    def _show(self, work: Work, progress: ShowProgress) -> None:
        work.note_progress(progress)
        if work.show is None:
            work.show = self.after(PROGRESS_EVERY, ShowDue(work.lease))

    def _write_progress(self, work: Work) -> None:
        work.show = None
        if work.shown is not None and not work.leaving:
            self.tell(STORE, SetProgress(lease=work.lease, percent=work.shown.percent, message=work.shown.message))

    # --- a call ---------------------------------------------------------------------------------------------------------------------

    def _reserve(self, call: Call) -> None:
        call.stage = Stage.RESERVING
        name = limiter_name(call.route.limit_key)
        if self.system.directory.find(name) is None:
            self._open_limiter(call.route)
            self.after(RESERVE_AGAIN, ReserveAgainDue(call.ref))
            return
        self.watch(name)
        assert self._work is not None
        self.tell(
            name, ReserveCall(reply_to=self.name, call=call.ref, charge=call.charge, priority=self._work.job.priority)
        )

    def _on_granted(self, _: Work, call: Call) -> None:
        call.stage = Stage.INTENDING
        intent = booking.intent_of(call.effect, call.request, call.route, call.charge)
        self.tell(STORE, RecordIntent(reply_to=self.name, call=call.ref, intent=intent))

    def _on_deferred(self, work: Work, call: Call, deferred: CallDeferred) -> None:
        del work.calls[call.ref]
        self._leave(
            work,
            Release(
                cause="deferral", reason=deferred.reason, held_by=deferred.limit_key, held_until_ms=deferred.until_ms
            ),
        )

    def _on_intent(self, work: Work, call: Call, call_id: int) -> None:
        call.call_id = call_id
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
        )
        # To this very life: the end of an earlier one may still be in the mailbox, and must not be taken for the end of this call.
        life = self.system.directory.find(name)
        if life is not None:
            self.watch(name)
            call.provider_life = life.generation
            if self.system.tell_life(life, order):
                return
        self._on_failed(work, call, booking.not_sent(f"provider {call.route.provider} is restarting"))

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
    def _recall(work: Work, effect: CallModel, answer: Answer, kept: dict[str, Any]) -> None:
        """Answer with a completion from the ledger."""
        completion = Completion.from_json(kept)
        if effect.in_conversation and work.dialogue is not None:
            work.dialogue.hear(effect.messages, None, completion)
        answer.give(completion)

    def _on_text(self, work: Work, call: Call, text: str) -> None:
        if work.leaving:
            return
        work.note_text(call.effect.step, text)
        if work.chunk == 0 or work.text_size >= FLUSH_CHARS:
            self._flush_text(work)
        elif work.flush is None:
            work.flush = self.after(FLUSH_AFTER, FlushDue(work.lease))
        if call.request.max_output and not work.shows_itself:
            self._show(work, ShowProgress(min(99, 100 * work.text_total // (4 * call.request.max_output))))

    def _flush_text(self, work: Work) -> None:
        if work.flush is not None:
            self.cancel(work.flush)
            work.flush = None
        if chunks := work.take_chunks():
            self.tell(STORE, AppendChunks(reply_to=self.name, lease=work.lease, chunks=chunks))

    def _on_finished(self, work: Work, call: Call, completion: Completion) -> None:
        self.tell(
            limiter_name(call.route.limit_key), booking.settle_completed(call.ref, completion, call.charge, call.route)
        )
        self._flush_text(work)
        self._book(call, booking.completed(completion, call.route), lambda: self._tell_handler(work, call, completion))

    def _tell_handler(self, work: Work, call: Call, completion: Completion) -> None:
        if call.effect.in_conversation and work.dialogue is not None:
            work.dialogue.hear(call.effect.messages, call.request.messages, completion)
        call.answer.give(completion)

    def _on_failed(self, work: Work, call: Call, error: CallError) -> None:
        self.tell(limiter_name(call.route.limit_key), booking.settle_failed(call.ref, error))
        self._book(call, booking.failed(error), lambda: self._act_on(work, call, error))

    def _book(self, call: Call, outcome: Any, then: Callable[[], None]) -> None:
        call.stage = Stage.BOOKING
        call.then = then
        self.tell(STORE, RecordOutcome(reply_to=self.name, call=call.ref, call_id=call.call_id, outcome=outcome))

    def _on_booked(self, work: Work, call: Call) -> None:
        del work.calls[call.ref]
        if work.leaving:
            self._finish_when_quiet(work)
        elif call.then is not None:
            call.then()
            self._leave_to_wait(work)

    def _act_on(self, work: Work, call: Call, error: CallError) -> None:
        match retry.decide(error, on_unknown=work.job.options.on_unknown):
            case retry.ReserveAgain():
                work.numbers += 1
                call.ref = CallRef(work.lease.job_id, work.lease.epoch, work.numbers)
                work.calls[call.ref] = call
                self._reserve(call)
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

    # --- others come and go ---------------------------------------------------------------------------------------------------------

    def _on_down(self, name: str, generation: int) -> None:
        if self._work is None:
            return
        for call in list(self._work.calls.values()):
            if call.stage is Stage.RESERVING and name == limiter_name(call.route.limit_key):
                self.after(RESERVE_AGAIN, ReserveAgainDue(call.ref))
            elif call.stage is Stage.CALLING and name == provider_name(call.route.provider):
                if call.provider_life > generation:
                    self.watch(name)
                    continue
                error = CallError(
                    kind=ErrorClass.CANCELLED, message=f"provider {call.route.provider} restarted", billed=Billed.MAYBE
                )
                self._on_failed(self._work, call, error)

    def _held(self, lease: Lease) -> Work | None:
        return self._work if self._work is not None and self._work.lease == lease else None

    def _with_call(self, ref: CallRef, stage: Stage, act: Callable[[Work, Call], None]) -> None:
        work = self._held(ref.lease)
        call = work.calls.get(ref) if work is not None else None
        if work is not None and call is not None and call.stage is stage:
            act(work, call)
