import math

from hypothesis import given
from hypothesis import strategies as st

from callboard.simulator.buckets import Limits, TokenBucket, WindowMaximum


def test_a_bucket_refills_continuously():
    bucket = TokenBucket(60, 60.0, now=0.0)
    bucket.take(60, 0.0)
    assert bucket.wait_for(1, 0.0) == 1.0
    assert bucket.level(0.5) == 0.5
    assert bucket.wait_for(1, 1.0) == 0.0
    assert bucket.until_full(30.0) == 30.0
    assert bucket.level(1000.0) == 60.0


def test_a_debt_is_paid_before_anything_is_given():
    bucket = TokenBucket(10, 10.0, now=0.0)
    bucket.take(15, 0.0)
    assert bucket.wait_for(1, 0.0) == 6.0


def test_more_than_the_capacity_never_fits():
    assert math.isinf(TokenBucket(10, 10.0, now=0.0).wait_for(11, 0.0))


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 60)), max_size=60))
def test_no_interval_admits_more_than_a_full_bucket_and_its_refill(capacity, asks):
    bucket = TokenBucket(capacity, 60.0, now=0.0)
    now, taken = 0.0, []
    for gap, amount in asks:
        now += gap
        wait = bucket.wait_for(amount, now)
        if wait == 0.0:
            bucket.take(amount, now)
            taken.append((now, amount))
        elif math.isfinite(wait):
            assert bucket.wait_for(amount, now + wait) == 0.0
    for index, (start, _) in enumerate(taken):
        for end, _ in taken[index:]:
            assert sum(a for t, a in taken if start <= t <= end) <= capacity + capacity / 60 * (end - start) + 1e-3


def test_limits_charge_everything_or_nothing():
    limits = Limits({"requests": 2, "tokens": 100}, None, 60.0, 0.0)
    assert limits.admit({"requests": 1, "tokens": 90}, 0.0) is None
    rejection = limits.admit({"requests": 1, "tokens": 90}, 0.0)
    assert rejection is not None
    assert (rejection.dimension, rejection.remaining, rejection.wait_seconds) == ("tokens", 10, 48.0)
    assert limits.levels(0.0)["requests"].remaining == 1


def test_concurrency_counts_what_is_open():
    limits = Limits({}, 1, 60.0, 0.0)
    assert limits.admit({}, 0.0) is None
    rejection = limits.admit({}, 0.0)
    assert rejection is not None
    assert rejection.dimension == "concurrency"
    limits.release()
    assert limits.admit({}, 0.0) is None


def test_a_charge_of_nothing_needs_a_bucket_that_is_not_empty():
    limits = Limits({"output_tokens": 10}, None, 10.0, 0.0)
    limits.charge("output_tokens", 12, 0.0)
    limits.charge("unlimited", 5, 0.0)
    rejection = limits.admit({"requests": 1}, 0.0)
    assert rejection is not None
    assert rejection.wait_seconds == 3.0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60))
def test_the_window_maximum_is_that_of_every_window(entries):
    maximum, now, seen = WindowMaximum(10.0), 0.0, []
    for gap, amount in entries:
        now += gap
        maximum.add(amount, now)
        seen.append((now, amount))
    sums = [sum(a for t, a in seen if end - 10.0 < t <= end) for end, _ in seen]
    assert maximum.maximum == max(sums, default=0)


def test_a_day_gives_nothing_back_before_the_next():
    limits = Limits({"requests_per_day": 2}, None, 1.0, 0.0)
    for now in (0.0, 1000.0):
        assert limits.admit({"requests_per_day": 1}, now) is None
    refused = limits.admit({"requests_per_day": 1}, 1430.0)
    assert refused is not None
    assert (refused.dimension, refused.wait_seconds) == ("requests_per_day", 10.0)
    assert limits.admit({"requests_per_day": 1}, 1440.0) is None
