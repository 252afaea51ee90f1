"""The actor that performs one job at a time.

It reads its mailbox and nothing else: the handler works elsewhere and asks for effects, calls are made by the provider's actor, writes by the
store's. So a cancel, a lost lease or a shutdown reaches it at once. Whatever ends a job early first brings its calls to an end (what was
spent is booked, even for a lost lease), and only then commits the verdict.
"""

from collections.abc import Callable
from typing import Any

from ...persistence.errors import InvalidJobError
from ...persistence.model import ClaimedJob, Lease
from ..kernel.system import ActorSystem, void
from ..kernel.timers import TimerToken
from ..messages import (
    DISPATCHER,
    STORE,
    AbortCall,
    Fail,
    FinishJob,
    HandBack,
    HandlerAbandoned,
    HandlerReturned,
    LeaseLost,
    Release,
    ReportIn,
    RetryLater,
    RevokeJob,
    RunJob,
    RunnerBusy,
    RunnerIdle,
    SaveStep,
    Spawn,
    StepSaved,
    StoreRefused,
    Verdict,
    WithdrawCall,
    limiter_name,
    provider_name,
)
from ..providers.model import ErrorClass
from ..settings import CompanySettings, Route
from . import retry
from .batching import BatchingActor
from .children import AnswerInstead, children_of
from .dialogue import Dialogue
from .effects import (
    CallFailedError,
    CallModel,
    ComeBack,
    Effect,
    Embed,
    Exchange,
    InputsPerCall,
    KeepSummary,
    KeepValue,
    OrderOnBoard,
    ShowProgress,
    SpawnChildren,
)
from .embed import inputs_per_call
from .handlers import Answer, EffectAsked, HandlerEnded, HandlerRegistry, Post
from .verdicts import result_verdict, verdict_of
from .work import HandlerOverdue, JobTimedOut, Stage, Work

HANDLER_GRACE = 10.0
"""Seconds a handler has to end after it was interrupted, before its thread counts as abandoned."""


class JobRunnerActor(BatchingActor):
    """Performs one job at a time, under its lease. `open_limiter` has the limiter of a route started if it is not there."""

    def __init__(
        self,
        system: ActorSystem,
        *,
        settings: CompanySettings,
        handlers: HandlerRegistry,
        open_limiter: Callable[[Route], None],
    ) -> None:
        super().__init__(system, settings=settings, open_limiter=open_limiter)
        self._handlers = handlers
        self._retries = retry.RetryPolicies(settings.retries, handlers.retry_policies)
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
            case StepSaved(lease, name):
                if (work := self._held(lease)) is not None and name in work.saves:
                    work.saves.pop(name).give(None)
                    self._leave_to_wait(work)
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
            case JobTimedOut(lease):
                if (work := self._held(lease)) is not None:
                    self._on_deadline(work)
            case HandlerOverdue(lease):
                if lease in self._lingering:
                    self._lingering[lease] = None
                    self.tell(DISPATCHER, HandlerAbandoned(self.name, lease))
            case _:
                self.receive_of_calls(message)

    # --- a job begins and ends ------------------------------------------------------------------------------------------------------

    def _begin(self, job: ClaimedJob) -> None:
        if self._work is not None:
            raise AssertionError(f"{self.name} was given job {job.id} while it works on job {self._work.job.id}")
        name, system = self.name, self.system
        post: Post = lambda message: void(system.tell(name, message))  # noqa: E731 - as an argument it is read no better
        performance = self._performance_of_driver(job, post) or self._handlers.perform(job, post)
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
            for call in list(work.calls.values()):
                if call.stage is Stage.INTENDING:
                    self.tell(limiter_name(call.route.limit_key), WithdrawCall(call.ref))
                    del work.calls[call.ref]
                elif call.stage is Stage.BOOKING:
                    del work.calls[call.ref]
        self._wind_down(work)

    def _on_refused(self, work: Work, reason: str) -> None:
        """A bug, or data the database cannot hold. The job fails; if that is refused as well, the sweep hands it back."""
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
        self._drop_what_waits()
        if not work.ended:
            work.performance.interrupt()
        for call in list(work.calls.values()):
            if call.stage is Stage.RESERVING:
                self.tell(limiter_name(call.route.limit_key), WithdrawCall(call.ref))
                del work.calls[call.ref]
            elif call.stage is Stage.LOOKING:
                del work.calls[call.ref]
            elif call.stage is Stage.CALLING:
                # What the provider goes on with is left to it where another attempt will ask for it, or another worker does: whose lease it
                # is now, the store sees when the outcome is booked (a cancelled job's call is ended then).
                keep = work.dropped or isinstance(work.ending, Release | RetryLater | Spawn)
                self.tell(provider_name(call.route.provider), AbortCall(call.ref, keep))
        self._finish_when_quiet(work)

    def _finish_when_quiet(self, work: Work) -> None:
        if work.calls:
            return
        if work.dropped or work.ending is None:
            self._idle(work)
            return
        self._flush_text(work)
        self.tell(STORE, FinishJob(reply_to=self.name, lease=work.lease, verdict=work.ending))
        # Nothing the store may answer keeps the job here. Whatever the dispatcher tells it now, the next claim above all, it reads after this
        # end, and mostly writes in the same transaction.
        self._idle(work)

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
                self.tell(provider_name(call.route.provider), AbortCall(call.ref, keep=True))

    # --- effects --------------------------------------------------------------------------------------------------------------------

    def _perform(self, work: Work, effect: Effect, answer: Answer) -> None:
        match effect:
            case CallModel() | Embed():
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
            case InputsPerCall(model):
                try:
                    answer.give(inputs_per_call(self._settings, model or work.job.model))
                except CallFailedError as error:
                    answer.refuse(error)
            case OrderOnBoard() | Exchange() | ComeBack():
                self._drive(work, effect, answer)
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
        """Leave for the children, or for a batch, once what the handler has under way beside them is done: it is paid for."""
        verdict = work.spawn or self._ready_to_join(work)
        if verdict is not None and not work.calls and not work.saves:
            self._leave(work, verdict)
