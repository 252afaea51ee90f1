"""The part of a runner that lets requests go with others', and serves the jobs that drive them.

    effect CallModel or Embed of a job with latency "batch":  → JoinBatch, and the job waits without a runner
    effect Embed of the built-in type:                        → AskCompany ─yes→ JoinBatch; ─no→ an ordinary call
    effects OrderOnBoard and Exchange of a driving job:       → OrderBatch, StartExchange, and their answers

When the job comes back, its step's answer is in its memo; or why it was refused.
"""

from collections.abc import Callable

from ...persistence.batches import DRIVERS, NewRequest
from ...persistence.model import ClaimedJob
from ..kernel.messages import Down
from ..kernel.system import ActorSystem
from ..messages import (
    STORE,
    AbortCall,
    AskCompany,
    BatchOrdered,
    CallFailed,
    CallRef,
    CompanyKnown,
    ExchangeFinished,
    JoinBatch,
    OrderBatch,
    Release,
    StartExchange,
    provider_name,
)
from ..providers.model import CallError, ErrorClass
from ..settings import CompanySettings, Route
from . import fallback, joining
from .caching import CachingActor
from .effects import CallFailedError, ComeBack, Exchange, OrderOnBoard
from .handlers import Answer, InlinePerformance, Performance, Post, ThreadPerformance
from .work import Call, JoinDue, Work

GATHER = 0.01
"""Seconds in which the calls that a handler makes side by side are gathered before its job leaves to wait for them."""


class BatchingActor(CachingActor):
    """Lets calls wait for company."""

    def __init__(
        self, system: ActorSystem, *, settings: CompanySettings, open_limiter: Callable[[Route], None]
    ) -> None:
        super().__init__(system, settings=settings, open_limiter=open_limiter)
        self._asked: dict[CallRef, tuple[Call, NewRequest]] = {}
        self._orders: dict[CallRef, Answer] = {}
        self._exchanges: dict[CallRef, tuple[str, Answer]] = {}

    def receive_of_calls(self, message: object) -> None:
        """Dispatch what concerns batches; the rest concerns calls."""
        match message:
            case CompanyKnown(ref, company):
                self._on_company(ref, company)
            case BatchOrdered(ref, result):
                if (answer := self._orders.pop(ref, None)) is not None and self._held(ref.lease) is not None:
                    answer.give(result)
            case ExchangeFinished(ref, report):
                if (held := self._exchanges.pop(ref, None)) is not None:
                    held[1].give(report)
            case CallFailed(ref, error) if ref in self._exchanges:
                self._exchanges.pop(ref)[1].refuse(CallFailedError(error))
            case JoinDue(lease):
                if (work := self._held(lease)) is not None and not work.leaving:
                    work.gathered = True
                    self._leave_to_wait(work)
            case Down(name, _):
                self._on_exchange_lost(name)
                super().receive_of_calls(message)
            case _:
                super().receive_of_calls(message)

    # --- a call that may go with others ---------------------------------------------------------------------------------------------

    def _goes_with_others(self, work: Work, call: Call) -> bool:
        """Whether this call has been dealt with: it waits for others, or one that did was refused."""
        job, step = work.job, call.effect.step
        past = job.memo.batched.get(step) if job.memo is not None else None
        if past is not None and past.refused is not None:
            if fallback.was_passed_over(past.refused, call):
                self._go_elsewhere(work, call)
            else:
                self._tell_refused(work, call, joining.error_from_json(past.refused))
            return True
        model = call.effect.model or job.model or self._settings.default_model or ""
        if job.options.latency == "batch":
            wanted = joining.in_batch(
                self._settings,
                call.route,
                step,
                model,
                call.request,
                past=past,
                deadline=job.options.deadline,
                now=self.now_ms(),
                tag=self._tag(),
            )
            if isinstance(wanted, CallError):
                self._tell_refused(work, call, wanted)
                return True
            if wanted is not None:
                self._join(work, wanted)
                return True
        if job.type != joining.EMBED or not work.performance.inline or job.alone or job.options.budget is not None:
            return False
        if job.options.cache:  # what a group is answered is not kept
            return False
        group = joining.in_group(self._settings, call.route, step, model, call.request, past=past, tag=self._tag())
        if group is None:
            return False
        self._asked[call.ref] = call, group
        self.tell(STORE, AskCompany(reply_to=self.name, call=call.ref, type=job.type, group_key=group.group_key))
        return True

    def _tag(self) -> str:
        """What a batch is called at its provider: never the same twice, on any board that shares the account."""
        return f"callboard-{self.system.random.getrandbits(64):016x}"

    def _tell_refused(self, work: Work, call: Call, error: CallError) -> None:
        if self._asked_shorter(work, call, error):
            return
        if fallback.applies(error, call, on_unknown=work.job.options.on_unknown):
            self._go_elsewhere(work, call)
        else:
            self._leave_flight(call)
            call.answer.refuse(CallFailedError(error))
            # Those that were made beside it may have been gathered, and wait for nothing but this one.
            self._leave_to_wait(work)

    def _on_company(self, ref: CallRef, company: bool) -> None:
        asked = self._asked.pop(ref, None)
        work = self._held(ref.lease)
        if asked is None or work is None or work.leaving:
            return
        call, wanted = asked
        if company:
            self._join(work, wanted)
        else:
            work.calls[ref] = call
            self._reserve(call)

    def _join(self, work: Work, wanted: NewRequest) -> None:
        work.joins.append(wanted)
        work.gathered = work.performance.inline
        if work.gathered:
            self._leave_to_wait(work)
        else:
            self.after(GATHER, JoinDue(work.lease))

    def _ready_to_join(self, work: Work) -> JoinBatch | None:
        """The verdict of a job whose calls go with others', once it has made all that it makes side by side."""
        return JoinBatch(tuple(work.joins)) if work.joins and work.gathered else None

    # --- a job that drives a batch --------------------------------------------------------------------------------------------------

    def _performance_of_driver(self, job: ClaimedJob, post: Post) -> Performance | None:
        """What performs a job that drives a batch or a group; None for any other job."""
        if job.type == DRIVERS["group"]:
            from .group_driver import drive_group

            settings = self._settings
            return InlinePerformance(lambda driving: drive_group(driving, settings), job, post)
        if job.type != DRIVERS["batch"]:
            return None
        from .batch_driver import drive_batch

        settings, chance, now_ms = self._settings, self.system.random.random(), self.now_ms
        # It reads and writes large files, so it has a thread. It asks its own performance, which is made in the next line.
        made: list[ThreadPerformance] = []

        def drive(_: object) -> object:
            return drive_batch(job, settings, lambda effect: made[0].ask(effect).result(), now_ms, chance)

        made.append(ThreadPerformance(drive, job, post))
        return made[0]

    def _drive(self, work: Work, effect: OrderOnBoard | Exchange | ComeBack, answer: Answer) -> None:
        if isinstance(effect, ComeBack):
            self._leave(
                work, Release(cause="handback", reason=effect.reason, held_by=effect.reason, held_until_ms=effect.at_ms)
            )
            return
        work.numbers += 1
        ref = CallRef(work.lease.job_id, work.lease.epoch, work.numbers)
        if isinstance(effect, OrderOnBoard):
            self._orders[ref] = answer
            self.tell(STORE, OrderBatch(reply_to=self.name, call=ref, order=effect.order))
            return
        name = provider_name(effect.provider)
        life = self.system.directory.find(name)
        if life is not None:
            self.watch(name)
            self._exchanges[ref] = name, answer
            order = StartExchange(reply_to=self.name, call=ref, operation=effect.operation)
            if self.system.tell_life(life, order):
                return
            del self._exchanges[ref]
        error = CallError(kind=ErrorClass.CANCELLED, message=f"provider {effect.provider} is not there", sent=False)
        answer.refuse(CallFailedError(error))

    def _on_exchange_lost(self, name: str) -> None:
        lost = [ref for ref, (provider, _) in self._exchanges.items() if provider == name]
        for ref in lost:
            error = CallError(kind=ErrorClass.CONNECT, message=f"{name} restarted meanwhile", sent=True)
            self._exchanges.pop(ref)[1].refuse(CallFailedError(error))

    def _drop_what_waits(self) -> None:
        """The job leaves: nothing that it asked of board or provider is waited for. Its successor looks how far it came."""
        for ref, (name, _) in self._exchanges.items():
            self.tell(name, AbortCall(ref))
        self._exchanges.clear()
        self._orders.clear()
        self._asked.clear()
