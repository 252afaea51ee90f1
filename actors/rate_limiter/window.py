"""One limit of so much per window, kept so that the server never counts more, whatever the network does to our requests.

**What is promised.** A charge is made when its call is granted, at `g`. The server counts the call later, at some `a` that we never
see, but which is bounded: `g <= a <= latest`, where `latest` is the moment a reply was seen to begin or the call was settled, and
never more than `g + max_delivery`. The charge is held until `latest + window`, and a new one is made only if everything held, itself
included, is within the limit. Then:

1. *No sliding window of the server holds more than the limit.* Take any span shorter than `window` on the server's clock, and among
   the calls counted in it the one granted last, at `g`, counted at `a >= g`. Any other call in the span was counted at `a' > a - window`,
   so `latest' + window >= a' + window > a >= g`: it was still held when the last one was granted. All of them were held together at
   that moment, hence their sum is within the limit.
2. *A token bucket of the same limit is never overdrawn.* A bucket of capacity L refilled at L per window refuses only if in some span
   of length d more than `L + d/window * L` is counted. Such a span is covered by `floor(d/window) + 1` spans of the first kind, which
   hold at most `L * (floor(d/window) + 1) <= L + d/window * L`.

Both need two things from outside: that a charge is at least what the server counts (a reserve is an estimate; `settle` corrects it),
and that a granted call is counted within `max_delivery` or begins to be answered before that.

**What it costs.** A charge is held for `window` plus the delivery that could not be ruled out, plus rounding up to a slot: with the
defaults at most 61.13 s for a minute's limit, which is 98.1 % of it under saturation.

Charges with the same expiry slot are added up, so the memory is bounded by the slots of two windows (1,600 at most), at any rate. The
slots are those of the database (`limit_rules`), where all workers add up theirs: what others were charged stands beside our own.

Pure arithmetic: no clock (every `now` is seconds on one clock that never runs backwards), no thread, no I/O.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ...persistence.limit_rules import slot_seconds

WINDOW = 60.0
"""Seconds of the window that a limit "per minute" is counted in."""

MAX_DELIVERY = 1.0
"""Seconds after its grant by which a call has been counted by the server, or never will be."""


@dataclass(slots=True)
class Entry:
    """One charge in a window: hand it back to settle it. The fields belong to the window."""

    amount: int
    slot: int


class Window:
    """The charges of one dimension. `limit` None means that nothing is refused, while everything is still counted."""

    def __init__(self, limit: int | None, *, window: float = WINDOW, max_delivery: float = MAX_DELIVERY) -> None:
        self._window = window
        self._max_delivery = max_delivery
        self._slot = slot_seconds(window)
        self._tick = 0
        self._held: dict[int, int] = {}
        self._used = 0
        self._others: dict[int, int] = {}
        self._used_by_others = 0
        self._lapsed: deque[tuple[int, int]] = deque()
        self._foreign = 0.0
        self._foreign_at = 0.0
        self.limit = limit

    def add(self, amount: int, now: float) -> Entry:
        """Charge `amount` at its grant, whether or not it fits."""
        self._advance(now)
        entry = Entry(amount, self._expiry(now + self._max_delivery))
        self._hold(entry.slot, amount)
        return entry

    def counted(self, entry: Entry, now: float) -> None:
        """Note that the server has counted this charge by now: it need not be held for a delivery that is over."""
        self.settle(entry, entry.amount, now)

    def settle(self, entry: Entry, amount: int, now: float) -> None:
        """Replace a charge by what it really was (0: it was never counted). Once per entry.

        What goes beyond the charge is held from now: there is no saying when the server counted it.
        """
        if not amount and not entry.amount:
            return
        self._advance(now)
        counted_now = self._expiry(now)
        if entry.slot > self._tick:
            if amount == entry.amount and entry.slot <= counted_now:
                return  # it was counted before, and was charged what it took
            self._hold(entry.slot, -entry.amount)
            entry.slot = min(entry.slot, counted_now)
            self._hold(entry.slot, min(amount, entry.amount))
        if amount > entry.amount:
            self._hold(counted_now, amount - entry.amount)

    def adopt(self, charges: Iterable[tuple[float, int]], now: float) -> None:
        """Hold what an earlier life of the limiter was charged, as (when it lapses, amount)."""
        self._advance(now)
        for slot, amount in self._slots(charges):
            self._hold(slot, amount)

    def learn(self, others: Iterable[tuple[float, int]], own: Iterable[tuple[float, int]], now: float) -> None:
        """Take over what the database says of other workers' charges, and of our own, as (when it lapses, amount); the last word on both.

        What is on record as ours but not known here (an earlier life granted it) counts as others' too. What a reply's headers showed of
        others is not counted twice.
        """
        self._advance(now)
        before = self._used_by_others
        self._others = {}
        for slot, amount in self._slots(others):
            self._others[slot] = self._others.get(slot, 0) + amount
        for slot, amount in self._slots(own):
            if (unknown := amount - self._held.get(slot, 0)) > 0:
                self._others[slot] = self._others.get(slot, 0) + unknown
        self._used_by_others = sum(self._others.values())
        if self._foreign:
            left = self._foreign_left(now)
            self._foreign, self._foreign_at = max(0.0, left - max(0, self._used_by_others - before)), now

    @property
    def shared(self) -> bool:
        """Whether others are known to have charged it."""
        return bool(self._others)

    def observe(self, remaining: int, younger: int, since: float, now: float) -> None:
        """Take note of what the server said it had left, in the reply to a call granted at `since`.

        What it counts beyond our own charges was used by others under the same limit. That drains as a bucket refills: at the limit per
        window. `younger` is what was granted after the reply, and cannot be in it. The server may have looked at any moment between
        the grant and the reply, so every charge that was held at any of them is taken for ours: usage by others is never made up.
        """
        if self.limit is None:
            return
        self._advance(now)
        ours = (
            self._used
            + self._used_by_others
            - younger
            + sum(amount for slot, amount in self._lapsed if slot * self._slot > since)
        )
        foreign = self.limit - max(0, remaining) - ours
        if foreign > self._foreign_left(now):
            self._foreign, self._foreign_at = float(foreign), now

    def used(self, now: float) -> int:
        """Return what counts against the limit now: our own charges, those of other workers, and what strangers were seen to use."""
        self._advance(now)
        return self._used + self._used_by_others + math.ceil(self._foreign_left(now))

    def free(self, now: float) -> int | None:
        """Return what is left now, None when there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.used(now))

    def free_at(self, at: float, now: float) -> int | None:
        """Return what will be left at a later time if nothing is charged until then, None when there is no limit."""
        if self.limit is None:
            return None
        self._advance(now)
        last = math.floor(at / self._slot)
        still_held = sum(amount for held in (self._held, self._others) for slot, amount in held.items() if slot > last)
        return max(0, self.limit - still_held - math.ceil(self._foreign_left(at)))

    def fits(self, amount: int, now: float) -> bool:
        """Return whether `amount` may be charged now. One larger than the limit fits when nothing else is held."""
        return self.limit is None or self.used(now) + min(amount, self.limit) <= self.limit

    def earliest(self, amount: int, now: float) -> float:
        """Return when `amount` would fit if nothing else were charged until then: `now`, or later.

        An amount of several limits (the sum of many calls) takes a whole window for each of them: an estimate, not a promise.
        """
        if self.limit is None:
            return now
        whole = (amount - 1) // self.limit if amount > self.limit else 0
        return self._earliest(amount - whole * self.limit, now) + whole * (self._window + self._max_delivery)

    def next_expiry(self, now: float) -> float | None:
        """Return when the next of the charges lapses, None when none is held."""
        self._advance(now)
        return min([*self._held, *self._others]) * self._slot if self._held or self._others else None

    def __len__(self) -> int:
        """Return the number of slots in use, which bounds the memory."""
        return len(self._held) + len(self._others) + len(self._lapsed)

    def _earliest(self, amount: int, now: float) -> float:
        limit = self.limit
        assert limit is not None
        self._advance(now)
        own = self._used + self._used_by_others
        at = now
        for slot in [*sorted(self._held.keys() | self._others.keys()), None]:
            # Between two expiries only the use of strangers drains, steadily.
            room = limit - amount - own
            if room >= 0:
                drained = at + max(0.0, self._foreign_left(at) - room) * self._window / limit
                if slot is None or drained < slot * self._slot:
                    return drained
            assert slot is not None
            own -= self._held.get(slot, 0) + self._others.get(slot, 0)
            at = slot * self._slot
        raise AssertionError  # pragma: no cover - with nothing held, an amount within the limit fits once others have drained

    def _foreign_left(self, now: float) -> float:
        if not self._foreign or self.limit is None:
            return 0.0
        return max(0.0, self._foreign - (now - self._foreign_at) * self.limit / self._window)

    def _expiry(self, latest: float) -> int:
        return math.ceil((latest + self._window) / self._slot)

    def _slots(self, charges: Iterable[tuple[float, int]]) -> list[tuple[int, int]]:
        # The instants come from another clock, to the millisecond: a hair after the slot's end is its end.
        hair = min(0.002, self._slot / 4)
        found = [(math.ceil((lapses_at - hair) / self._slot), amount) for lapses_at, amount in charges]
        return [(slot, amount) for slot, amount in found if slot > self._tick]

    def _hold(self, slot: int, amount: int) -> None:
        self._used += amount
        held = self._held.get(slot, 0) + amount
        if held:
            self._held[slot] = held
        else:
            self._held.pop(slot, None)

    def _advance(self, now: float) -> None:
        tick = math.floor(now / self._slot)
        if tick <= self._tick:
            return
        self._tick = tick
        for slot in sorted(slot for slot in self._held if slot <= tick):
            amount = self._held.pop(slot)
            self._used -= amount
            self._lapsed.append((slot, amount))
        for slot in sorted(slot for slot in self._others if slot <= tick):
            amount = self._others.pop(slot)
            self._used_by_others -= amount
            self._lapsed.append((slot, amount))
        # Replies that take longer than a window to begin are not worth remembering for.
        while self._lapsed and (tick - self._lapsed[0][0]) * self._slot > self._window:
            self._lapsed.popleft()
