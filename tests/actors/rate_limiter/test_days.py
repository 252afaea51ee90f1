"""Calendar days in the provider's time zone, across midnight and when clocks change."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from callboard.actors.rate_limiter.days import Calendar, Days
from callboard.actors.settings import LimitSettings
from callboard.persistence.limit_rules import NOTHING, Charge
from callboard.persistence.limits import Day

PACIFIC = "America/Los_Angeles"
HOUR = 3_600_000


def at(text, zone=PACIFIC):
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("moment", "began", "hours"),
    [
        ("2026-11-22T00:00:00", "2026-11-22T00:00:00", 24),
        ("2026-11-22T23:59:59", "2026-11-22T00:00:00", 24),
        ("2026-03-08T12:00:00", "2026-03-08T00:00:00", 23),
        ("2026-11-01T00:30:00", "2026-11-01T00:00:00", 25),
        ("2026-11-01T23:30:00", "2026-11-01T00:00:00", 25),
    ],
    ids=["its first moment", "its last second", "clocks go forward", "clocks go back", "after clocks went back"],
)
def test_a_day_is_from_midnight_to_midnight(moment, began, hours):
    start, end = Calendar(PACIFIC).day_of(at(moment))
    assert (start, end - start) == (at(began), hours * HOUR)


def test_days_follow_each_other_without_a_gap_all_year():
    for zone in (PACIFIC, "UTC", "Australia/Lord_Howe", "America/Santiago"):
        calendar = Calendar(zone)
        moment = round(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp() * 1000)
        _, before = calendar.day_of(moment)
        for _ in range(366):
            start, end = calendar.day_of(before)
            assert start == before
            assert 23 * HOUR <= end - start <= 25 * HOUR
            assert calendar.day_of(end - 1) == (start, end)
            before = end


def test_a_call_just_before_midnight_is_charged_to_both_days():
    days = Days((10, None, None, None), PACIFIC)
    midnight = at("2026-11-22T00:00:00")
    assert days.charged(midnight - 1001, 1000) == (at("2026-11-21T00:00:00"),)
    both = days.charged(midnight - 400, 1000)
    assert both == (at("2026-11-21T00:00:00"), midnight)
    days.add(both, Charge(4))
    assert days.used(midnight).requests == 4


def test_the_next_day_begins_empty_and_says_when_it_ends():
    days = Days((2, None, None, None), PACIFIC)
    noon, midnight = at("2026-10-31T12:00:00"), at("2026-11-01T00:00:00")
    days.add(days.charged(noon, 1000), Charge(2))
    assert days.full(Charge(), noon, 1000) == (0, 2, midnight)
    assert days.full(Charge(), midnight, 1000) is None
    days.add(days.charged(midnight, 1000), Charge(2))
    assert days.full(Charge(), midnight, 1000) == (0, 2, midnight + 25 * HOUR)


def test_others_and_earlier_lives_count():
    days = Days((None, 9, None, None), "UTC")
    days.learn(Day(0, Charge(1, 3), Charge(1, 4)), own=True)
    assert days.used(0) == Charge(2, 7)
    days.learn(Day(0, Charge(1, 100), Charge(1, 5)), own=False)
    assert days.used(0) == Charge(2, 8)
    assert days.full(Charge(1, 2), 5, 0) == (1, 9, 24 * HOUR)
    assert days.full(Charge(1, 1), 5, 0) is None


def test_old_days_are_forgotten():
    days = Days((9, None, None, None), "UTC")
    for day in range(30):
        days.add((day * 24 * HOUR,), Charge())
    assert days.used(0) == NOTHING
    assert len(days._own) <= 5


def test_a_time_zone_that_nobody_knows_is_refused_with_the_configuration():
    with pytest.raises(ValueError, match="timezone 'Mars/Olympus' is not known: give an IANA name"):
        LimitSettings(requests_per_day=1, timezone="Mars/Olympus")
