"""The line before one key: who is in flight, who waits, and what keeps them waiting (pure).

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

from ...persistence.limit_rules import NOTHING, Charge, Gate, scaled
from ...persistence.limits import Picture
from ..messages import CallRef
from ..providers.model import LimitSnapshot
from ..settings import LimitSettings
from .breaker import SAYS_NOTHING, TROUBLE, Breaker
from .dimensions import Dimensions
from .hold import Hold, HoldState
from .permits import Permit, Permits
from .window import MAX_DELIVERY, WINDOW

WEIGHT = 0.2
"""Weight of the newest sample in the moving averages of charges and durations."""
OUTPUT_MARGIN = 1.5
"""What is reserved for the answer of a call without a limit is so many times what such answers took lately (reference B.4)."""

LINE_SHOWN = 10
"""Waiters that a description lists one by one."""


@dataclass(slots=True, order=True)
class Waiter:
    """A reservation that waits its turn; sorts by priority (high first), then arrival.

    `since`: when it joined. `kept_until`: its caller was sent away, to be back at `since`, and the place is kept for that job until then.
    """

    rank: tuple[int, int]
    call: CallRef = field(compare=False)
    charge: Charge = field(compare=False)
    owner: str | None = field(compare=False)
    since: float = field(compare=False)
    kept_until: float | None = field(compare=False, default=None)


@dataclass(frozen=True, slots=True)
class Grant:
    """A call that may go; its owner is to be told. `gate`: what the database is to check and charge."""

    call: CallRef
    owner: str
    gate: Gate


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
        self,
        key: str,
        limits: LimitSettings,
        *,
        account: str = "",
        window: float = WINDOW,
        max_delivery: float = MAX_DELIVERY,
    ) -> None:
        self.key = key
        self.account = account or key
        self.dimensions = Dimensions(limits, window=window, max_delivery=max_delivery)
        self._window_ms, self._delivery_ms = round(window * 1000), round(max_delivery * 1000)
        self._concurrency = limits.concurrency
        self._permits = Permits()
        self._waiters: list[Waiter] = []
        self._sequence = count()
        self._holds = HoldState()
        self._breaker = Breaker()
        self._probe: CallRef | None = None
        self._strangers = 0
        self._not_before = -math.inf
        self._typical_charge: tuple[float, ...] | None = None
        self._typical_output: float | None = None
        self._typical_seconds: float | None = None

    # -- calls ------------------------------------------------------------------------------------------------------------

    def reserve(
        self, call: CallRef, charge: Charge, priority: int, owner: str, now: float, *, assumed_output: int = 0
    ) -> Grant | None:
        """Put a call in line; `admit` says whose turn it is. A call that was granted already is granted again, at no charge.

        What is left of an earlier lease of the job, or of another job of the owner (it has one at a time), is void and freed.
        """
        for held, permit in self._permits.of(owner, call.job_id):
            if _void(held, permit.owner, call, owner):
                self._permits.drop(held)
        if (granted := self._permits.get(call)) is not None:
            return Grant(call, owner, self._gate(granted.charged.amount, now))
        if self._waiters:
            self._waiters = [other for other in self._waiters if not _void(other.call, other.owner, call, owner)]
        waiter = Waiter((-priority, next(self._sequence)), call, self._foreseen(charge, assumed_output), owner, now)
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
        self.dimensions.refresh(now)
        if self._probe is not None and self._probe not in self._permits:
            self._probe = None  # it was withdrawn, or its caller died
        self._waiters = [waiter for waiter in self._waiters if waiter.kept_until is None or waiter.kept_until > now]
        grants = []
        while self._waiters and self._admissible(self._waiters[0].charge, now):
            owner = self._waiters[0].owner
            if owner is None:
                break
            waiter = self._waiters.pop(0)
            self._permits.add(waiter.call, Permit(owner, now, self.dimensions.add(waiter.charge, now)))
            self._typical_charge = _averages(self._typical_charge, waiter.charge)
            if self._breaker.tripped:
                self._probe = waiter.call
            grants.append(Grant(waiter.call, owner, self._gate(waiter.charge, now)))
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
            if self.dimensions.large(waiter.charge, park_after):
                waiter.owner, waiter.since, waiter.kept_until = None, until, until + park_after
            else:
                self._waiters.remove(waiter)
        return deferrals

    def settle(self, call: CallRef, used: Charge | None, now: float) -> bool:
        """End a granted call with what it used, or take a waiting one out of the line. Return whether either was there.

        Never sent: NOTHING, all of it is refunded. Refused before the model: the request alone. Usage unknown (None): the charge stands.
        """
        permit = self._permits.drop(call)
        if permit is None:
            waiting = len(self._waiters)
            self._waiters = [waiter for waiter in self._waiters if waiter.call != call or waiter.owner is None]
            return len(self._waiters) < waiting
        self.dimensions.settle(permit.charged, permit.charged.amount if used is None else used, now)
        if used != NOTHING:
            self._typical_seconds = _average(self._typical_seconds, now - permit.granted_at)
        if used is not None and used.output:
            self._typical_output = _average(self._typical_output, used.output)
        return True

    def abandon(self, owner: str) -> None:
        """Free what a dead owner held: its place in line and its slots. Its calls may have gone out, so their charges stay."""
        self._waiters = [waiter for waiter in self._waiters if waiter.owner != owner]
        for call, _ in self._permits.of(owner):
            self._permits.drop(call)

    # -- what the provider says ---------------------------------------------------------------------------------------------

    def observe(self, call: CallRef, snapshot: LimitSnapshot | None, at: float, now: float) -> None:
        """Take note that a reply began at `at`, and of what its headers said. Fields it does not know change nothing.

        A header's limit replaces ours, but never above what was configured. Less left than we believed means that others use the key.
        """
        permit = self._permits.get(call)
        if permit is not None:
            self.dimensions.counted(permit.charged, now)
        if snapshot is not None:
            younger = (other.charged.amount for _, other in self._permits.all() if other.granted_at > at)
            self.dimensions.observe(snapshot, younger, None if permit is None else permit.granted_at, now)

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

    def trouble(self, call: CallRef, kind: str | None, retry_after: float | None, now: float) -> Hold | None:
        """Note how a call in flight ended, before it is settled; return the hold if that opened the breaker.

        `kind`: the `ErrorClass` of its failure, None if it was answered. What the provider answered, even with a refusal, is no trouble.
        """
        permit = self._permits.get(call)
        if call == self._probe:
            self._probe = None
        if permit is None or kind in SAYS_NOTHING:
            return None
        if kind not in TROUBLE:
            self._breaker.answered(permit.granted_at)
            return None
        until = self._breaker.failed(permit.granted_at, now, retry_after)
        if until is None:
            return None
        hold = Hold(until, f"{self._breaker.failures} calls in a row failed ({kind})", "breaker")
        self._holds.impose(hold)
        return hold

    # -- what all workers did ---------------------------------------------------------------------------------------------------

    def learn(self, picture: Picture, not_before_ms: int, now: float, *, first: bool) -> None:
        """Take over what the database says. `first`: this limiter has just begun to live."""
        self.dimensions.learn(picture, now, first=first)
        # Calls of an earlier life of this limiter are in flight unknown to it.
        self._strangers = picture.others_open + max(0, picture.own_open - len(self._permits))
        for hold in picture.holds:
            self._holds.impose(Hold(self._at(hold.until, now), hold.reason, hold.kind))
        self._not_before = max(self._not_before, self._at(not_before_ms, now))

    def impose(self, hold: Hold) -> None:
        """Take over a hold from another worker."""
        self._holds.impose(hold)

    def lift(self) -> None:
        """End the hold, and what led to it."""
        self._holds.lift()
        self._breaker = Breaker()

    @property
    def shared(self) -> bool:
        """Whether others than this limiter use the key, as far as is known."""
        return self._strangers > 0 or self.dimensions.shared

    @property
    def hold(self) -> Hold | None:
        """The last hold, whether or not it still stands."""
        return self._holds.hold

    # -- what is to come ----------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many stand in line, kept places included."""
        return len(self._waiters)

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
        return self._forecast(len(self._waiters) + 1, self._waiting_charge().plus(self._typical()), now)

    def headroom(self, now: float, horizon: float) -> int | None:
        """Return how many more calls like the recent ones would be admitted within `horizon` seconds; None: any number.

        Those that wait already are taken off; the one whose place is kept and who is due back counts as one more to be let in.
        """
        at = now + horizon
        hold = self._holds.standing(now)
        if hold is not None and hold.until > at:
            return 0
        rooms = self.dimensions.places(self._waiting_charge(), self._typical(), at, now)
        if (slots := self._slots(now)) is not None:
            turnover = 0 if not self._typical_seconds else math.floor(slots * horizon / self._typical_seconds)
            rooms.append(slots - self._in_flight() + turnover - len(self._waiters))
        if self._breaker.tripped:
            rooms.append(1 - len(self._waiters) - (self._probe is not None))
        due_back = sum(waiter.owner is None and waiter.since <= now for waiter in self._waiters)
        return max(0, min(rooms)) + due_back if rooms else None

    # -- what people ask ----------------------------------------------------------------------------------------------------

    def kind(self, now: float) -> str:
        """Return the kind of the hold that stands; without one it is the limits, or others' calls, that one waits for: rate, or breaker."""
        hold = self._holds.standing(now)
        return hold.kind if hold is not None else "breaker" if self._breaker.tripped else "rate"

    def reason(self, now: float) -> str:
        """Return, in words, what keeps the next call waiting."""
        if (hold := self._holds.standing(now)) is not None:
            return f"{self.key}: {hold.reason}"
        charge = self._waiters[0].charge if self._waiters else self._typical()
        if (full := self.dimensions.reason(charge, now)) is not None:
            return f"{self.key}: {full}"
        if not self._slot_free(now):
            return f"{self.key}: {self._in_flight()} of {self._slots(now)} calls are in flight"
        if self._probe is not None:
            return f"{self.key}: one call tries whether the provider works again"
        return f"{self.key}: {len(self._waiters)} calls are ahead"

    def why(self, call: CallRef, now: float) -> str:
        """Return, in words, how a call stands: in flight, or which place in line and what it waits for."""
        if (permit := self._permits.get(call)) is not None:
            return f"{self.key}: in flight for {now - permit.granted_at:.1f} s"
        for ahead, (waiter, at) in enumerate(zip(self._waiters, self._forecasts(now), strict=True)):
            if waiter.call == call:
                when = "when a call ends" if at == math.inf else f"in about {max(0.0, at - now):.1f} s"
                return f"{self.reason(now)}; {ahead} ahead in line; {when}"
        return f"{self.key}: not in line"

    def describe(self, now: float) -> dict[str, Any]:
        """Return how the limits stand, JSON-ready. Times in epoch milliseconds."""
        hold = self._holds.standing(now)
        slots = self._slots(now)
        wall = self.dimensions.wall_ms(now)
        return {
            "key": self.key,
            "account": self.account,
            **self.dimensions.describe(now),
            "concurrency": {
                "limit": slots,
                "used": self._in_flight(),
                "free": None if slots is None else max(0, slots - self._in_flight()),
            },
            "hold": None
            if hold is None
            else {
                "until_ms": wall + math.ceil((hold.until - now) * 1000),
                "reason": hold.reason,
                "kind": hold.kind,
            },
            "waiting": sum(waiter.owner is not None for waiter in self._waiters),
            "places_kept": sum(waiter.owner is None for waiter in self._waiters),
            "line": [
                {"job_id": waiter.call.job_id, "why": self.why(waiter.call, now)}
                for waiter in self._waiters[:LINE_SHOWN]
            ],
        }

    # -- arithmetic ---------------------------------------------------------------------------------------------------------

    def _gate(self, charge: Charge, now: float) -> Gate:
        return Gate(
            key=self.key,
            account=self.account,
            granted_ms=self.dimensions.wall_ms(now),
            charge=charge,
            minute=self.dimensions.minute(now),
            day=self.dimensions.day,
            days=self.dimensions.days_charged(now),
            days_end_ms=self.dimensions.days_end_ms(now),
            concurrency=self._slots(now),
            window_ms=self._window_ms,
            delivery_ms=self._delivery_ms,
        )

    def _foreseen(self, charge: Charge, assumed_output: int) -> Charge:
        """The charge with a guessed output replaced by what answers took lately."""
        if not assumed_output or self._typical_output is None:
            return charge
        output = math.ceil(self._typical_output * OUTPUT_MARGIN)
        if charge.total == max(charge.input, charge.output):  # as OpenAI charges
            return charge._replace(output=output, total=max(charge.input, output))
        return charge._replace(output=output, total=charge.total - charge.output + output)

    def _admissible(self, charge: Charge, now: float) -> bool:
        return (
            self._holds.standing(now) is None
            and now >= self._not_before
            and not (self._breaker.tripped and self._probe is not None)
            and self._slot_free(now)
            and self.dimensions.fits(charge, now)
        )

    def _in_flight(self) -> int:
        return len(self._permits) + self._strangers

    def _slots(self, now: float) -> int | None:
        """How many calls may be open. A refusal lowers them only where nothing else is limited: else it is not they that were exceeded."""
        return (
            self._concurrency
            if self.dimensions.limited_per_minute
            else scaled(self._concurrency, self.dimensions.factor(now))
        )

    def _slot_free(self, now: float) -> bool:
        slots = self._slots(now)
        return slots is None or self._in_flight() < slots

    def _forecasts(self, now: float) -> Iterable[float]:
        """When each in line would be admitted: by then there is room for it and for all ahead of it."""
        charges = accumulate((self.dimensions.clamped(waiter.charge) for waiter in self._waiters), Charge.plus)
        return (self._forecast(place, total, now) for place, total in enumerate(charges, start=1))

    def _forecast(self, calls: int, charge: Charge, now: float) -> float:
        hold = self._holds.standing(now)
        return max(
            now if hold is None else hold.until,
            self._not_before,
            self.dimensions.earliest(charge, now),
            self._slot_at(calls, now),
        )

    def _slot_at(self, place: int, now: float) -> float:
        slots = self._slots(now)
        if slots is None:
            return now
        short = self._in_flight() + place - slots
        if short <= 0:
            return now
        if self._typical_seconds is None:
            return math.inf
        return now + short * self._typical_seconds / slots

    def _waiting_charge(self) -> Charge:
        total = NOTHING
        for waiter in self._waiters:
            total = total.plus(self.dimensions.clamped(waiter.charge))
        return total

    def _typical(self) -> Charge:
        """What a call like the recent ones is charged."""
        found = self._typical_charge or (1.0, 1.0, 1.0, 1.0)
        return self.dimensions.clamped(Charge(*(max(1, math.ceil(amount)) for amount in found)))

    def _at(self, wall_ms: int, now: float) -> float:
        return now + (wall_ms - self.dimensions.wall_ms(now)) / 1000


def _average(average: float | None, sample: float) -> float:
    return float(sample) if average is None else average + WEIGHT * (sample - average)


def _averages(averages: tuple[float, ...] | None, samples: Charge) -> tuple[float, ...]:
    if averages is None:
        return tuple(float(sample) for sample in samples)
    return tuple(_average(average, sample) for average, sample in zip(averages, samples, strict=True))


def _void(other: CallRef, other_owner: str | None, call: CallRef, owner: str) -> bool:
    """Whether a reservation is void now that `owner` reserves for `call`. A kept place is for a later lease of its job, so it is not."""
    if other_owner is None:
        return False
    return (
        other.lease != call.lease if other_owner == owner else other.job_id == call.job_id and other.epoch < call.epoch
    )
