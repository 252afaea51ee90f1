"""Limits per calendar day, in the time zone that the provider counts in (pure).

A day is from midnight to midnight there: 23 or 25 hours when clocks change. A call that is granted just before midnight may be counted after
it, so it is charged to both days. What earlier lives and other workers used comes from the database.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

from ...persistence.limit_rules import NOTHING, Ceiling, Charge, room
from ...persistence.limits import Day


class Calendar:
    """The days of a time zone, which `LimitSettings` has checked, as epoch milliseconds."""

    def __init__(self, timezone: str) -> None:
        self._zone = _zone(timezone)
        self._known = (0, 0)

    def day_of(self, at_ms: int) -> tuple[int, int]:
        """When the day of this moment began, and when it ends."""
        if not self._known[0] <= at_ms < self._known[1]:
            midnight = datetime.fromtimestamp(at_ms / 1000, self._zone).replace(
                hour=0, minute=0, second=0, microsecond=0, fold=0
            )
            tomorrow = (midnight + timedelta(hours=36)).date()
            end = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=self._zone)
            self._known = _ms(midnight), _ms(end)
        return self._known


class Days:
    """What each day that matters has been charged."""

    def __init__(self, limits: Ceiling, timezone: str) -> None:
        self.limits = limits
        self._calendar = Calendar(timezone)
        self._own: dict[int, Charge] = {}
        self._others: dict[int, Charge] = {}

    def charged(self, now_ms: int, delivery_ms: int) -> tuple[int, ...]:
        """The days that a call granted now may be counted in, by their beginning."""
        today, _ = self._calendar.day_of(now_ms)
        later, _ = self._calendar.day_of(now_ms + delivery_ms)
        return (today,) if later == today else (today, later)

    def ends(self, day_ms: int) -> int:
        """When a day ends, by its beginning."""
        return self._calendar.day_of(day_ms)[1]

    def add(self, days: tuple[int, ...], charge: Charge, sign: int = 1) -> None:
        """Charge days, or with `sign` -1 take a charge back."""
        for day in days:
            self._own[day] = self._own.get(day, NOTHING).plus(charge, sign)
        for old in [day for day in self._own if days and day < days[0] - 3 * 86_400_000]:
            del self._own[old]

    def learn(self, day: Day, *, own: bool) -> None:
        """Take over what others used on a day, and with `own` what an earlier life of this limiter did."""
        self._others[day.day_ms] = day.others
        if own:
            self._own[day.day_ms] = day.own

    def used(self, day_ms: int) -> Charge:
        """What a day has been charged in all."""
        return self._own.get(day_ms, NOTHING).plus(self._others.get(day_ms, NOTHING))

    def full(self, charge: Charge, now_ms: int, delivery_ms: int) -> tuple[int, int, int] | None:
        """The place of the dimension, the limit and the day's end (epoch ms) that keep a charge waiting; None if it fits."""
        for day in reversed(self.charged(now_ms, delivery_ms)):
            used = self.used(day)
            for place, limit in enumerate(self.limits):
                if limit is not None and not room(used[place], charge[place], limit):
                    return place, limit, self.ends(day)
        return None


@lru_cache(maxsize=16)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
