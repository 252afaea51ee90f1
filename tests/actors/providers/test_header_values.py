from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.header_values import (
    MAX_WAIT,
    count,
    go_duration,
    http_date_ms,
    retry_after,
    seconds,
    should_retry,
    until_instant,
    until_pacific_midnight,
)

NOW = 1_790_000_000_000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("7", 7.0),
        ("1h2m3.5s", 3723.5),
        ("500us", 0.0005),
        ("1\u00b5s", 1e-6),
        ("0s", 0.0),
        ("99999h", MAX_WAIT),
        ("inf", MAX_WAIT),
        ("-1", None),
        ("-1s", None),
        ("", None),
        (None, None),
        ("nan", None),
        ("soon", None),
        ("6m 0s", None),
    ],
)
def test_go_durations(text, value):
    assert go_duration(text) == pytest.approx(value) if value is not None else go_duration(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-09-21T14:13:25Z", 5.0),
        ("2026-09-21T14:13:25.500+00:00", 5.5),
        ("2026-09-21T16:13:25+02:00", 5.0),
        ("2020-01-01T00:00:00Z", 0.0),
        ("9999-01-01T00:00:00Z", MAX_WAIT),
        ("tomorrow", None),
        ("", None),
        (None, None),
    ],
)
def test_instants(text, value):
    assert until_instant(text, NOW) == value


def test_counts():
    assert [count(text) for text in ("10", " 0 ", "-1", "", None, "1.5", "x", "9" * 30)] == [
        10,
        0,
        None,
        None,
        None,
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "120000"}, 120.0),
        ({"retry-after": "7", "retry-after-ms": "x"}, 7.0),
        ({"retry-after": "inf"}, MAX_WAIT),
        ({"retry-after": "1e300"}, MAX_WAIT),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:30 GMT"}, 10.0),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:30 GMT", "date": "Mon, 21 Sep 2026 14:13:00 GMT"}, 30.0),
        ({"retry-after": "Mon, 21 Sep 2020 14:13:30 GMT"}, 0.0),
        ({"retry-after": "later"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, value):
    assert retry_after(headers, NOW) == value


def test_http_dates():
    assert http_date_ms("Sun, 06 Nov 1994 08:49:37 GMT") == 784_111_777_000
    assert http_date_ms("Sunday, 06-Nov-94 08:49:37 GMT") is None  # a form nobody has sent since 1999
    assert http_date_ms("Sun, 66 Nov 1994 08:49:37 GMT") is None
    assert http_date_ms("Sun, 06 Foo 1994 08:49:37 GMT") is None


def test_should_retry():
    assert [should_retry({"x-should-retry": text}) for text in ("true", "FALSE", "maybe")] == [True, False, None]
    assert should_retry({}) is None


@given(st.text(max_size=40))
def test_nothing_a_server_says_raises_or_escapes_the_clamp(text):
    for value in (
        go_duration(text),
        seconds(text),
        until_instant(text, NOW),
        retry_after({"retry-after": text, "date": text}, NOW),
    ):
        assert value is None or 0 <= value <= MAX_WAIT
    count(text)


@pytest.mark.parametrize(
    ("now", "hours"),
    [
        ("2026-01-15T08:00:00+00:00", 24),  # midnight itself, in winter
        ("2026-07-15T06:59:00+00:00", 1 / 60),
        ("2026-07-15T12:00:00+00:00", 19),
        ("2026-03-08T08:00:00+00:00", 23),  # the day that summer time begins
        ("2026-11-01T07:00:00+00:00", 25),  # and the one that it ends
        ("2026-11-01T09:30:00+00:00", 22.5),  # the hour that comes twice
    ],
)
def test_midnight_in_los_angeles(now, hours):
    at_ms = int(datetime.fromisoformat(now).timestamp() * 1000)
    assert until_pacific_midnight(at_ms) == pytest.approx(hours * 3600)
