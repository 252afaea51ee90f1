"""All dimensions of a key together, and the line before it."""

import json
import math
import random

import pytest

from callboard.actors.messages import CallRef
from callboard.actors.providers.model import LimitSnapshot
from callboard.actors.rate_limiter.hold import BRISK, LONGEST_HOLD, PATIENT, Hold
from callboard.actors.rate_limiter.limiter import Limiter
from callboard.actors.settings import LimitSettings
from callboard.persistence.limit_rules import NOTHING, Charge
from callboard.persistence.limits import Day
from callboard.persistence.model import LimitHold

KEY = "acme/small"


def tokens_of(tokens):
    return Charge(1, tokens, 0, tokens)


def limiter_of(requests=None, tokens=None, concurrency=None, **more):
    settings = LimitSettings(requests_per_minute=requests, tokens_per_minute=tokens, concurrency=concurrency, **more)
    return Limiter(KEY, settings, account="acme")


def ref(job, epoch=1, number=1):
    return CallRef(job, epoch, number)


def reserve(limiter, job, now=0.0, tokens=10, priority=0, epoch=1, owner=None):
    return limiter.reserve(ref(job, epoch), tokens_of(tokens), priority, owner or f"runner {job}", now)


def granted(limiter, now=0.0):
    return [grant.call.job_id for grant in limiter.admit(now)]


def used(limiter, now=0.0):
    described = limiter.describe(now)
    minute = described["minute"]
    return minute["requests"]["used"], minute["total"]["used"], described["concurrency"]["used"]


class TestAdmission:
    def test_all_dimensions_or_none(self):
        limiter = limiter_of(requests=5, tokens=15)
        reserve(limiter, 1)
        reserve(limiter, 2)
        assert granted(limiter) == [1]
        assert used(limiter) == (1, 10, 1), "the request of the one that waits for tokens is not charged"

    def test_unlimited(self):
        limiter = limiter_of()
        for job in range(100):
            reserve(limiter, job)
        assert len(granted(limiter)) == 100
        assert limiter.headroom(0.0, 3.0) is None

    def test_priority_then_arrival(self):
        limiter = limiter_of(requests=1)
        for job, priority in [(1, 0), (2, 50), (3, 100), (4, 50), (5, 100)]:
            reserve(limiter, job, priority=priority)
        order = [granted(limiter, now)[0] for now in (0.0, 61.0, 122.0, 183.0, 244.0)]
        assert order == [3, 5, 2, 4, 1]

    def test_a_small_call_does_not_pass_a_large_one_at_the_head(self):
        limiter = limiter_of(tokens=100)
        for job, tokens in [(1, 60), (2, 90), (3, 10)]:
            reserve(limiter, job, tokens=tokens)
        assert granted(limiter) == [1]
        assert granted(limiter, 61.0) == [2, 3]

    def test_one_larger_than_the_limit_waits_for_an_empty_window(self):
        limiter = limiter_of(tokens=100)
        for job, tokens in [(1, 1), (2, 500), (3, 1)]:
            reserve(limiter, job, tokens=tokens)
        assert granted(limiter) == [1]
        assert limiter.next_change(0.0, math.inf) == 61.0
        assert granted(limiter, 60.9) == []
        assert granted(limiter, 61.0) == [2]
        assert granted(limiter, 122.0) == [3]

    def test_concurrency(self):
        limiter = limiter_of(concurrency=2)
        for job in (1, 2, 3):
            reserve(limiter, job)
        assert granted(limiter) == [1, 2]
        assert limiter.next_change(0.0, math.inf) == math.inf, "no time alone will free a slot"
        limiter.settle(ref(2), tokens_of(10), 1.0)
        assert granted(limiter, 1.0) == [3]

    def test_reserving_twice_is_harmless(self):
        limiter = limiter_of(requests=2)
        reserve(limiter, 1)
        reserve(limiter, 1)
        assert granted(limiter) == [1]
        assert reserve(limiter, 1).call == ref(1), "it is told again that it was granted"
        assert granted(limiter) == []
        assert used(limiter) == (1, 10, 1)

    def test_a_later_lease_of_a_job_voids_the_earlier_ones_permits(self):
        limiter = limiter_of(concurrency=1)
        reserve(limiter, 1, epoch=1, owner="a")
        granted(limiter)
        reserve(limiter, 1, epoch=3, owner="b")
        assert granted(limiter) == [1]

    def test_a_runner_that_reserves_for_another_job_holds_nothing_of_the_one_before(self):
        limiter = limiter_of(concurrency=1)
        reserve(limiter, 1, owner="a")
        granted(limiter)
        reserve(limiter, 2, owner="a")
        assert granted(limiter) == [2]

    def test_several_calls_of_one_lease_stand_side_by_side(self):
        limiter = limiter_of(concurrency=5)
        for number in (1, 2):
            limiter.reserve(ref(1, 1, number), tokens_of(10), 0, "a", 0.0)
        assert len(limiter.admit(0.0)) == 2
        assert used(limiter)[2] == 2

    def test_the_dead_free_their_slots_but_not_their_charges(self):
        limiter = limiter_of(concurrency=1)
        for job in (1, 2, 3):
            reserve(limiter, job)
        granted(limiter)
        limiter.abandon("runner 1")
        limiter.abandon("runner 2")
        assert granted(limiter) == [3]
        assert used(limiter) == (2, 20, 1)


class TestSettling:
    @pytest.mark.parametrize(
        ("real", "expected"),
        [
            (tokens_of(4), (1, 4, 0)),
            (tokens_of(25), (1, 25, 0)),
            (None, (1, 10, 0)),
            (NOTHING, (0, 0, 0)),
            (Charge(), (1, 0, 0)),
        ],
        ids=["usage", "more than reserved", "usage unknown", "never sent", "refused before the model"],
    )
    def test_what_a_call_costs_in_the_end(self, real, expected):
        limiter = limiter_of()
        reserve(limiter, 1)
        granted(limiter)
        assert limiter.settle(ref(1), real, 1.0)
        assert used(limiter, 1.0) == expected
        assert not limiter.settle(ref(1), tokens_of(3), 1.0), "twice is harmless"
        assert used(limiter, 1.0) == expected

    def test_one_that_waits_leaves_the_line(self):
        limiter = limiter_of(requests=1)
        for job in (1, 2, 3):
            reserve(limiter, job)
        granted(limiter)
        assert limiter.settle(ref(2), NOTHING, 1.0)
        assert granted(limiter, 61.0) == [3]


class TestDeferral:
    def test_who_would_wait_too_long_leaves_and_is_told_when_to_come_back(self):
        limiter = limiter_of(requests=2)
        for job in (1, 2, 3, 4, 5):
            reserve(limiter, job)
        granted(limiter)
        deferrals = limiter.defer(0.0, 3.0)
        assert [(d.call.job_id, d.until) for d in deferrals] == [(3, 61.0), (4, 61.0), (5, 122.0)]
        assert deferrals[0].reason == f"{KEY}: 2 of 2 requests per minute are used"
        assert limiter.describe(0.0)["waiting"] == 0

    def test_who_will_be_admitted_soon_stays(self):
        limiter = limiter_of(requests=1)
        reserve(limiter, 1)
        granted(limiter)
        reserve(limiter, 2, now=59.0)
        assert limiter.defer(59.0, 3.0) == []
        assert limiter.next_change(59.0, 3.0) == 61.0
        assert granted(limiter, 61.0) == [2]

    def test_behind_calls_of_unknown_length_one_waits_as_long_as_one_may(self):
        limiter = limiter_of(concurrency=1)
        reserve(limiter, 1)
        granted(limiter)
        reserve(limiter, 2, now=1.0)
        assert limiter.defer(1.0, 3.0) == []
        assert limiter.next_change(1.0, 3.0) == 4.0
        (deferral,) = limiter.defer(4.0, 3.0)
        assert (deferral.call.job_id, deferral.until) == (2, 7.0)
        assert deferral.reason == f"{KEY}: 1 of 1 calls are in flight"

    def test_behind_calls_of_known_length_the_wait_is_foreseen(self):
        limiter = limiter_of(concurrency=1)
        reserve(limiter, 1)
        granted(limiter)
        limiter.settle(ref(1), tokens_of(10), 20.0)
        for job in (2, 3):
            reserve(limiter, job, now=20.0)
        assert granted(limiter, 20.0) == [2]
        (deferral,) = limiter.defer(20.0, 3.0)
        assert deferral.until == 40.0

    def test_a_large_call_that_was_sent_away_keeps_its_place(self):
        limiter = limiter_of(tokens=100)
        reserve(limiter, 1, tokens=40)
        granted(limiter)
        reserve(limiter, 2, tokens=80, now=10.0)
        (deferral,) = limiter.defer(10.0, 3.0)
        assert deferral.until == 61.0
        reserve(limiter, 3, tokens=10, now=20.0)
        assert granted(limiter, 20.0) == [], "small ones do not eat what the large one waits for"
        assert limiter.describe(20.0)["places_kept"] == 1
        assert limiter.headroom(60.0, 3.0) == 0
        assert limiter.headroom(61.0, 3.0) >= 1, "the dispatcher is to fetch it now"
        reserve(limiter, 2, tokens=80, epoch=3, now=61.1)
        assert granted(limiter, 61.1) == [2, 3]

    def test_the_place_is_not_kept_for_ever(self):
        limiter = limiter_of(tokens=100)
        reserve(limiter, 1, tokens=40)
        granted(limiter)
        reserve(limiter, 2, tokens=80)
        limiter.defer(0.0, 3.0)
        reserve(limiter, 3, tokens=50, now=62.0)
        assert granted(limiter, 62.0) == []
        assert limiter.next_change(62.0, 3.0) == 64.0
        assert granted(limiter, 64.0) == [3]

    def test_a_dead_runner_does_not_cost_a_job_its_place(self):
        limiter = limiter_of(tokens=100)
        reserve(limiter, 1, tokens=40)
        granted(limiter)
        reserve(limiter, 2, tokens=80)
        limiter.defer(0.0, 3.0)
        limiter.abandon("runner 2")
        assert limiter.describe(0.0)["places_kept"] == 1


class TestHeaders:
    def test_a_header_limit_replaces_ours_but_is_never_above_it(self):
        limiter = limiter_of(requests=10)
        for limit, effective in [(4, 4), (8, 8), (500, 10), (0, 10), (-1, 10), (None, 10)]:
            limiter.observe(ref(1), LimitSnapshot(at_ms=0, requests_limit=limit), 0.0, 0.0)
            assert limiter.describe(0.0)["minute"]["requests"]["limit"] == effective

    def test_a_limit_we_did_not_know_of_is_adopted(self):
        limiter = limiter_of()
        reserve(limiter, 1)
        granted(limiter)
        limiter.observe(ref(1), LimitSnapshot(at_ms=0, tokens_limit=15), 0.0, 0.0)
        reserve(limiter, 2)
        assert granted(limiter) == []

    def test_use_by_others_is_noticed_without_counting_our_own_twice(self):
        limiter = limiter_of(requests=10, tokens=100)
        for job in (1, 2):
            reserve(limiter, job)
        granted(limiter)
        reserve(limiter, 3, now=2.0)
        granted(limiter, 2.0)
        snapshot = LimitSnapshot(at_ms=0, requests_remaining=5, tokens_remaining=80)
        limiter.observe(ref(1), snapshot, at=1.0, now=2.0)
        assert used(limiter, 2.0) == (3 + 3, 30, 3)

    def test_a_reply_rules_out_a_later_delivery(self):
        limiter = limiter_of(requests=1)
        reserve(limiter, 1)
        granted(limiter)
        limiter.observe(ref(1), None, 0.25, 0.25)
        reserve(limiter, 2, now=1.0)
        assert limiter.next_change(1.0, math.inf) == 60.25


class TestHolds:
    def test_a_refused_key_is_left_alone_for_as_long_as_was_asked(self):
        limiter = limiter_of()
        hold = limiter.refuse(ref(1), "rate", 7.0, "429 too many requests", now=100.0, jitter=0.0)
        assert hold.until == 107.0
        reserve(limiter, 2, now=100.0)
        assert granted(limiter, 106.9) == []
        assert limiter.reason(106.9) == f"{KEY}: 429 too many requests"
        assert limiter.headroom(100.0, 3.0) == 0
        assert limiter.next_change(100.0, math.inf) == 107.0
        assert granted(limiter, 107.0) == [2]

    def test_refusals_in_a_row_back_off_with_jitter_up_to_the_cap(self):
        limiter = limiter_of()
        rng, now, waits = random.Random(1), 0.0, []
        for job in range(10):
            reserve(limiter, job, now=now)
            granted(limiter, now)
            until = limiter.refuse(ref(job), "rate", None, "429", now=now + 0.1, jitter=rng.random()).until
            waits.append(until - now - 0.1)
            now = until
        for n, wait in enumerate(waits):
            assert min(60.0, 2.0**n) / 2 <= wait + 1e-6 <= min(60.0, 2.0**n) + 1e-5
        assert len(set(waits)) == 10

    def test_the_refusals_of_one_burst_count_once(self):
        limiter = limiter_of()
        for job in range(8):
            reserve(limiter, job)
        granted(limiter)
        untils = [limiter.refuse(ref(job), "rate", None, "429", now=0.5, jitter=1.0).until for job in range(8)]
        assert untils == [1.5] * 8
        assert limiter.refuse(ref(7), "rate", None, "429", now=2.0, jitter=1.0).until == 3.0, "one that was late"

    def test_a_hold_is_never_shortened(self):
        limiter = limiter_of()
        limiter.refuse(ref(1), "rate", 30.0, "long", now=0.0, jitter=0.0)
        assert limiter.refuse(ref(2), "rate", 1.0, "short", now=1.0, jitter=0.0) == Hold(30.0, "long")

    def test_success_ends_the_row(self):
        limiter = limiter_of()
        limiter.refuse(ref(0), "rate", None, "429", now=0.0, jitter=1.0)
        reserve(limiter, 1, now=1.0)
        granted(limiter, 1.0)
        limiter.refuse(ref(1), "rate", None, "429", now=1.5, jitter=1.0)
        reserve(limiter, 2, now=3.5)
        granted(limiter, 3.5)
        assert limiter.succeed(ref(2))
        assert not limiter.succeed(ref(2))
        assert limiter.refuse(ref(3), "rate", None, "429", now=4.0, jitter=1.0).until == 5.0

    def test_success_of_a_call_from_before_the_refusal_says_nothing(self):
        limiter = limiter_of()
        reserve(limiter, 1)
        granted(limiter)
        limiter.refuse(ref(0), "rate", 9.0, "429", now=1.0, jitter=1.0)
        assert not limiter.succeed(ref(1))
        assert limiter.headroom(2.0, 3.0) == 0

    @pytest.mark.parametrize("kind", ["auth", "quota"])
    def test_what_waiting_does_not_heal_is_tried_much_less_often(self, kind):
        limiter = limiter_of()
        assert limiter.refuse(ref(1), kind, None, "401", now=0.0, jitter=0.0).until >= 15.0

    @pytest.mark.parametrize("asked", [math.inf, 1e12])
    def test_absurd_waits_are_bounded(self, asked):
        assert limiter_of().refuse(ref(1), "rate", asked, "429", now=0.0, jitter=0.0).until == LONGEST_HOLD

    @pytest.mark.parametrize("asked", [math.nan, -5.0, 0.0])
    def test_absurd_waits_are_no_waits(self, asked):
        assert limiter_of().refuse(ref(1), "rate", asked, "429", now=0.0, jitter=1.0).until == 1.0

    @pytest.mark.parametrize("backoff", [BRISK, PATIENT])
    def test_backoff_never_overflows(self, backoff):
        assert backoff.delay(10_000, 1.0) == backoff.cap


class TestForesight:
    def test_headroom_is_what_would_be_let_in_soon_less_those_who_wait(self):
        limiter = limiter_of(requests=10, tokens=100)
        assert limiter.headroom(0.0, 3.0) == 10
        for job in range(4):
            reserve(limiter, job, tokens=20)
        granted(limiter)
        assert limiter.headroom(0.0, 3.0) == 1, "20 tokens are left, for one more of their kind"
        reserve(limiter, 9, tokens=15)
        assert limiter.headroom(0.0, 3.0) == 0
        assert limiter.headroom(58.0, 3.0) == 4, "all lapse within three seconds"

    def test_headroom_of_slots_counts_their_turnover(self):
        limiter = limiter_of(concurrency=2)
        assert limiter.headroom(0.0, 3.0) == 2
        for job in (1, 2):
            reserve(limiter, job)
        granted(limiter)
        assert limiter.headroom(0.0, 3.0) == 0
        limiter.settle(ref(1), tokens_of(10), 0.5)
        assert limiter.headroom(0.5, 3.0) == 1 + 12

    def test_why(self):
        limiter = limiter_of(requests=1)
        for job in (1, 2, 3):
            reserve(limiter, job)
        granted(limiter)
        assert limiter.why(ref(1), 2.0) == f"{KEY}: in flight for 2.0 s"
        expected = f"{KEY}: 1 of 1 requests per minute are used; 1 ahead in line; in about 121.0 s"
        assert limiter.why(ref(3), 1.0) == expected
        assert limiter.why(ref(8), 1.0) == f"{KEY}: not in line"

    def test_a_description_is_json_and_complete(self):
        limiter = limiter_of(requests=2, tokens=100, concurrency=4)
        for job in (1, 2, 3):
            reserve(limiter, job)
        granted(limiter)
        limiter.refuse(ref(1), "rate", 7.0, "429", now=1.0, jitter=0.0)
        limiter.dimensions.wall_shift_ms = 999_000
        described = json.loads(json.dumps(limiter.describe(1.0)))
        assert described["minute"]["requests"] == {"limit": 2, "used": 2, "free": 0, "next_expiry_ms": 1_060_000}
        assert described["minute"]["total"]["free"] == 80
        assert described["concurrency"] == {"limit": 4, "used": 2, "free": 2}
        assert described["hold"] == {"until_ms": 1_007_000, "reason": "429", "kind": "rate"}
        assert (described["waiting"], described["places_kept"]) == (1, 0)
        assert described["line"][0]["job_id"] == 3


class TestTheDatabasesWord:
    def test_a_new_limiter_knows_what_went_out_and_what_is_held(self, picture):
        limiter = limiter_of(requests=3, tokens=100)
        slots = [(151_000, tokens_of(40)), (160_000, tokens_of(50))]
        told = picture(slots, holds=[LimitHold(KEY, 103_000, "429"), LimitHold("acme", 50_000, "over")])
        limiter.learn(told, 0, 100.0, first=True)
        assert used(limiter, 100.0) == (2, 90, 0)
        reserve(limiter, 1, now=100.0)
        assert granted(limiter, 100.0) == []
        assert granted(limiter, 103.0) == [1]

    def test_the_calls_of_others_take_slots(self, picture):
        limiter = limiter_of(concurrency=3)
        for job in (1, 2, 3):
            reserve(limiter, job)
        assert granted(limiter) == [1, 2, 3]
        limiter.settle(ref(1), None, 0.0)
        limiter.learn(picture(own_open=3, others_open=0), 0, 0.0, first=False)
        assert limiter.shared, "one of an earlier life is in flight"
        reserve(limiter, 4)
        assert granted(limiter) == []
        limiter.learn(picture(own_open=2, others_open=0), 0, 0.0, first=False)
        assert granted(limiter) == [4]

    def test_the_gate_says_what_is_to_be_checked(self):
        limiter = limiter_of(requests=7, concurrency=5, input_tokens_per_minute=100, requests_per_day=9)
        reserve(limiter, 1, now=1.5)
        (grant,) = limiter.admit(1.5)
        gate = grant.gate
        assert (gate.key, gate.account, gate.granted_ms, gate.charge) == (KEY, "acme", 1500, tokens_of(10))
        assert (gate.minute, gate.day, gate.concurrency) == ((7, 100, None, None), (9, None, None, None), 5)
        assert (gate.days, gate.days_end_ms) == ((0,), 86_400_000)


class TestDays:
    def test_a_full_day_is_waited_out(self):
        limiter = limiter_of(requests_per_day=2)
        for job in (1, 2, 3):
            reserve(limiter, job, now=3600.0)
        assert granted(limiter, 3600.0) == [1, 2]
        assert limiter.headroom(3600.0, 3.0) == 0
        (deferral,) = limiter.defer(3600.0, 3.0)
        assert deferral.until == 86_400.0
        assert deferral.reason == f"{KEY}: 2 of 2 requests per day are used"
        reserve(limiter, 3, now=86_400.0)
        assert granted(limiter, 86_400.0) == [3]

    def test_what_others_and_earlier_lives_used_counts(self, picture):
        limiter = limiter_of(requests_per_day=5)
        limiter.learn(picture(days=[Day(0, Charge(1), Charge(2))]), 0, 10.0, first=True)
        for job in (1, 2, 3):
            reserve(limiter, job, now=10.0)
        assert granted(limiter, 10.0) == [1, 2]
        limiter.learn(picture(days=[Day(0, Charge(9), Charge(1))]), 0, 11.0, first=False)
        assert granted(limiter, 11.0) == [3], "later pictures speak of the others alone: our own count is ahead of them"

    def test_real_usage_corrects_the_day(self):
        limiter = limiter_of(tokens_per_day=20)
        reserve(limiter, 1, tokens=15)
        reserve(limiter, 2, tokens=15)
        assert granted(limiter) == [1]
        limiter.settle(ref(1), tokens_of(5), 1.0)
        assert granted(limiter, 1.0) == [2]


class TestLowering:
    def test_a_refusal_lowers_the_limits_which_come_back(self):
        limiter = limiter_of(requests=10)
        limiter.dimensions.lower(100.0)
        assert limiter.describe(100.0)["minute"]["requests"]["limit"] == 8
        limiter.dimensions.lower(105.0)
        assert limiter.describe(105.0)["minute"]["requests"]["limit"] == 8, "once in ten seconds"
        limiter.admit(100.0 + 300.0)
        assert limiter.describe(400.0)["minute"]["requests"]["limit"] == 9
        limiter.admit(100.0 + 600.0)
        described = limiter.describe(700.0)
        assert (described["minute"]["requests"]["limit"], described["factor"]) == (10, 1.0)

    def test_slots_are_lowered_where_nothing_else_is_limited(self):
        for limits, expected in (({"requests": 100}, 10), ({}, 8)):
            limiter = limiter_of(concurrency=10, **limits)
            limiter.dimensions.lower(100.0)
            assert limiter.describe(100.0)["concurrency"]["limit"] == expected

    def test_a_warm_up_begins_at_half_and_grows_by_half_every_quarter_of_an_hour(self, picture):
        limiter = limiter_of(requests=100, warm_up=True)
        limiter.learn(picture(first_used_ms=0), 0, 0.0, first=True)
        found = []
        for minutes in (0, 15, 26):
            limiter.admit(minutes * 60.0)
            found.append(limiter.describe(minutes * 60.0)["minute"]["requests"]["limit"])
        assert found == [50, 75, 100]


class TestForesightOfOutput:
    def test_a_call_without_a_limit_is_reserved_what_such_calls_took_lately(self):
        limiter = limiter_of()
        charge = Charge(1, 100, 512, 612)
        for job, expected in ((1, charge), (2, Charge(1, 100, 60, 160))):
            limiter.reserve(ref(job), charge, 0, f"runner {job}", 0.0, assumed_output=512)
            (grant,) = limiter.admit(0.0)
            assert grant.gate.charge == expected
            limiter.settle(ref(job), Charge(1, 90, 40, 130), 1.0)

    def test_as_openai_charges_it_is_the_larger_of_both(self):
        limiter = limiter_of()
        for job, expected in ((1, 512), (2, 100)):
            limiter.reserve(ref(job), Charge(1, 100, 512, 512), 0, f"runner {job}", 0.0, assumed_output=512)
            (grant,) = limiter.admit(0.0)
            assert grant.gate.charge.total == expected
            limiter.settle(ref(job), Charge(1, 90, 40, 512), 1.0)
