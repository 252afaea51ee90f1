"""The rate limiter of one key: it admits calls, never makes them, and never sleeps.

All arithmetic is in `limiter.py`; here are the mailbox, the timers, and whom to tell. Callers are answered "now" (`CallGranted`) or
"not before" (`CallDeferred`). The dispatcher is told when the key is worth claiming jobs for, so that most jobs of a throttled key are
never claimed in vain.

**Restart.** A new life asks the ledger what went out during the last window before it admits anything, so neither a crash of this actor nor a
`kill -9` of the process lets the provider see more than the limit. Within one process, the life before may have granted calls
whose intents are not in the ledger yet: a later life lets `max_delivery` pass before it asks. What it cannot know is which calls of that
life are still in flight; their slots count as free.
"""

import math
from typing import Any

from ..kernel.actor import Actor
from ..kernel.messages import Down
from ..kernel.system import ActorSystem
from ..kernel.timers import TimerToken
from ..messages import (
    DISPATCHER,
    STORE,
    CallDeferred,
    CallGranted,
    DescribeLimits,
    KeyFreed,
    KeyHeld,
    KeyRefused,
    LimitsDescribed,
    LimitsObserved,
    LoadUsage,
    ReportIn,
    ReserveCall,
    SaveHold,
    SettleCall,
    UsageLoaded,
    WithdrawCall,
)
from ..settings import LimitSettings
from .hold import Hold
from .limiter import Limiter
from .window import MAX_DELIVERY, WINDOW

PARK_AFTER = 3.0
"""Seconds a runner may wait for its turn. Beyond that its job goes back to the board."""

REPORT_INTERVAL = 0.1
"""Seconds between two reports to the dispatcher, at least."""

SAVE_HOLDS_FROM = 5.0
"""Seconds. Shorter holds are not worth a write: a restart takes about as long."""

ASK_AGAIN_AFTER = 1.0
"""Seconds after which the store is asked again for the recent usage, if it has not answered."""

SHORTEST_TIMER = 0.001
"""Seconds. A forecast may fall short by the rounding of a float; the next look must not come at the same instant."""


class _Wake:
    """To itself: time has passed; what is due is done after every batch anyway."""


class _AskStore:
    """To itself: ask the store (again) what went out lately."""


class RateLimiterActor(Actor):
    """Admits the calls of one limit key. Its name is `messages.limiter_name(limit_key)`.

    Guarantees: within a key, calls are granted by priority, then in order of arrival. A reservation is answered exactly once, unless it is
    settled, withdrawn, or its caller dies first. A permit is freed by `SettleCall` or `WithdrawCall` or by the end of its caller's life.
    Nothing is granted before the store has said what went out lately. Doing any of these twice is harmless.
    """

    shares_thread = True
    announces_ready = True

    def __init__(
        self,
        system: ActorSystem,
        limit_key: str,
        limits: LimitSettings,
        *,
        park_after: float = PARK_AFTER,
        window: float = WINDOW,
        max_delivery: float = MAX_DELIVERY,
    ) -> None:
        super().__init__(system)
        self.limit_key = limit_key
        self._limiter = Limiter(limit_key, limits, window=window, max_delivery=max_delivery)
        self._park_after = park_after
        self._window = window
        self._max_delivery = max_delivery
        self._loaded = False
        self._wake: tuple[float, TimerToken] | None = None
        self._told: KeyHeld | KeyFreed | None = None
        self._looked_at = -math.inf
        self._taken = False
        self._saved_until_ms: int | None = None

    def on_start(self) -> None:
        """Ask what went out lately: at once in the first life, in later ones when the last grants of the life before are in the ledger."""
        if self.generation > 1:
            self.after(self._max_delivery, _AskStore())
        else:
            self._ask_store()

    def receive(self, message: object) -> None:
        """Take note of one message; what follows from it for those in line is done in `after_batch`."""
        now = self.monotonic()
        match message:
            case ReserveCall(reply_to=owner, call=call):
                self.watch(owner)
                self._taken = True
                again = self._limiter.reserve(call, message.charge.tokens, message.priority, owner, now)
                if again is not None:
                    self.tell(owner, CallGranted(call))
            case SettleCall(call=call, tokens=tokens):
                if tokens is not None and message.sent and not message.refund_tokens and self._limiter.succeed(call):
                    self._clear_saved_hold()
                self._limiter.settle(call, tokens, now, sent=message.sent, refund_tokens=message.refund_tokens)
            case WithdrawCall(call=call):
                self._limiter.settle(call, None, now, sent=False)
            case LimitsObserved(call=call, snapshot=snapshot):
                at = now if snapshot is None else min(now, self._monotonic_of(snapshot.at_ms))
                self._limiter.observe(call, snapshot, at, now)
            case KeyRefused():
                self._on_refused(message, now)
            case Down(child=owner):
                self._limiter.abandon(owner)
            case UsageLoaded():
                self._on_usage_loaded(message, now)
            case DescribeLimits(reply_to=reply_to):
                self.tell(reply_to, LimitsDescribed(self.limit_key, self._describe(now)))
            case ReportIn():
                self._told, self._looked_at = None, -math.inf
            case _Wake():
                self._wake = None
            case _AskStore():
                if not self._loaded:
                    self._ask_store()
            case _:
                self.unhandled(message)

    def after_batch(self) -> None:
        """Grant and defer what is due, report to the dispatcher, and set the timer for what time alone will change."""
        if not self._loaded:
            return
        now = self.monotonic()
        for grant in self._limiter.admit(now):
            self.tell(grant.owner, CallGranted(grant.call))
        for deferral in self._limiter.defer(now, self._park_after):
            until_ms = self._wall_ms(deferral.until)
            self.tell(
                deferral.owner,
                CallDeferred(call=deferral.call, until_ms=until_ms, limit_key=self.limit_key, reason=deferral.reason),
            )
        self._set_timer(min(self._limiter.next_change(now, self._park_after) or math.inf, self._report(now)), now)

    # -- the store --------------------------------------------------------------------------------------------------------

    def _ask_store(self) -> None:
        since_ms = self.now_ms() - math.ceil((self._window + self._max_delivery) * 1000)
        self.tell(STORE, LoadUsage(self.name, self.limit_key, since_ms))
        self.after(ASK_AGAIN_AFTER, _AskStore())

    def _on_usage_loaded(self, usage: UsageLoaded, now: float) -> None:
        if self._loaded:
            return  # the answer to an earlier question, which came after all
        hold = None
        if usage.hold_until_ms is not None:
            hold = Hold(self._monotonic_of(usage.hold_until_ms), usage.hold_reason or "held")
            self._saved_until_ms = usage.hold_until_ms
        entries = [(self._monotonic_of(sent_ms), tokens) for sent_ms, tokens in usage.entries]
        self._limiter.restore(entries, hold, now)
        self._loaded = True
        self.ready()

    def _on_refused(self, refused: KeyRefused, now: float) -> None:
        jitter = self.system.random.random()
        hold = self._limiter.refuse(
            refused.call, refused.kind, refused.retry_after, refused.reason, now=now, jitter=jitter
        )
        until_ms = self._wall_ms(hold.until)
        if hold.until - now >= SAVE_HOLDS_FROM and until_ms != self._saved_until_ms:
            self._saved_until_ms = until_ms
            self.tell(STORE, SaveHold(limit_key=self.limit_key, until_ms=until_ms, reason=hold.reason))

    def _clear_saved_hold(self) -> None:
        if self._saved_until_ms is not None:
            self._saved_until_ms = None
            self.tell(STORE, SaveHold(limit_key=self.limit_key, until_ms=None, reason="a call succeeded"))

    # -- the dispatcher ---------------------------------------------------------------------------------------------------

    def _report(self, now: float) -> float:
        """Tell the dispatcher how the key stands if that has changed; return when to look again (infinity: not by time alone)."""
        if now - self._looked_at < REPORT_INTERVAL:
            return self._looked_at + REPORT_INTERVAL
        self._looked_at = now
        headroom = self._limiter.headroom(now, self._park_after)
        look_again = math.inf
        report: KeyHeld | KeyFreed = KeyFreed(self.limit_key, headroom)
        if headroom == 0:
            at = self._limiter.available_at(now)
            until = at if at < math.inf else now + self._park_after
            report = KeyHeld(self.limit_key, self._wall_ms(max(until, now)), self._limiter.reason(now))
            look_again = max(at - self._park_after, now + REPORT_INTERVAL)
        if self._news(report):
            self._told, self._taken = report, False
            self.tell(DISPATCHER, report)
        return look_again

    def _news(self, report: KeyHeld | KeyFreed) -> bool:
        """Whether the dispatcher would act otherwise on this.

        A hold that ends a moment earlier or later than told is no news. The same headroom is, if some of it was taken meanwhile:
        the dispatcher takes what it gave out off what it was told, and would in the end believe that nothing is left.
        """
        match self._told, report:
            case KeyHeld(until_ms=told), KeyHeld(until_ms=until):
                return abs(until - told) > REPORT_INTERVAL * 1000
            case KeyFreed(headroom=told), KeyFreed(headroom=headroom):
                return told != headroom or (self._taken and headroom is not None)
            case _:
                return True

    # -- time -------------------------------------------------------------------------------------------------------------

    def _set_timer(self, due: float, now: float) -> None:
        if self._wake is not None:
            if abs(self._wake[0] - due) < SHORTEST_TIMER:
                return
            self.cancel(self._wake[1])
            self._wake = None
        if due < math.inf:
            due = max(due, now + SHORTEST_TIMER)
            self._wake = due, self.after(due - now, _Wake())

    def _monotonic_of(self, wall_ms: int) -> float:
        return self.monotonic() - (self.now_ms() - wall_ms) / 1000

    def _wall_ms(self, at: float) -> int:
        return self.now_ms() + math.ceil((at - self.monotonic()) * 1000)

    def _describe(self, now: float) -> dict[str, Any]:
        headroom = self._limiter.headroom(now, self._park_after)
        return {**self._limiter.describe(now, self.now_ms()), "headroom": headroom, "loaded": self._loaded}
