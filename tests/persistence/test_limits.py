"""The gate that all workers of a database pass: what is charged, by whom it is seen, when it lapses, and what cannot be lost."""

import random

import pytest

from callboard.persistence import ledger, limits
from callboard.persistence.limit_rules import (
    NOTHING,
    SUM_SLOT,
    Charge,
    Gate,
    factor_at,
    lapse_ms,
    lowered,
    scaled,
    slot_seconds,
)
from callboard.persistence.model import CallIntent

KEY = "acme/small"
MINUTE, SECOND = 60_000, 1000
TYPICAL = Charge(1, 10, 5, 15)


def gate(now, charge=TYPICAL, *, requests=None, tokens_in=None, tokens_out=None, total=None, **more):
    return Gate(
        key=KEY,
        account="acme",
        granted_ms=now,
        charge=charge,
        minute=(requests, tokens_in, tokens_out, total),
        **more,
    )


def go(board, wanted, owner="a", at=None):
    """Check and charge as the transaction of an intent does; what was charged, or the refusal."""
    now = board.now if at is None else at
    with board.c.write():
        refusal = limits.held(board.c, wanted.key, wanted.account, now) or limits.check(board.c, wanted, now)
        return refusal or limits.charge(board.c, owner, wanted, now)


def used(board, owner=None):
    where = "" if owner is None else f"AND owner = '{owner}'"
    sums = "coalesce(sum(requests), 0), coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(total), 0)"
    return Charge(*board.sql(f"SELECT {sums} FROM llm_limit_usage WHERE slot < {SUM_SLOT} {where}")[0])


def summed(board):
    rows = board.sql(f"SELECT requests, input, output, total FROM llm_limit_usage WHERE slot = {SUM_SLOT}")
    return Charge(*rows[0]) if rows else NOTHING


def test_two_workers_share_one_limit(board):
    for owner in ("a", "b"):
        assert isinstance(go(board, gate(board.now, requests=2), owner), limits.Held)
    refusal = go(board, gate(board.now, requests=2), "a")
    assert isinstance(refusal, limits.Refusal)
    assert "2 of 2 requests per minute" in refusal.reason
    assert refusal.until_ms == lapse_ms(board.now + SECOND, MINUTE)
    assert isinstance(go(board, gate(refusal.until_ms - 1, requests=2), at=refusal.until_ms - 1), limits.Refusal)
    assert isinstance(go(board, gate(refusal.until_ms, requests=2), at=refusal.until_ms), limits.Held)
    assert used(board) == summed(board) == Charge(1, 10, 5, 15), "what lapsed is pruned"


@pytest.mark.parametrize(
    ("limited", "named"),
    [
        ({"requests": 1}, "requests per minute"),
        ({"tokens_in": 19}, "input tokens per minute"),
        ({"tokens_out": 9}, "output tokens per minute"),
        ({"total": 29}, "tokens per minute"),
    ],
)
def test_every_dimension_counts_by_itself(board, limited, named):
    assert isinstance(go(board, gate(board.now, **limited)), limits.Held)
    assert named in go(board, gate(board.now, **limited)).reason
    assert used(board) == Charge(1, 10, 5, 15), "a refusal charges nothing"


def test_one_larger_than_the_limit_goes_when_nothing_else_is_held(board):
    large = gate(board.now, Charge(1, 500, 0, 500), tokens_in=20)
    assert isinstance(go(board, large), limits.Held)
    refused = go(board, gate(board.now, tokens_in=20))
    assert refused.until_ms == lapse_ms(board.now + SECOND, MINUTE)


def test_nothing_is_written_for_a_key_without_limits(board):
    assert go(board, gate(board.now)) is None
    assert board.sql("SELECT count(*) FROM llm_limit_usage") == [(0,)]


def test_a_charge_is_as_of_its_grant_unless_the_intent_comes_late(board):
    prompt = go(board, gate(board.now - 200, requests=9))
    late = go(board, gate(board.now - 9_000, requests=9))
    ahead = go(board, gate(board.now + 9_000, requests=9))
    assert prompt.slot == lapse_ms(board.now - 200 + SECOND, MINUTE)
    assert late.slot == lapse_ms(board.now - 250 + SECOND, MINUTE)
    assert ahead.slot == lapse_ms(board.now + SECOND, MINUTE)


class TestSettling:
    @pytest.mark.parametrize(
        ("real", "left"),
        [
            (None, Charge(1, 10, 5, 15)),
            (Charge(1, 4, 9, 13), Charge(1, 4, 9, 13)),
            (Charge(), Charge()),
            (NOTHING, NOTHING),
            (Charge(1, 400, 100, 500), Charge(1, 400, 100, 500)),
        ],
        ids=["unknown", "other than reserved", "refused before the model", "never sent", "more than reserved"],
    )
    def test_what_a_call_costs_in_the_end(self, board, real, left):
        held = go(board, gate(board.now, requests=5))
        board.move(limits.settle, "a", held, real, board.now + 300)
        assert used(board) == summed(board) == left

    def test_one_that_ended_is_held_for_a_window_from_then(self, board):
        held = go(board, gate(board.now, requests=1))
        board.move(limits.settle, "a", held, None, board.now + 300)
        assert go(board, gate(board.now, requests=1)).until_ms == lapse_ms(board.now + 300, MINUTE) < held.slot

    def test_what_goes_beyond_is_held_from_when_it_was_known(self, board):
        held = go(board, gate(board.now, tokens_out=5))
        board.move(limits.settle, "a", held, Charge(1, 10, 7, 17), board.now + 30 * SECOND)
        refused = go(board, gate(board.now, tokens_out=5), at=held.slot)
        assert refused.until_ms == lapse_ms(board.now + 30 * SECOND, MINUTE)

    def test_after_it_lapsed_nothing_comes_back(self, board):
        held = go(board, gate(board.now, requests=1))
        go(board, gate(held.slot, requests=1), "b", at=held.slot)
        board.move(limits.settle, "a", held, NOTHING, held.slot + 1)
        assert used(board) == summed(board) == Charge(1, 10, 5, 15)


def test_calls_in_flight_count_whoever_made_them_until_their_end_is_known(board):
    limited = gate(board.now, concurrency=1)
    job = board.started()
    intent = CallIntent(
        step="m", fingerprint="f", provider="p", model="m", limit_key=KEY, reserved_tokens=1, reserved_cost=None
    )
    assert go(board, limited) is None
    board.move(ledger.record_intent, job.lease, intent, board.now)
    assert "1 of 1 calls" in go(board, limited, "b").reason
    picture = limits.picture(board.c, "worker-b", KEY, "acme", (), board.now)
    assert (picture.own_open, picture.others_open) == (0, 1)
    assert limits.picture(board.c, "worker-a", KEY, "acme", (), board.now).own_open == 1
    board.sql("UPDATE llm_jobs SET state = 'waiting', lease_owner = NULL, lease_until = NULL")  # as the rescuer does
    assert go(board, limited, "b") is None, "the call of a dead worker is unknown, not open"


class TestDays:
    def test_they_are_counted_for_all_workers_and_kept(self, board):
        today = {"day": (2, None, None, None), "days": (board.now,), "days_end_ms": board.now + 7}
        for owner in ("a", "b"):
            assert isinstance(go(board, gate(board.now, **today), owner), limits.Held)
        refused = go(board, gate(board.now, **today), "c")
        assert (refused.until_ms, "2 of 2 requests per day" in refused.reason) == (board.now + 7, True)
        tomorrow = {**today, "days": (board.now + 7,)}
        assert isinstance(go(board, gate(board.now, **tomorrow)), limits.Held)
        (day,) = limits.picture(board.c, "a", KEY, "acme", (board.now,), board.now).days
        assert (day.own.requests, day.others.requests) == (1, 1)

    def test_a_settled_call_corrects_every_day_it_was_charged_to(self, board):
        both = {"day": (None, None, None, 100), "days": (board.now, board.now + 7)}
        held = go(board, gate(board.now, **both))
        board.move(limits.settle, "a", held, Charge(1, 1, 1, 2), board.now + 70_000)
        assert board.sql("SELECT total FROM llm_limit_days ORDER BY day") == [(2,), (2,)]

    def test_old_ones_are_dropped(self, board):
        go(board, gate(board.now, day=(2, None, None, None), days=(board.now,)))
        board.move(limits.describe, "a", KEY, {}, board.now + 4 * 86_400_000)
        assert board.sql("SELECT count(*) FROM llm_limit_days") == [(0,)]


class TestHolds:
    def test_a_hold_stops_every_worker_of_its_key_or_account(self, board):
        for key in (KEY, "acme"):
            board.move(limits.set_hold, key, board.now + 50, "the key is wrong", board.now, "auth")
            refused = go(board, gate(board.now))
            assert refused == ("the key is wrong", board.now + 50)
            assert limits.check(board.c, gate(board.now)._replace(key="acme/other"), board.now) is None or key == "acme"
            assert limits.check(board.c, gate(board.now)._replace(key="b", account="b"), board.now) is None
            assert board.move(limits.clear_hold, key)
            assert go(board, gate(board.now)) is None

    def test_it_is_never_shortened(self, board):
        board.move(limits.set_hold, KEY, 70, "first", 1)
        board.move(limits.set_hold, KEY, 50, "second", 2)
        assert limits.holds(board.c) == [(KEY, 70, "first", "rate", 1)]
        board.move(limits.set_hold, KEY, 90, "third", 3, "quota")
        assert limits.holds(board.c) == [(KEY, 90, "third", "quota", 3)]

    @pytest.mark.parametrize("held", [KEY, "acme"])
    def test_lifting_it_frees_the_jobs_that_wait_for_it(self, board, held):
        board.started()
        hold = f"state = 'waiting', lease_owner = NULL, lease_until = NULL, held_by = '{KEY}', held_until = {board.now + 9}"
        board.sql(f"UPDATE llm_jobs SET {hold}")
        assert board.move(limits.resume, held, board.now) == -1
        board.move(limits.set_hold, held, board.now + 9, "r", board.now)
        assert board.claim() == []
        assert board.move(limits.resume, held, board.now) == 1
        assert len(board.claim()) == 1


class TestLowering:
    def test_one_refusal_in_ten_seconds_counts_and_all_workers_see_it(self, board):
        assert board.move(limits.lower, KEY, board.now) == (0.8, board.now)
        assert board.move(limits.lower, KEY, board.now + 9_999) == (0.8, board.now)
        for _ in range(8):
            assert isinstance(go(board, gate(board.now, requests=10)), limits.Held)
        assert "8 of 8" in go(board, gate(board.now, requests=10)).reason
        factor, since = board.move(limits.lower, KEY, board.now + 10_000)
        assert (factor, since) == (pytest.approx(0.8 * (0.8 + 0.02 / 6)), board.now + 10_000)

    def test_it_comes_back_by_two_per_cent_a_minute(self):
        assert factor_at(0.8, 0, 5 * MINUTE) == pytest.approx(0.9)
        assert factor_at(0.8, 0, 60 * MINUTE) == 1.0
        assert factor_at(0.8, 5_000, 0) == 0.8, "a clock that was set back lowers nothing"

    def test_it_ends_somewhere(self):
        factor, now = 1.0, 0
        for _ in range(100):
            now += 10_000
            factor, _ = lowered(factor, now - 10_000, now)
        assert factor == 0.05
        assert scaled(3, factor) == 1
        assert scaled(None, factor) is None


def test_a_clock_that_was_set_back_blocks_nobody_for_longer_than_a_window(board):
    ahead = board.now + 3_600_000
    assert isinstance(go(board, gate(ahead, requests=1), at=ahead), limits.Held)
    refused = go(board, gate(board.now, requests=1))
    assert refused.until_ms == lapse_ms(board.now + SECOND, MINUTE)
    assert used(board) == summed(board) == Charge(1, 10, 5, 15)


def test_a_picture_tells_ours_from_the_others(board):
    board.move(limits.use_key, KEY, board.now - 5)
    mine = go(board, gate(board.now, requests=9), "a")
    for _ in range(2):
        other = go(board, gate(board.now - 100, requests=9), "b")
    board.move(limits.set_hold, "acme", board.now + 9, "r", board.now)
    board.move(limits.lower, KEY, board.now)
    picture = limits.picture(board.c, "a", KEY, "acme", (), board.now)
    assert picture.own == ((mine.slot, Charge(1, 10, 5, 15)),)
    assert picture.others == ((other.slot, Charge(2, 20, 10, 30)),)
    assert [hold.key for hold in picture.holds] == ["acme"]
    assert (picture.factor, picture.factor_at_ms, picture.first_used_ms) == (0.8, board.now, board.now - 5)


def test_descriptions_are_kept_by_worker_and_forgotten_when_old(board):
    for owner, at in (("a", 0), ("b", 1000), ("c", 60_500)):
        board.move(limits.describe, owner, KEY, {"n": owner}, board.now + at)
    ((known,),) = board.sql("SELECT group_concat(told.key) FROM llm_limit_keys, json_each(description) AS told")
    assert known == "b,c"


@pytest.mark.parametrize("window", [500, 60_000])
def test_slots_are_exact_and_at_most_a_four_hundredth(window):
    slot = slot_seconds(window / 1000)
    assert window / 800 <= slot * 1000 <= window / 400
    for at in (1_700_000_000_000, 1_700_000_000_001, 1_799_999_999_999):
        assert 0 <= lapse_ms(at, window) - (at + window) <= slot * 1000 + 1


@pytest.mark.parametrize("seed", range(3))
def test_whatever_two_workers_do_no_window_holds_more_than_the_limit(board, seed):
    """The provider counts each call at some moment between its intent and a second later, or its end if that is sooner."""
    dice = random.Random(seed)
    most = {"requests": 8, "tokens_in": 120, "total": 200}
    counted, open_calls, granted = [], [], 0
    now = board.now
    for _ in range(400):
        now += dice.choice([0, 1, 40, 400, 1500])
        for end in [call for call in open_calls if call[0] <= now]:
            open_calls.remove(end)
            board.move(limits.settle, end[1], end[2], end[3], now)
        tokens = Charge(1, dice.randint(1, 30), dice.randint(1, 20), 0)
        tokens = tokens._replace(total=tokens.input + tokens.output)
        owner = dice.choice("ab")
        held = go(board, gate(now - dice.randint(0, 249), tokens, window_ms=8_000, **most), owner, at=now)
        if isinstance(held, limits.Held):
            granted += 1
            real = Charge(1, dice.randint(1, tokens.input), dice.randint(1, tokens.output), 0)
            real = real._replace(total=real.input + real.output)
            ends = now + dice.choice([5, 700, 3_000])
            counted.append((dice.randint(now, min(ends, now + 700)), real))
            open_calls.append((ends, owner, held, real))
    assert granted > 60
    assert used(board) == summed(board)
    counted.sort(key=lambda entry: entry[0])
    for at, _ in counted:
        window = [charge for other, charge in counted if at - 8_000 < other <= at]
        assert len(window) <= 8
        assert sum(charge.input for charge in window) <= 120
        assert sum(charge.total for charge in window) <= 200
