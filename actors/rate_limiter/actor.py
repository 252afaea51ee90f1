"""The rate limiter of one key: it admits calls, never makes them, and never sleeps.

All arithmetic is in `limiter.py`; here are the mailbox, the timers, and whom to tell. Callers are answered "now" (`CallGranted`) or
"not before" (`CallDeferred`). The dispatcher is told when the key is worth claiming jobs for, so that most jobs of a throttled key are
never claimed in vain.

**All workers of a database share one limit.** Each limiter counts what it grants, and the transaction that records an intent has the last word
(`persistence.limits`): a call that does not fit with what the others did is refused there, and this limiter is told how the key stands. While
others are about and somebody waits, it asks by itself. Holds and lowered limits of others reach it the same way.

**Restart.** A new life asks the database how the key stands before it admits anything, so neither a crash of this actor nor a `kill -9` of the
process lets the provider see more than the limit. Within one process, the life before may have granted calls whose intents are not in the
database yet: a later life lets `max_delivery` pass before it asks.
"""

import logging
import math
from typing import Any

from ...persistence.limit_rules import NOTHING
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
    LimitsChanged,
    LimitsDescribed,
    LimitsObserved,
    LoadUsage,
    LowerLimits,
    ReportIn,
    ReserveCall,
    SaveDescription,
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

ASK_AGAIN_AFTER = 1.0
"""Seconds after which the store is asked again for the recent usage, if it has not answered."""

SHORTEST_TIMER = 0.001
"""Seconds. A forecast may fall short by the rounding of a float; the next look must not come at the same instant."""


LONGEST_SLOT = 4096.0
"""Seconds; a power of two that no slot of a window is longer than. Small, so that a float keeps its precision."""

LOOK_AT_OTHERS = 0.25
"""Seconds between two looks at what other workers did, while somebody waits for it."""

DESCRIBE_EVERY = 1.0
"""Seconds between two descriptions for people, at least."""

OF_ACCOUNT = frozenset({"credential", "provider"})
"""Scopes (`Scope`) of a refusal that concern every key of the provider."""
LOUD = frozenset({"auth", "quota"})
"""Kinds of refusal that a person must hear of."""

logger = logging.getLogger(__name__)


class _Wake:
    """To itself: time has passed; what is due is done after every batch anyway."""


class _AskStore:
    """To itself: ask the store (again) how the key stands."""


class _ShowItself:
    """To itself: a description is due."""


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
        account: str = "",
        remedy: str = "",
        park_after: float = PARK_AFTER,
        window: float = WINDOW,
        max_delivery: float = MAX_DELIVERY,
    ) -> None:
        super().__init__(system)
        self.limit_key = limit_key
        self._account = account or limit_key
        self._remedy = remedy
        self._limiter = Limiter(limit_key, limits, account=self._account, window=window, max_delivery=max_delivery)
        self._park_after = park_after
        self._max_delivery = max_delivery
        self._loaded = False
        self._axis = 0.0
        self._wake: tuple[float, TimerToken] | None = None
        self._told: KeyHeld | KeyFreed | None = None
        self._looked_at = -math.inf
        self._asked_at = -math.inf
        self._taken = False
        self._saved: dict[str, int] = {}
        self._described_at = -math.inf
        self._showing = False

    def on_start(self) -> None:
        """Ask how the key stands: at once in the first life, in later ones when the last grants of the life before are in the database."""
        # The slots of the limiter's clock begin when those of the calendar do, by which the database goes.
        self._axis = (self.now_ms() / 1000 - self.monotonic()) % LONGEST_SLOT
        if self.generation > 1:
            self.after(self._max_delivery, _AskStore())
        else:
            self._ask_store(self._now())

    def receive(self, message: object) -> None:
        """Take note of one message; what follows from it for those in line is done in `after_batch`."""
        now = self._now()
        match message:
            case ReserveCall(reply_to=owner, call=call):
                self.watch(owner)
                self._taken = True
                again = self._limiter.reserve(
                    call, message.charge, message.priority, owner, now, assumed_output=message.assumed_output
                )
                if again is not None:
                    self.tell(owner, CallGranted(call, again.gate))
            case SettleCall():
                self._on_settled(message, now)
            case WithdrawCall(call=call):
                self._limiter.settle(call, NOTHING, now)
            case LimitsObserved(call=call, snapshot=snapshot):
                at = now if snapshot is None else min(now, self._at(snapshot.at_ms))
                self._limiter.observe(call, snapshot, at, now)
            case KeyRefused():
                self._on_refused(message, now)
            case Down(child=owner):
                self._limiter.abandon(owner)
            case UsageLoaded():
                self._on_usage_loaded(message, now)
            case LimitsChanged():
                self._on_changed(message, now)
            case DescribeLimits(reply_to=reply_to):
                self.tell(reply_to, LimitsDescribed(self.limit_key, self._describe(now)))
            case ReportIn():
                self._told, self._looked_at = None, -math.inf
            case _Wake():
                self._wake = None
                return
            case _AskStore():
                if not self._loaded:
                    self._ask_store(now)
                return
            case _ShowItself():
                self._showing = False
                self._described_at = now
                self.tell(STORE, SaveDescription(self.limit_key, self._describe(now)))
                return
            case _:
                self.unhandled(message)
        self._show_soon(now)

    def after_batch(self) -> None:
        """Grant and defer what is due, report to the dispatcher, and set the timer for what time alone will change."""
        if not self._loaded:
            return
        now = self._now()
        for grant in self._limiter.admit(now):
            self.tell(grant.owner, CallGranted(grant.call, grant.gate))
        for deferral in self._limiter.defer(now, self._park_after):
            until_ms = self._wall_ms(deferral.until)
            self.tell(
                deferral.owner,
                CallDeferred(
                    call=deferral.call,
                    until_ms=until_ms,
                    limit_key=self.limit_key,
                    reason=deferral.reason,
                    kind=self._limiter.kind(now),
                ),
            )
        due = min(self._limiter.next_change(now, self._park_after) or math.inf, self._report(now))
        self._set_timer(min(due, self._look_at_others(now)), now)

    # -- the store --------------------------------------------------------------------------------------------------------

    def _ask_store(self, now: float) -> None:
        self._asked_at = now
        days = self._limiter.dimensions.days_charged(now)
        self.tell(STORE, LoadUsage(self.name, self.limit_key, self._account, days))
        if not self._loaded:
            self.after(ASK_AGAIN_AFTER, _AskStore())

    def _look_at_others(self, now: float) -> float:
        """Ask what others did if that may let somebody in; return when to ask again (infinity: nobody waits for it)."""
        wanted = self._limiter.waiting or isinstance(self._told, KeyHeld)
        if not (wanted and self._limiter.shared):
            return math.inf
        if now - self._asked_at >= LOOK_AT_OTHERS:
            self._ask_store(now)
        return self._asked_at + LOOK_AT_OTHERS

    def _on_usage_loaded(self, loaded: UsageLoaded, now: float) -> None:
        self._limiter.learn(loaded.picture, loaded.not_before_ms, now, first=not self._loaded)
        for hold in loaded.picture.holds:
            self._saved[hold.key] = hold.until
        if not self._loaded:
            self._loaded = True
            self.ready()

    def _on_changed(self, changed: LimitsChanged, now: float) -> None:
        self._limiter.dimensions.set_factor(changed.factor, changed.factor_at_ms, now)
        for hold in changed.holds:
            self._saved[hold.key] = hold.until
            self._limiter.impose(Hold(self._at(hold.until), hold.reason, hold.kind))
        gone = [key for key, until_ms in self._saved.items() if until_ms in changed.lifted]
        for key in gone:
            del self._saved[key]
        if gone and not self._saved:
            self._limiter.lift()

    def _on_settled(self, settled: SettleCall, now: float) -> None:
        call = settled.call
        if settled.succeeded and self._limiter.succeed(call):
            self._clear_saved_holds()
        if settled.succeeded or settled.failure is not None:
            hold = self._limiter.trouble(call, settled.failure, settled.retry_after, now)
            if hold is not None:
                logger.warning("%s: %s; it is left alone for %.1f s", self.limit_key, hold.reason, hold.until - now)
                self._save_hold(self.limit_key, hold)
        self._limiter.settle(call, settled.used, now)

    def _on_refused(self, refused: KeyRefused, now: float) -> None:
        known = self._limiter.hold
        jitter = self.system.random.random()
        hold = self._limiter.refuse(
            refused.call, refused.kind, refused.retry_after, refused.reason, now=now, jitter=jitter
        )
        if refused.kind == "rate":
            self._limiter.dimensions.lower(now)
            self.tell(STORE, LowerLimits(self.name, self.limit_key))
        whole = refused.scope in OF_ACCOUNT
        if refused.kind in LOUD and (known is None or known.kind != refused.kind):
            what = f"all models of {self._account}" if whole else self.limit_key
            logger.error(
                "%s is on hold, no job pays for it: %s. %s, then `callboard limits --resume %s`",
                what,
                refused.reason,
                self._remedy or "Put that right",
                self._account if whole else self.limit_key,
            )
        self._save_hold(self._account if whole else self.limit_key, hold)

    def _save_hold(self, key: str, hold: Hold) -> None:
        until_ms = self._wall_ms(hold.until)
        if self._saved.get(key) != until_ms:
            self._saved[key] = until_ms
            self.tell(STORE, SaveHold(key=key, until_ms=until_ms, reason=hold.reason, kind=hold.kind))

    def _clear_saved_holds(self) -> None:
        for key in self._saved:
            self.tell(STORE, SaveHold(key=key, until_ms=None, reason="a call succeeded"))
        self._saved.clear()

    # -- the dispatcher ---------------------------------------------------------------------------------------------------

    def _report(self, now: float) -> float:
        """Tell the dispatcher how the key stands if that has changed; return when to look again (infinity: not by time alone)."""
        if now - self._looked_at < REPORT_INTERVAL - SHORTEST_TIMER:
            return self._looked_at + REPORT_INTERVAL
        self._looked_at = now
        headroom = self._limiter.headroom(now, self._park_after)
        look_again = math.inf
        report: KeyHeld | KeyFreed = KeyFreed(self.limit_key, headroom)
        if headroom == 0:
            at = self._limiter.available_at(now)
            until = at if at < math.inf else now + self._park_after
            kind = self._limiter.kind(now)
            report = KeyHeld(self.limit_key, self._wall_ms(max(until, now)), self._limiter.reason(now), kind)
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
            case KeyHeld(until_ms=told, kind=was), KeyHeld(until_ms=until, kind=kind):
                return was != kind or abs(until - told) > REPORT_INTERVAL * 1000
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

    def _now(self) -> float:
        """The limiter's clock: runs evenly, and stood where the calendar does when this life began."""
        now = self.monotonic() + self._axis
        self._limiter.dimensions.wall_shift_ms = self.now_ms() - math.floor(now * 1000)
        return now

    def _at(self, wall_ms: int) -> float:
        return self._now() - (self.now_ms() - wall_ms) / 1000

    def _wall_ms(self, at: float) -> int:
        return self.now_ms() + math.ceil((at - self._now()) * 1000)

    # -- people -----------------------------------------------------------------------------------------------------------

    def _describe(self, now: float) -> dict[str, Any]:
        headroom = self._limiter.headroom(now, self._park_after)
        return {**self._limiter.describe(now), "headroom": headroom, "loaded": self._loaded}

    def _show_soon(self, now: float) -> None:
        if not self._showing and self._loaded:
            self._showing = True
            self.after(max(0.0, self._described_at + DESCRIBE_EVERY - now), _ShowItself())
