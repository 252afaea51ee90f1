"""What the store writes for the runners: intents and outcomes of calls, what their jobs keep and show, and how these end.

For the store's actor, in its transactions. Replies are (name, message), to be sent after the commit.
"""

from ..persistence import batches, conversations, family, handles, job_store, ledger
from ..persistence.engine import Connection
from ..persistence.lifecycle import TERMINAL_STATES, JobState
from .answer_cache import AnswerCache
from .claim_desk import ClaimDesk
from .messages import (
    AppendChunks,
    CallRemembered,
    Complete,
    EndKept,
    Fail,
    FinishJob,
    IntentRecorded,
    JoinBatch,
    LeaseLost,
    OutcomeRecorded,
    RecordIntent,
    RecordOutcome,
    Release,
    ReleaseJob,
    RetryLater,
    SaveStep,
    SetProgress,
    Spawn,
    StepSaved,
    provider_name,
)
from .shared_budgets import SharedBudgets
from .shared_limits import SharedLimits

Replies = list[tuple[str, object]]


class JobDesk:
    """Writes for the runners of one store, and tells its `claims` when that may have put something on the board. For one thread."""

    def __init__(
        self, *, claims: ClaimDesk, limits: SharedLimits, budgets: SharedBudgets, answers: AnswerCache
    ) -> None:
        self._claims = claims
        self._limits = limits
        self._budgets = budgets
        self._answers = answers

    def intend(self, c: Connection, order: RecordIntent, now: int) -> Replies:
        """Write that a call is about to leave, if the limits and budgets of all workers have room for it."""
        if order.call.epoch > 1 and ledger.lease_stands(c, order.call.lease):
            # Whoever held the job before may have been answered, and booked it, after this lease got its memo.
            kept = ledger.memo(c, [order.call.job_id])[order.call.job_id].completions.get(order.intent.step)
            if kept is not None:
                return [(order.reply_to, CallRemembered(order.call, kept))]
        if order.resumes is not None and handles.take_up(c, order.call.lease, order.resumes):
            return [(order.reply_to, IntentRecorded(order.call, order.resumes))]
        if refused := self._limits.check(c, order.call, order.reply_to, order.gate, now):
            return refused
        if (too_dear := self._budgets.refuses(c, order, now)) is not None:
            return [(order.reply_to, too_dear)]
        call_id = ledger.record_intent(c, order.call.lease, order.intent, now)
        if call_id is None:
            return [(order.reply_to, LeaseLost(order.call.lease))]
        self._budgets.reserve(c, call_id, now)
        return [(order.reply_to, IntentRecorded(order.call, call_id, self._limits.charge(c, order.gate, now)))]

    def book(self, c: Connection, order: RecordOutcome, now: int) -> Replies:
        """Write how a call ended, settle what was charged and reserved for it, and wake who waits for its answer."""
        self._limits.settle(c, order.held, order.used, order.ended_ms, now)
        if order.chunks:
            job_store.append_chunks(c, order.call.lease, order.chunks, now)
        woken = self._answers.on_outcome(c, order, now)
        return [*self._book_outcome(c, order, now), *woken]

    def _book_outcome(self, c: Connection, order: RecordOutcome, now: int) -> Replies:
        if not ledger.record_outcome(c, order.call.lease, order.call_id, order.outcome, now):
            unwanted = handles.give_up(c, order.call_id)
            lost = (order.reply_to, LeaseLost(order.call.lease))
            return [lost] if unwanted is None else [lost, (provider_name(unwanted[0]), EndKept(unwanted[1]))]
        # Whoever held the job before may have been answered while this call was under way: the step goes by what was kept first.
        first = ledger.first_completion(c, order.call_id) if order.call.epoch > 1 else None
        if first is not None:
            return [(order.reply_to, CallRemembered(order.call, first))]
        return [(order.reply_to, OutcomeRecorded(order.call))] if order.awaited else []

    def save_step(self, c: Connection, order: SaveStep, now: int) -> Replies:
        """Keep the value of a handler's own step."""
        kept = ledger.save_step(c, order.lease, order.name, order.value, now)
        return [(order.reply_to, StepSaved(order.lease, order.name) if kept else LeaseLost(order.lease))]

    def append(self, c: Connection, order: AppendChunks, now: int) -> Replies:
        """Keep pieces of a streamed answer."""
        kept = job_store.append_chunks(c, order.lease, order.chunks, now)
        return [] if kept else [(order.reply_to, LeaseLost(order.lease))]

    def progress(self, c: Connection, order: SetProgress, now: int) -> Replies:
        """Keep how far a job is."""
        job_store.set_progress(c, order.lease, order.percent, order.message, now)
        return []

    def finish(self, c: Connection, order: FinishJob, now: int) -> Replies:
        """Write how a job ended, or why it leaves its runner."""
        state = self._write_verdict(c, order, now)
        if state is None:
            return [(order.reply_to, LeaseLost(order.lease))]
        if state in TERMINAL_STATES:
            self._claims.look_again()
        else:
            self._claims.stir()
        return self._answers.on_lease_over(order.lease)

    def _write_verdict(self, c: Connection, order: FinishJob, now: int) -> JobState | None:
        lease, actor = order.lease, order.reply_to
        match order.verdict:
            case Complete(result, said):
                if not job_store.complete(c, lease, result, now, actor):
                    return None
                if said is not None:
                    conversations.extend(c, lease.job_id, said, now, actor=actor)
                return JobState.COMPLETED
            case Fail(error, reason):
                return JobState.FAILED if job_store.fail(c, lease, error, now, actor, reason) else None
            case RetryLater(error, run_at_ms, reason, most):
                return job_store.retry_later(c, lease, error, run_at_ms, now, actor, reason, max_attempts=most)
            case Spawn(step=step, children=children, quorum=quorum):
                spawned = family.spawn(c, lease, step, children, quorum, now, actor)
                return JobState.WAITING_CHILDREN if spawned else None
            case JoinBatch(requests):
                return JobState.WAITING_CHILDREN if batches.join(c, lease, requests, now, actor) else None
            case Release(cause=cause, reason=reason, held_by=held_by, held_until_ms=held_until):
                return job_store.release(
                    c, lease, cause=cause, reason=reason, now=now, actor=actor, held_by=held_by, held_until=held_until
                )

    def release(self, c: Connection, order: ReleaseJob, now: int, actor: str) -> Replies:
        """Hand a job back for a runner that cannot."""
        job_store.release(c, order.lease, cause=order.cause, reason=order.reason, now=now, actor=actor)
        self._claims.stir()
        return self._answers.on_lease_over(order.lease)
