"""When things recur: on the days the clocks change, after long absences, for intervals."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.persistence.errors import InvalidJobError
from callboard.persistence.occurrences import Rhythm

BERLIN = "Europe/Berlin"


def ms(text, zone=BERLIN, fold=0):
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def utc(at):
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="minutes")[:16]


def series(rhythm, after, count):
    found = []
    while len(found) < count:
        after = rhythm.following(after, after)
        found.append(utc(after))
    return found


def test_working_days_at_nine_in_berlin_follow_the_clocks():
    rhythm = Rhythm("0 9 * * 1-5", None, BERLIN)
    assert series(rhythm, ms("2026-03-27 10:00"), 2) == ["2026-03-30T07:00", "2026-03-31T07:00"], "summer time began"
    assert series(rhythm, ms("2026-10-23 08:00"), 2) == ["2026-10-23T07:00", "2026-10-26T08:00"], "and ended"


def test_what_is_due_in_the_hour_left_out_runs_after_it_once():
    rhythm = Rhythm("30 2 * * *", None, BERLIN)
    assert series(rhythm, ms("2026-03-28 12:00"), 3) == ["2026-03-29T01:00", "2026-03-30T00:30", "2026-03-31T00:30"]


def test_what_is_due_in_the_hour_that_comes_twice_runs_once():
    rhythm = Rhythm("30 2 * * *", None, BERLIN)
    assert series(rhythm, ms("2026-10-24 12:00"), 2) == ["2026-10-25T00:30", "2026-10-26T01:30"]
    between = ms("2026-10-25 02:15", fold=1)
    assert utc(rhythm.following(between, between)) == "2026-10-26T01:30", "its first hour is over, and it ran in it"


def test_every_half_hour_goes_by_real_time_when_clocks_change():
    rhythm = Rhythm("*/30 * * * *", None, BERLIN)
    for day in ("2026-03-29 01:00", "2026-10-25 01:00"):
        found = [rhythm.following(ms(day) + i * 1_800_000, 0) for i in range(8)]
        assert found == [ms(day) + (i + 1) * 1_800_000 for i in range(8)]


@pytest.mark.parametrize(
    "zone",
    [
        BERLIN,
        "Australia/Lord_Howe",  # goes forward by half an hour
        "UTC",
        *(pytest.param(zone, marks=pytest.mark.soak) for zone in ("America/New_York", "America/Sao_Paulo")),
    ],
)
@pytest.mark.parametrize(
    "cron", ["* * * * *", "*/7 * * * *", "15 * * * *", "30 2 * * *", "0 0 1 * *", "0 9 * * 1-5", "0 0 29 2 *"]
)
@given(start=st.integers(0, 3 * 365 * 86400), length=st.integers(0, 400 * 86400))
def test_the_latest_is_the_last_of_all(zone, cron, start, length):
    rhythm = Rhythm(cron, None, zone)
    begin = 1_750_000_000_000 + start * 1000
    first = rhythm.following(begin, begin)
    now = first + min(length, 3 * 86400 if cron.startswith(("*", "15")) else length) * 1000
    found = rhythm.latest(first, now)
    assert first <= found <= now
    assert rhythm.following(found, found) > now
    assert found == first or rhythm.following(found - 1, found - 1) == found


def test_a_year_of_minutes_is_looked_through_at_once():
    rhythm = Rhythm("* * * * *", None)
    first = ms("2025-01-01 00:00", "UTC")
    now = first + int(timedelta(days=365).total_seconds()) * 1000 + 30_000
    assert rhythm.latest(first, now) == now - 30_000
    assert len(rhythm.due(first, now, 100)) == 100


@given(every=st.integers(1000, 10**9), anchor=st.integers(0, 10**13), after=st.integers(0, 10**13))
def test_an_interval_is_a_grid(every, anchor, after):
    rhythm = Rhythm(None, every)
    found = rhythm.following(after, anchor)
    assert after < found <= after + every
    assert (found - anchor) % every == 0
    assert rhythm.latest(found, found + every - 1) == found
    assert rhythm.due(found, found + 2 * every, 9) == [found, found + every, found + 2 * every]


@pytest.mark.parametrize(
    ("rhythm", "field"),
    [
        (Rhythm("nonsense", None), "cron"),
        (Rhythm("61 * * * *", None), "cron"),
        (Rhythm("0 0 30 2 *", None), "cron"),
        (Rhythm("0 0 31 4 */7", None), "cron"),
        (Rhythm("* * * * *", None, "Europe/Atlantis"), "timezone"),
        (Rhythm("* * * * *", None, "../../etc/passwd"), "timezone"),
        (Rhythm("* * * * *", None, ""), "timezone"),
    ],
)
def test_what_is_no_rhythm_is_refused_by_field(rhythm, field):
    with pytest.raises(InvalidJobError) as refused:
        rhythm.following(0, 0)
    assert refused.value.field == field
