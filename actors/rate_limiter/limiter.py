"""All limits of one key at once: requests and tokens per minute, calls in flight, and holds (pure).

A call is admitted when every dimension has room for it, and then charged in all of them; none is ever charged alone. Callers wait in
one line, highest priority first, then first come, and nobody overtakes: a small call that fits does not pass a large one at the head,
which would otherwise wait for ever. For the same reason a large call that was sent away to wait elsewhere keeps its place in the line
until it is due back; small ones need no such care, since they are admitted within their first seconds at the head.

No thread, no I/O, no clock: every `now` is seconds on one clock that never runs backwards. `actor.py` adds the mailbox and the timers.
"""

import math
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Any

from ..messages import CallRef
from ..providers.model import LimitSnapshot
from ..settings import LimitSettings
from .hold import Hold, HoldState
from .window import MAX_DELIVERY, WINDOW, Entry, Window

WEIGHT = 0.2
"""Weight of the newest sample in the moving averages of charges and durations."""

LINE_SHOWN = 10
"""Waiters that a description lists one by one."""


@dataclass(slots=True, order=True)
class Waiter:
    """A reservation that waits its turn; sorts by priority (high first), then arrival.

    `since`: when it joined. `kept_until`: its caller was sent away, to be back at `since`, and the place is kept for that job until then.
    """

    rank: tuple[int, int]
    call: CallRef = field(compare=False)
    tokens: int = field(compare=False)
    owner: str | None = field(compare=False)
    since: float = field(compare=False)
    kept_until: float | None = field(compare=False, default=None)


@dataclass(frozen=True, slots=True)
class Permit:
    """A granted call: what it is charged, since when, and to whom it was granted."""

    owner: str
    granted_at: float
    request: Entry
    tokens: Entry


@dataclass(frozen=True, slots=True)
class Grant:
    """A call that may go; its owner is to be told."""

    call: CallRef
    owner: str


@dataclass(frozen=True, slots=True)
class Deferral:
    """A call that left the line, for it would wait longer than a runner should. `until` is when it might be admitted."""

    call: CallRef
    owner: str
    until: float
    reason: str


class Limiter:
    """The limits of one key, who is in flight, and who waits. One thread."""

    def __init__(
        self, key: str, limits: LimitSettings, *, window: float = WINDOW, max_delivery: float = MAX_DELIVERY
    ) -> None:
        self.key = key
        self._limits = limits
        self._window = window
        self._requests = Window(limits.requests_per_minute, window=window, max_delivery=max_delivery)
        self._tokens = Window(limits.tokens_per_minute, window=window, max_delivery=max_delivery)
        self._permits: dict[CallRef, Permit] = {}
        self._waiters: list[Waiter] = []
        self._sequence = count()
        self._holds = HoldState()
        self._typical_tokens: float | None = None
        self._typical_seconds: float | None = None

    # -- calls ------------------------------------------------------------------------------------------------------------

    def reserve(self, call: CallRef, tokens: int, priority: int, owner: str, now: float) -> Grant | None:
        """Put a call in line; `admit` says whose turn it is. A call that was granted already is granted again, at no charge.

        What is left of an earlier lease of the job, or of another job of the owner (it has one at a time), is void and freed.
        """
        self._permits = {
            other: permit for other, permit in self._permits.items() if not _void(other, permit.owner, call, owner)
        }
        if call in self._permits:
            return Grant(call, owner)
        self._waiters = [other for other in self._waiters if not _void(other.call, other.owner, call, owner)]
        waiter = Waiter((-priority, next(self._sequence)), call, tokens, owner, now)
        for other in self._waiters:
            if other.call == call:
                return None
            if other.kept_until is not None and other.call.job_id == call.job_id and other.rank[0] == waiter.rank[0]:
                waiter.rank = other.rank
                self._waiters.remove(other)
                break
        insort(self._waiters, waiter)
        return None

    def admit(self, now: float) -> list[Grant]:
        """Grant, charge and return every call whose turn has come."""
        self._waiters = [waiter for waiter in self._waiters if waiter.kept_until is None or waiter.kept_until > now]
        grants = []
        while self._waiters and self._admissible(self._waiters[0].tokens, now):
            owner = self._waiters[0].owner
            if owner is None:
                break
            waiter = self._waiters.pop(0)
            charges = self._requests.add(1, now), self._tokens.add(waiter.tokens, now)
            self._permits[waiter.call] = Permit(owner, now, *charges)
            self._typical_tokens = _average(self._typical_tokens, waiter.tokens)
            grants.append(Grant(waiter.call, owner))
        return grants

    def defer(self, now: float, park_after: float) -> list[Deferral]:
        """Take out of the line, and return, all that would not be admitted within `park_after` seconds of joining it."""
        deferrals = []
        reason = self.reason(now) if self._waiters else ""
        for waiter, at in list(zip(self._waiters, self._forecasts(now), strict=True)):
            if waiter.owner is None:
                continue
            expected = at - waiter.since if at < math.inf else 0.0
            if max(expected, now - waiter.since) < park_after:
                continue
            # Nobody can say when a slot frees itself among calls of unknown length: then simply later.
            until = at if now < at < math.inf else now + park_after
            deferrals.append(Deferral(waiter.call, waiter.owner, until, reason))
            if self._clamped(waiter.tokens) * self._window > (self._tokens.limit or math.inf) * park_after:
                waiter.owner, waiter.since, waiter.kept_until = None, until, until + park_after
            else:
                self._waiters.remove(waiter)
        return deferrals

    def settle(
        self, call: CallRef, tokens: int | None, now: float, *, sent: bool = True, refund_tokens: bool = False
    ) -> bool:
        """End a granted call with what it used, or take a waiting one out of the line. Return whether either was there.

        Never sent: all of it is refunded. Refused before the model (`refund_tokens`): the request stays charged. Usage unknown: the charge stands.
        """
        permit = self._permits.pop(call, None)
        if permit is None:
            waiting = len(self._waiters)
            self._waiters = [waiter for waiter in self._waiters if waiter.call != call or waiter.owner is None]
            return len(self._waiters) < waiting
        if not sent:
            self._requests.settle(permit.request, 0, now)
            self._tokens.settle(permit.tokens, 0, now)
            return True
        self._requests.counted(permit.request, now)
        used = 0 if refund_tokens else tokens
        self._tokens.settle(permit.tokens, permit.tokens.amount if used is None else used, now)
        self._typical_seconds = _average(self._typical_seconds, now - permit.granted_at)
        return True

    def abandon(self, owner: str) -> None:
        """Free what a dead owner held: its place in line and its slots. Its calls may have gone out, so their charges stay."""
        self._waiters = [waiter for waiter in self._waiters if waiter.owner != owner]
        self._permits = {call: permit for call, permit in self._permits.items() if permit.owner != owner}

    # -- what the provider says ---------------------------------------------------------------------------------------------

    def observe(self, call: CallRef, snapshot: LimitSnapshot | None, at: float, now: float) -> None:
        """Take note that a reply began at `at`, and of what its headers said. Fields it does not know change nothing.

        A header's limit replaces ours, but never above what was configured. Less left than we believed means that others use the key.
        """
        permit = self._permits.get(call)
        if permit is not None:
            self._requests.counted(permit.request, now)
            self._tokens.counted(permit.tokens, now)
        if snapshot is None:
            return
        younger = [other for other in self._permits.values() if other.granted_at > at]
        for window, configured, limit, remaining, later in (
            (
                self._requests,
                self._limits.requests_per_minute,
                snapshot.requests_limit,
                snapshot.requests_remaining,
                len(younger),
            ),
            (
                self._tokens,
                self._limits.tokens_per_minute,
                snapshot.tokens_limit,
                snapshot.tokens_remaining,
                sum(other.tokens.amount for other in younger),
            ),
        ):
            if limit is not None and limit > 0:
                window.limit = limit if configured is None else min(limit, configured)
            if remaining is not None and permit is not None:
                window.observe(remaining, later, permit.granted_at, now)

    def refuse(
        self, call: CallRef, kind: str, retry_after: float | None, reason: str, *, now: float, jitter: float
    ) -> Hold:
        """Hold the key because the provider refused it. `jitter` is a random number in 0..1."""
        permit = self._permits.get(call)
        granted_at = None if permit is None else permit.granted_at
        return self._holds.refuse(kind, retry_after, reason, granted_at=granted_at, now=now, jitter=jitter)

    def succeed(self, call: CallRef) -> bool:
        """Note that a call in flight succeeded; return whether that ended a row of refusals."""
        permit = self._permits.get(call)
        return permit is not None and self._holds.succeed(permit.granted_at)

    def restore(self, recent: Iterable[tuple[float, int]], hold: Hold | None, now: float) -> None:
        """Charge what an earlier life let out, as (sent at, tokens), and take over its hold."""
        for sent_at, tokens in recent:
            self._requests.restore(1, sent_at, now)
            self._tokens.restore(tokens, sent_at, now)
        if hold is not None and hold.until > now:
            self._holds.hold = hold

    # -- what is to come ----------------------------------------------------------------------------------------------------

    def next_change(self, now: float, park_after: float) -> float | None:
        """Return when time alone will admit or defer somebody, None if nobody waits."""
        if not self._waiters:
            return None
        head = next(iter(self._forecasts(now)))
        patience = (
            waiter.since + park_after
            if waiter.kept_until is None
            else waiter.since
            if waiter.since > now
            else waiter.kept_until
            for waiter in self._waiters
        )
        return min(head if head > now else math.inf, *patience)

    def available_at(self, now: float) -> float:
        """Return when one more call like the recent ones would be admitted after all that wait; infinity if nobody can say."""
        return self._forecast(len(self._waiters) + 1, self._waiting_tokens() + self._typical(), now)

    def headroom(self, now: float, horizon: float) -> int | None:
        """Return how many more calls like the recent ones would be admitted within `horizon` seconds; None: any number.

        Those that wait already are taken off; the one whose place is kept and who is due back counts as one more to be let in.
        """
        at = now + horizon
        hold = self._holds.standing(now)
        if hold is not None and hold.until > at:
            return 0
        rooms = []
        if (requests := self._requests.free_at(at, now)) is not None:
            rooms.append(requests - len(self._waiters))
        if (tokens := self._tokens.free_at(at, now)) is not None:
            rooms.append((tokens - self._waiting_tokens()) // self._typical())
        if (slots := self._limits.concurrency) is not None:
            turnover = 0 if not self._typical_seconds else math.floor(slots * horizon / self._typical_seconds)
            rooms.append(slots - len(self._permits) + turnover - len(self._waiters))
        due_back = sum(waiter.owner is None and waiter.since <= now for waiter in self._waiters)
        return max(0, min(rooms)) + due_back if rooms else None

    # -- what people ask ----------------------------------------------------------------------------------------------------

    def reason(self, now: float) -> str:
        """Return, in words, what keeps the next call waiting."""
        if (hold := self._holds.standing(now)) is not None:
            return f"{self.key}: {hold.reason}"
        tokens = self._waiters[0].tokens if self._waiters else self._typical()
        if not self._requests.fits(1, now):
            return f"{self.key}: {self._requests.used(now)} of {self._requests.limit} requests per minute are used"
        if not self._tokens.fits(tokens, now):
            used, limit = self._tokens.used(now), self._tokens.limit
            return f"{self.key}: {used} of {limit} tokens per minute are used, and the next call needs {tokens}"
        if not self._slot_free():
            return f"{self.key}: {len(self._permits)} of {self._limits.concurrency} calls are in flight"
        return f"{self.key}: {len(self._waiters)} calls are ahead"

    def why(self, call: CallRef, now: float) -> str:
        """Return, in words, how a call stands: in flight, or which place in line and what it waits for."""
        if call in self._permits:
            return f"{self.key}: in flight for {now - self._permits[call].granted_at:.1f} s"
        for ahead, (waiter, at) in enumerate(zip(self._waiters, self._forecasts(now), strict=True)):
            if waiter.call == call:
                when = "when a call ends" if at == math.inf else f"in about {max(0.0, at - now):.1f} s"
                return f"{self.reason(now)}; {ahead} ahead in line; {when}"
        return f"{self.key}: not in line"

    def describe(self, now: float, now_ms: int) -> dict[str, Any]:
        """Return how the limits stand, JSON-ready. Times in epoch milliseconds, given that `now_ms` is `now`."""

        def wall(at: float | None) -> int | None:
            return None if at is None else now_ms + math.ceil((at - now) * 1000)

        def dimension(window: Window) -> dict[str, Any]:
            return {
                "limit": window.limit,
                "used": window.used(now),
                "free": window.free(now),
                "next_expiry_ms": wall(window.next_expiry(now)),
            }

        hold = self._holds.standing(now)
        slots = self._limits.concurrency
        return {
            "key": self.key,
            "requests": dimension(self._requests),
            "tokens": dimension(self._tokens),
            "concurrency": {
                "limit": slots,
                "used": len(self._permits),
                "free": None if slots is None else max(0, slots - len(self._permits)),
            },
            "hold": None if hold is None else {"until_ms": wall(hold.until), "reason": hold.reason},
            "waiting": sum(waiter.owner is not None for waiter in self._waiters),
            "places_kept": sum(waiter.owner is None for waiter in self._waiters),
            "line": [
                {"job_id": waiter.call.job_id, "why": self.why(waiter.call, now)}
                for waiter in self._waiters[:LINE_SHOWN]
            ],
        }

    # -- arithmetic ---------------------------------------------------------------------------------------------------------

    def _admissible(self, tokens: int, now: float) -> bool:
        return (
            self._holds.standing(now) is None
            and self._slot_free()
            and self._requests.fits(1, now)
            and self._tokens.fits(tokens, now)
        )

    def _slot_free(self) -> bool:
        return self._limits.concurrency is None or len(self._permits) < self._limits.concurrency

    def _forecasts(self, now: float) -> Iterable[float]:
        """When each in line would be admitted: by then there is room for it and for all ahead of it."""
        tokens = accumulate(self._clamped(waiter.tokens) for waiter in self._waiters)
        return (self._forecast(place, total, now) for place, total in enumerate(tokens, start=1))

    def _forecast(self, requests: int, tokens: int, now: float) -> float:
        hold = self._holds.standing(now)
        return max(
            now if hold is None else hold.until,
            self._requests.earliest(requests, now),
            self._tokens.earliest(tokens, now),
            self._slot_at(requests, now),
        )

    def _slot_at(self, place: int, now: float) -> float:
        if self._limits.concurrency is None:
            return now
        short = len(self._permits) + place - self._limits.concurrency
        if short <= 0:
            return now
        if self._typical_seconds is None:
            return math.inf
        return now + short * self._typical_seconds / self._limits.concurrency

    def _waiting_tokens(self) -> int:
        return sum(self._clamped(waiter.tokens) for waiter in self._waiters)

    def _clamped(self, tokens: int) -> int:
        """Return what the line must make room for: a charge above the limit goes when nothing else is held."""
        return tokens if self._tokens.limit is None else min(tokens, self._tokens.limit)

    def _typical(self) -> int:
        """Tokens of a call like the recent ones."""
        return self._clamped(max(1, math.ceil(self._typical_tokens or 1)))


def _average(average: float | None, sample: float) -> float:
    return float(sample) if average is None else average + WEIGHT * (sample - average)


def _void(other: CallRef, other_owner: str | None, call: CallRef, owner: str) -> bool:
    """Whether a reservation is void now that `owner` reserves for `call`. A kept place is for a later lease of its job, so it is not."""
    if other_owner is None:
        return False
    return (
        other.lease != call.lease if other_owner == owner else other.job_id == call.job_id and other.epoch < call.epoch
    )
