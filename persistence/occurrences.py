"""When a schedule is due: cron expressions in a time zone, and intervals. Pure; the cron library is loaded only when one is asked for.

Days on which the clocks change follow Debian's cron: what is due in the hour that is left out runs right after it, what is due in the hour that
comes twice runs once, and expressions that name every hour (`*`) go by real time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from .errors import InvalidJobError

# How far back to look for the newest occurrence: what recurs often is found in the first, without counting all since then.
_SPANS = (60_000, 3_600_000, 86_400_000, 40 * 86_400_000, 400 * 86_400_000)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When something recurs: a cron expression of 5 fields (6: with seconds first) in a time zone, or every so many milliseconds."""

    cron: str | None
    every_ms: int | None
    timezone: str = "UTC"

    def following(self, after: int, anchor: int) -> int:
        """The first occurrence after a time (epoch milliseconds). `anchor`: any one occurrence, by which an interval is counted.

        Raises InvalidJobError for an expression or a zone that is none, or an expression that never comes true.
        """
        if self.every_ms is not None:
            return anchor - (anchor - after - 1) // self.every_ms * self.every_ms
        try:
            return next(self._cron_after(after))
        except StopIteration:
            raise InvalidJobError("cron", f"is never due: {self.cron!r}") from None

    def latest(self, first: int, now: int) -> int:
        """The newest occurrence up to `now`, where `first` is one that is due."""
        if self.every_ms is not None:
            return first + (now - first) // self.every_ms * self.every_ms
        for span in _SPANS:
            if now - span < first:
                break
            if (found := self._last(self._cron_after(now - span), now)) is not None:
                return found
        return self._last(self._cron_after(first), now) or first

    def due(self, first: int, now: int, limit: int) -> list[int]:
        """The occurrences from `first` up to `now`, `limit` at most."""
        found = [first]
        while len(found) < limit and (at := self.following(found[-1], first)) <= now:
            found.append(at)
        return found

    @staticmethod
    def _last(occurrences: Iterator[int], now: int) -> int | None:
        newest = None
        for at in occurrences:
            if at > now:
                break
            newest = at
        return newest

    def _cron_after(self, after: int) -> Iterator[int]:
        from cronsim import CronSim, CronSimError

        start = datetime.fromtimestamp(after // 1000, self._zone())
        try:
            occurrences = CronSim(str(self.cron), start)
        except CronSimError as error:
            raise InvalidJobError("cron", f"is not a cron expression: {self.cron!r} ({error})") from error
        for occurrence in occurrences:
            at = round(occurrence.timestamp() * 1000)
            if at > after:  # in the hour that comes twice the library begins with the first of the two
                yield at

    def _zone(self) -> tzinfo:
        if self.timezone == "UTC":
            return UTC
        from zoneinfo import ZoneInfo

        try:
            return ZoneInfo(self.timezone)
        except (LookupError, ValueError, OSError) as error:
            raise InvalidJobError(
                "timezone", f"is not a time zone this machine knows: {self.timezone!r}; write it like 'Europe/Berlin'"
            ) from error
