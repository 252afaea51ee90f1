"""Everything of a key that is counted, as one: requests, input, output and total tokens, per minute and per day (pure).

A charge is made in all dimensions or in none. The limits themselves move: a provider's headers may say less than the configuration, a
refusal lowers them for a while, a new key may be warmed up. Times are seconds on the limiter's clock; `wall_shift_ms` leads from it to the
calendar.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...persistence.limit_rules import DIMENSIONS, UNLIMITED, Ceiling, Charge, factor_at, lowered, scaled
from ...persistence.limits import Picture, Slot
from ..providers.model import LimitSnapshot
from ..settings import LimitSettings
from .days import Days
from .window import Entry, Window

WARM_UP_FROM = 0.5
WARM_UP_BY = 1.5
WARM_UP_EVERY_MS = 15 * 60_000
"""A warm-up begins at half of the minute's limits, and grows by half of what it is every quarter of an hour (reference B.4)."""


class Charged(NamedTuple):
    """A charge that was made: by which it is settled."""

    amount: Charge
    entries: tuple[Entry, ...]
    days: tuple[int, ...]


class Dimensions:
    """The counts and limits of one key."""

    def __init__(self, limits: LimitSettings, *, window: float, max_delivery: float) -> None:
        self.window_seconds = window
        self.wall_shift_ms = 0
        self._delivery_ms = round(max_delivery * 1000)
        self._configured: Ceiling = (
            limits.requests_per_minute,
            limits.input_tokens_per_minute,
            limits.output_tokens_per_minute,
            limits.tokens_per_minute,
        )
        self._base: list[int | None] = list(self._configured)
        self._windows = tuple(Window(limit, window=window, max_delivery=max_delivery) for limit in self._configured)
        by_day: Ceiling = (
            limits.requests_per_day,
            limits.input_tokens_per_day,
            limits.output_tokens_per_day,
            limits.tokens_per_day,
        )
        self._days = None if by_day == UNLIMITED else Days(by_day, limits.timezone)
        self._warm_up = limits.warm_up
        self._first_used_ms: int | None = None
        self._factor, self._factor_ms = 1.0, 0

    # -- limits that move ---------------------------------------------------------------------------------------------------

    def refresh(self, now: float) -> None:
        """Bring the limits up to now."""
        if self._factor < 1 or self._warm_up:
            factor = self.factor(now)
            for window, limit in zip(self._windows, self.minute(now), strict=True):
                window.limit = scaled(limit, factor)
            if factor >= 1:
                self._factor = 1.0

    def factor(self, now: float) -> float:
        """How far the limits are lowered after refusals; 1 is not at all."""
        return factor_at(self._factor, self._factor_ms, self.wall_ms(now))

    def lower(self, now: float) -> None:
        """Lower the limits after a refusal, unless that was done a moment ago."""
        self._factor, self._factor_ms = lowered(self._factor, self._factor_ms, self.wall_ms(now))
        self.refresh(now)

    def set_factor(self, factor: float, since_ms: int, now: float) -> None:
        """Take over how far the limits are lowered from the database, whose word it is."""
        self._factor, self._factor_ms = factor, since_ms
        for window, limit in zip(self._windows, self.minute(now), strict=True):
            window.limit = limit
        self.refresh(now)

    def minute(self, now: float) -> Ceiling:
        """The limits per minute before any lowering after refusals: as configured, as headers say, warmed up."""
        base = tuple(self._base)
        if self._warm_up and self._first_used_ms is not None:
            grown = (self.wall_ms(now) - self._first_used_ms) / WARM_UP_EVERY_MS
            warmth = min(1.0, WARM_UP_FROM * WARM_UP_BY ** min(max(grown, 0.0), 10.0))
            base = tuple(scaled(limit, warmth) for limit in base)
        return base[0], base[1], base[2], base[3]

    @property
    def day(self) -> Ceiling:
        """The limits per day."""
        return UNLIMITED if self._days is None else self._days.limits

    @property
    def limited_per_minute(self) -> bool:
        """Whether any limit per minute is known."""
        return any(limit is not None for limit in self._base)

    # -- charges --------------------------------------------------------------------------------------------------------------

    def fits(self, charge: Charge, now: float) -> bool:
        """Whether every dimension has room."""
        if not all(window.fits(amount, now) for window, amount in zip(self._windows, charge, strict=True)):
            return False
        return self._days is None or self._days.full(charge, self.wall_ms(now), self._delivery_ms) is None

    def add(self, charge: Charge, now: float) -> Charged:
        """Charge a call that is granted."""
        days = self.days_charged(now)
        if self._days is not None:
            self._days.add(days, charge)
        entries = tuple(window.add(amount, now) for window, amount in zip(self._windows, charge, strict=True))
        return Charged(charge, entries, days)

    def counted(self, charged: Charged, now: float) -> None:
        """Note that the provider has counted it by now."""
        for window, entry in zip(self._windows, charged.entries, strict=True):
            window.counted(entry, now)

    def settle(self, charged: Charged, used: Charge, now: float) -> None:
        """Replace a charge by what was really used. Once per charge."""
        for window, entry, amount in zip(self._windows, charged.entries, used, strict=True):
            window.settle(entry, amount, now)
        if self._days is not None:
            self._days.add(charged.days, used.plus(charged.amount, -1))

    def observe(self, snapshot: LimitSnapshot, younger: Iterable[Charge], granted_at: float | None, now: float) -> None:
        """Take note of a reply's headers. A limit replaces ours, but never above the configured one.

        `younger`: what was granted after the reply; `granted_at`: when its own call was, None if that is not known.
        """
        later = Charge(0)
        for charge in younger:
            later = later.plus(charge)
        told = (
            (snapshot.requests_limit, snapshot.requests_remaining),
            (snapshot.input_limit, snapshot.input_remaining),
            (snapshot.output_limit, snapshot.output_remaining),
            (snapshot.tokens_limit, snapshot.tokens_remaining),
        )
        for place, (limit, remaining) in enumerate(told):
            window, configured = self._windows[place], self._configured[place]
            if limit is not None and limit > 0:
                self._base[place] = limit if configured is None else min(limit, configured)
                window.limit = scaled(self.minute(now)[place], self.factor(now))
            if remaining is not None and granted_at is not None:
                window.observe(remaining, later[place], granted_at, now)

    def learn(self, picture: Picture, now: float, *, first: bool) -> None:
        """Take over what the database says of all workers; with `first` also of what this process did in an earlier life of the limiter."""
        self._first_used_ms = picture.first_used_ms
        self.set_factor(picture.factor, picture.factor_at_ms, now)
        for place, window in enumerate(self._windows):
            own = self._lapses(picture.own, place, now)
            if first:
                window.adopt(own, now)
            window.learn(self._lapses(picture.others, place, now), own, now)
        if self._days is not None:
            for day in picture.days:
                self._days.learn(day, own=first)

    @property
    def shared(self) -> bool:
        """Whether others than this limiter have charged the key lately."""
        return any(window.shared for window in self._windows)

    # -- what is to come --------------------------------------------------------------------------------------------------------

    def clamped(self, charge: Charge) -> Charge:
        """What the line must make room for: a charge above a limit goes when nothing else is held."""
        return Charge(
            *(
                amount if window.limit is None else min(amount, window.limit)
                for window, amount in zip(self._windows, charge, strict=True)
            )
        )

    def large(self, charge: Charge, seconds: float) -> bool:
        """Whether a charge takes more tokens than come free in so many seconds."""
        clamped = self.clamped(charge)
        return any(
            window.limit is not None and amount * self.window_seconds > window.limit * seconds
            for window, amount in list(zip(self._windows, clamped, strict=True))[1:]
        )

    def earliest(self, charge: Charge, now: float) -> float:
        """When a charge (of one call, or the sum of several) would fit if nothing else were charged until then."""
        at = max(window.earliest(amount, now) for window, amount in zip(self._windows, charge, strict=True))
        if self._days is not None:
            full = self._days.full(charge, self.wall_ms(now), self._delivery_ms)
            if full is not None:
                at = max(at, now + (full[2] - self.wall_ms(now)) / 1000)
        return at

    def places(self, waiting: Charge, typical: Charge, at: float, now: float) -> list[int]:
        """How many calls like the recent ones would fit at a later time, after all that wait, in each limited dimension."""
        found = []
        for window, amount, each in zip(self._windows, waiting, typical, strict=True):
            free = window.free_at(at, now)
            if free is not None and each > 0:
                found.append((free - amount) // each)
        if self._days is not None:
            used = self._days.used(self.days_charged(now)[-1])
            for limit, taken, amount, each in zip(self._days.limits, used, waiting, typical, strict=True):
                if limit is not None and each > 0:
                    found.append((limit - taken - amount) // each)
        return found

    def days_charged(self, now: float) -> tuple[int, ...]:
        """The days that a call granted now is charged to, by the epoch ms of their beginning; none without limits per day."""
        return () if self._days is None else self._days.charged(self.wall_ms(now), self._delivery_ms)

    def days_end_ms(self, now: float) -> int:
        """When the last of these days ends."""
        days = self.days_charged(now)
        return 0 if self._days is None else self._days.ends(days[-1])

    def reason(self, charge: Charge, now: float) -> str | None:
        """In words, what has no room for a charge; None if everything has."""
        for place, window in enumerate(self._windows):
            if not window.fits(charge[place], now):
                needs = "" if place == 0 else f", and the next call needs {charge[place]}"
                return f"{window.used(now)} of {window.limit} {named(place)} per minute are used{needs}"
        if self._days is not None:
            full = self._days.full(charge, self.wall_ms(now), self._delivery_ms)
            if full is not None:
                place, limit, _ = full
                used = self._days.used(self.days_charged(now)[-1])[place]
                return f"{used} of {limit} {named(place)} per day are used"
        return None

    def describe(self, now: float) -> dict[str, Any]:
        """How every dimension stands, JSON-ready."""
        minute = {
            name: {
                "limit": window.limit,
                "used": window.used(now),
                "free": window.free(now),
                "next_expiry_ms": self._wall_of(window.next_expiry(now), now),
            }
            for name, window in zip(DIMENSIONS, self._windows, strict=True)
        }
        day: dict[str, Any] = {}
        if self._days is not None:
            today = self.days_charged(now)[0]
            for name, limit, used in zip(DIMENSIONS, self._days.limits, self._days.used(today), strict=True):
                if limit is not None:
                    day[name] = {"limit": limit, "used": used, "free": max(0, limit - used)}
            day = {"began_ms": today, "ends_ms": self._days.ends(today), **day}
        return {"minute": minute, "day": day, "factor": round(self.factor(now), 4)}

    def wall_ms(self, now: float) -> int:
        """The calendar's time for a time on the limiter's clock."""
        return math.floor(now * 1000) + self.wall_shift_ms

    def _wall_of(self, at: float | None, now: float) -> int | None:
        return None if at is None else self.wall_ms(now) + math.ceil((at - now) * 1000)

    def _lapses(self, slots: Sequence[Slot], place: int, now: float) -> list[tuple[float, int]]:
        wall = self.wall_ms(now)
        return [(now + (slot.lapse_ms - wall) / 1000, slot.charge[place]) for slot in slots if slot.charge[place]]


def named(place: int) -> str:
    """A dimension in words."""
    return ("requests", "input tokens", "output tokens", "tokens")[place]
