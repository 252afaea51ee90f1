"""One dimension: what is held, until when, and what others were seen to use."""

import pytest

from callboard.actors.rate_limiter.window import Window

SLOT = 0.125


@pytest.fixture
def window():
    return Window(10, window=60.0, max_delivery=1.0)


def test_a_charge_is_held_for_the_window_and_the_delivery_that_cannot_be_ruled_out(window):
    window.add(4, 100.0)
    assert window.used(160.99) == 4
    assert window.used(161.0) == 0
    assert window.next_expiry(161.0) is None


def test_a_reply_that_began_rules_the_rest_of_the_delivery_out(window):
    entry = window.add(4, 100.0)
    window.counted(entry, 100.25)
    assert window.next_expiry(100.25) == 160.25
    window.settle(entry, 4, 130.0)
    assert window.next_expiry(130.0) == 160.25, "what came later cannot put it off"


def test_expiries_are_rounded_up_to_a_slot(window):
    window.counted(window.add(1, 100.0), 100.001)
    assert window.next_expiry(100.001) == 160.0 + SLOT


def test_settling_replaces_the_charge(window):
    entry = window.add(4, 0.0)
    window.settle(entry, 1, 0.5)
    assert (window.used(0.5), window.free(0.5)) == (1, 9)
    window.settle(window.add(4, 0.5), 0, 0.75)
    assert window.used(0.75) == 1


def test_what_goes_beyond_the_charge_is_held_from_when_it_was_known(window):
    entry = window.add(4, 0.0)
    window.settle(entry, 7, 100.0)
    assert window.used(100.0) == 3, "the charge itself has lapsed by then"
    assert window.used(160.0) == 0
    entry = window.add(4, 200.0)
    window.settle(entry, 7, 210.0)
    assert window.used(210.0) == 7
    assert window.used(261.0) == 3


@pytest.mark.parametrize(
    ("amount", "at"), [(3, 0.0), (4, 61.0), (7, 61.0), (8, 71.0), (10, 81.0), (11, 81.0), (25, 183.0)]
)
def test_the_earliest_time_an_amount_fits(window, amount, at):
    window.add(4, 0.0)
    window.add(1, 10.0)
    window.add(2, 20.0)
    assert window.earliest(amount, 20.0) == max(20.0, at)
    if amount <= 10:
        assert at == 0.0 or not window.fits(amount, at - SLOT)
        assert window.fits(amount, max(20.0, at))


def test_one_larger_than_the_limit_fits_when_nothing_is_held(window):
    assert window.fits(25, 0.0)
    window.add(1, 0.0)
    assert not window.fits(25, 0.0)
    assert window.fits(25, 61.0)


def test_without_a_limit_nothing_is_refused_and_everything_is_counted():
    window = Window(None)
    window.add(1000, 0.0)
    assert (window.used(0.0), window.free(0.0), window.fits(10**9, 0.0), window.earliest(10**9, 0.0)) == (
        1000,
        None,
        True,
        0.0,
    )
    assert window.free_at(30.0, 0.0) is None
    window.limit = 1000
    assert not window.fits(1, 0.0), "a limit that becomes known counts what was before"


def test_what_will_be_left_at_a_later_time(window):
    window.add(4, 0.0)
    window.add(1, 10.0)
    assert [window.free_at(at, 10.0) for at in (10.0, 60.9, 61.0, 71.0)] == [5, 5, 9, 10]


class TestOtherWorkers:
    """What the database says of them, and of ourselves."""

    def test_their_charges_stand_beside_ours_until_they_lapse(self, window):
        window.add(3, 0.0)
        window.learn([(30.0, 4), (31.0, 2)], [], 0.0)
        assert (window.used(0.0), window.free(0.0), window.shared) == (9, 1, True)
        assert window.earliest(5, 0.0) == 30.0
        assert window.earliest(8, 0.0) == 61.0
        assert window.free_at(31.0, 0.0) == 7
        window.learn([(31.0, 1)], [], 10.0)
        assert window.used(10.0) == 4, "the last word on them"
        assert window.used(31.0) == 3
        assert not window.shared

    def test_what_is_on_record_as_ours_but_not_known_here_counts(self, window):
        window.add(3, 0.0)
        window.learn([], [(61.0, 3)], 0.0)
        assert window.used(0.0) == 3
        window.learn([], [(61.0, 5), (20.0, 1)], 0.0)
        assert window.used(0.0) == 6

    def test_instants_of_another_clock_fall_into_the_right_slot(self, window):
        window.learn([(30.001, 4)], [], 0.0)
        assert window.earliest(10, 0.0) == 30.0
        window.learn([(30.003, 4)], [], 0.0)
        assert window.earliest(10, 0.0) == 30.0 + SLOT

    def test_what_headers_showed_of_them_is_not_counted_twice(self, window):
        window.add(1, 0.0)
        window.observe(remaining=3, younger=0, since=0.0, now=0.0)
        assert window.used(0.0) == 7
        window.learn([(50.0, 5)], [], 0.0)
        assert window.used(0.0) == 1 + 5 + 1


class TestUseByOthers:
    def test_less_left_than_we_believed_drains_at_the_limit_per_window(self, window):
        window.counted(window.add(1, 0.0), 0.0)
        window.observe(remaining=3, younger=0, since=0.0, now=0.0)
        assert (window.used(0.0), window.free(0.0)) == (7, 3)
        assert window.earliest(4, 0.0) == pytest.approx(6.0)
        assert window.used(18.0) == 1 + 3
        assert window.used(36.1) == 1

    def test_expiries_and_draining_are_taken_together(self, window):
        window.counted(window.add(5, 0.0), 0.0)
        window.counted(window.add(1, 30.0), 30.0)
        window.observe(remaining=1, younger=0, since=30.0, now=30.0)
        assert window.used(30.0) == 9
        assert window.earliest(4, 30.0) == pytest.approx(48.0), "three of others drain in 18 s"
        assert window.earliest(5, 30.0) == pytest.approx(60.0), "five of ours lapse"
        assert window.earliest(10, 30.0) == pytest.approx(90.0)

    def test_as_much_or_more_than_we_believed_changes_nothing(self, window):
        window.add(4, 0.0)
        for remaining in (6, 10, 500):
            window.observe(remaining, younger=0, since=0.0, now=0.0)
            assert window.used(0.0) == 4

    def test_what_was_granted_after_the_reply_is_not_in_it(self, window):
        window.add(2, 0.0)
        window.add(3, 1.0)
        window.observe(remaining=4, younger=3, since=0.0, now=1.0)
        assert window.used(1.0) == 5 + 4, "the reply knows of two of ours, so four are of others"

    def test_what_lapsed_while_the_reply_was_on_its_way_is_not_taken_for_others(self, window):
        window.counted(window.add(9, 0.0), 0.0)
        entry = window.add(1, 59.0)
        window.counted(entry, 60.5)
        window.observe(remaining=0, younger=0, since=59.0, now=60.5)
        assert window.used(60.5) == 1

    def test_seeing_it_again_does_not_add_it_again(self, window):
        for now in (0.0, 6.0, 12.0):
            window.observe(remaining=6, younger=0, since=now, now=now)
            assert window.used(now) == 4

    def test_a_nonsensical_remainder_is_none_left(self, window):
        window.observe(remaining=-7, younger=0, since=0.0, now=0.0)
        assert window.used(0.0) == 10
