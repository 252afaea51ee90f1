"""The values of reply headers: durations, instants, waits. Pure; everything a server says is clamped, and nonsense is None."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo

MAX_WAIT = 24 * 3600.0
"""Seconds; the longest wait or reset that a header is believed. Longer ones (`inf` parses as a number) are cut to it."""

_GO_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(h|ms|us|µs|μs|ns|m|s)")
_GO_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_HTTP_DATE = re.compile(r"\w{3}, (\d{2}) (\w{3}) (\d{4}) (\d{2}):(\d{2}):(\d{2})")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def seconds(text: str | None, *, per_second: float = 1.0) -> float | None:
    """Return a plain number as seconds, between 0 and MAX_WAIT; None if it is absent, negative or no number.

    `per_second`: how many of the text's units make a second (1000 for milliseconds).
    """
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return min(value / per_second, MAX_WAIT) if value >= 0 else None  # NaN compares as False, so it is None too


def go_duration(text: str | None) -> float | None:
    """Return the seconds in a Go duration (`6m0s`, `12ms`, or a bare number of seconds); None where unknown (empty, `-1`, nonsense)."""
    if not text:
        return None
    stripped = text.strip()
    parts = _GO_PART.findall(stripped)
    if parts and "".join(number + unit for number, unit in parts) == stripped:
        return min(sum(float(number) * _GO_SECONDS[unit] for number, unit in parts), MAX_WAIT)
    return seconds(stripped)


def until_instant(text: str | None, at_ms: int) -> float | None:
    """Return the seconds from `at_ms` until an RFC 3339 instant, between 0 and MAX_WAIT; None if it is absent or nonsense."""
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return min(max(instant.timestamp() - at_ms / 1000, 0.0), MAX_WAIT)


def count(text: str | None) -> int | None:
    """Return a whole number of 0 or more; None if it is absent, negative (`-1` means unknown) or no number."""
    value = text.strip() if text else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 15 else None


def http_date_ms(text: str | None) -> int | None:
    """Return epoch milliseconds of an HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`); None if it is absent or nonsense."""
    found = _HTTP_DATE.match(text.strip()) if text else None
    if found is None or found[2].lower() not in _MONTHS:
        return None
    try:
        moment = datetime(
            int(found[3]),
            _MONTHS.index(found[2].lower()) + 1,
            int(found[1]),
            int(found[4]),
            int(found[5]),
            int(found[6]),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return int(moment.timestamp() * 1000)


def retry_after(headers: Mapping[str, str], at_ms: int) -> float | None:
    """Return the seconds to wait that the reply names: `retry-after-ms` first, then `retry-after` (seconds or an HTTP date).

    A date is counted from the reply's own `date`, whose clock it was made with, or else from `at_ms`.
    """
    precise = seconds(headers.get("retry-after-ms"), per_second=1000.0)
    if precise is not None:
        return precise
    text = headers.get("retry-after")
    plain = seconds(text)
    if plain is not None:
        return plain
    until = http_date_ms(text)
    if until is None:
        return None
    now = http_date_ms(headers.get("date"))
    return min(max((until - (at_ms if now is None else now)) / 1000, 0.0), MAX_WAIT)


def until_pacific_midnight(at_ms: int) -> float:
    """Return the seconds from `at_ms` until the next midnight in Los Angeles, when Google's daily quotas are full again.

    Where there is no time zone data, it is the midnight of standard time, which in summer is an hour late and so never too early.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # rarely needed

    try:
        zone: tzinfo = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:
        zone = timezone(timedelta(hours=-8))
    now = datetime.fromtimestamp(at_ms / 1000, zone)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0) + timedelta(days=1)  # wall time
    return midnight.timestamp() - at_ms / 1000


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what `x-should-retry` says; None when it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())
