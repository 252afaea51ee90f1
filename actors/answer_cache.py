"""The store's part in answers that are given again: it looks them up, books them, keeps new ones, and tells those who wait for a call.

All in the transaction of the ledger's own write (`persistence.cache`). What is remembered here only saves looking: who waits for what in this
process. A worker that waits for another's call looks again by itself.
"""

from ..persistence import cache, ledger
from ..persistence.cache import Flight
from ..persistence.engine import Connection
from ..persistence.model import Lease
from .cache_settings import CacheSettings
from .messages import (
    AnswerAwaited,
    AnswerDue,
    AnswerKept,
    AnswerMissed,
    CallRef,
    CallRemembered,
    LeaseLost,
    LeaveFlight,
    LookUpAnswer,
    RecordOutcome,
)

Replies = list[tuple[str, object]]

PRUNE_EVERY_MS = 1000
"""Between two looks at how much is kept, while nothing has to be dropped."""


class AnswerCache:
    """What one store does about them. For one thread."""

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._waiting: dict[str, dict[CallRef, str]] = {}
        self._led: dict[Lease, set[str]] = {}
        self._pruned_at = 0
        self._more = True

    def look_up(self, c: Connection, order: LookUpAnswer, now: int) -> Replies:
        """Give the answer, or say who makes the call."""
        lease, reply_to = order.call.lease, order.reply_to
        if order.key in self._waiting:
            self._waiting[order.key].pop(order.call, None)
        if not ledger.lease_stands(c, lease):
            return [(reply_to, LeaseLost(lease))]
        if order.call.epoch > 1:
            # Whoever held the job before may have been answered since this lease got its memo.
            mine = ledger.memo(c, [lease.job_id])[lease.job_id].completions.get(order.intent.step)
            if mine is not None:
                return [(reply_to, CallRemembered(order.call, mine))]
        found = cache.give(c, order.key, lease, order.intent, order.max_age_ms, now)
        if found is not None:
            return [(reply_to, AnswerKept(order.call, found))]
        if cache.lead(c, Flight(order.key, lease, order.call.number), now):
            self._led.setdefault(lease, set()).add(order.key)
            self._more = True
            return [(reply_to, AnswerMissed(order.call, leads=True))]
        if not order.waits:
            return [(reply_to, AnswerMissed(order.call, leads=False))]
        self._waiting.setdefault(order.key, {})[order.call] = reply_to
        return [(reply_to, AnswerAwaited(order.call))]

    def on_outcome(self, c: Connection, order: RecordOutcome, now: int) -> Replies:
        """A call whose answer others may wait for has ended."""
        if order.cache_key is None:
            return []
        outcome = order.outcome
        if order.keeps and outcome.completion is not None:
            cache.keep(c, order.cache_key, outcome.completion, outcome.cost, now)
            self._more = True
        return self._land(c, order.call, order.cache_key)

    def leave(self, c: Connection, order: LeaveFlight) -> Replies:
        """A call will not ask that after all."""
        return self._land(c, order.call, order.key)

    def on_lease_over(self, lease: Lease) -> Replies:
        """What the lease was to ask will not be asked: let those who wait see who is next."""
        return [reply for key in self._led.pop(lease, ()) for reply in self._wake(key)]

    def prune(self, c: Connection, now: int) -> int:
        """Drop what is above the bounds, few enough for one transaction, and leads that nobody has any more. Returns how many answers went."""
        if not self._more or 0 <= now - self._pruned_at < PRUNE_EVERY_MS:
            return 0
        dropped = cache.prune(c, self._settings.max_entries, self._settings.max_bytes)
        cache.forget_flights(c)
        for lease in [lease for lease in self._led if not ledger.lease_stands(c, lease)]:
            del self._led[lease]
        self._waiting = {key: waiting for key, waiting in self._waiting.items() if waiting}
        # A lead whose lease was lost ends without a word of its holder's.
        self._more = dropped > 0 or bool(self._led)
        self._pruned_at = 0 if dropped else now
        return dropped

    def _land(self, c: Connection, call: CallRef, key: str) -> Replies:
        cache.land(c, Flight(key, call.lease, call.number))
        led = self._led.get(call.lease)
        if led is not None:
            led.discard(key)
            if not led:
                del self._led[call.lease]
        return self._wake(key)

    def _wake(self, key: str) -> Replies:
        return [(name, AnswerDue(call)) for call, name in self._waiting.pop(key, {}).items()]
