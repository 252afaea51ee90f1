"""The calls in flight are found by owner and by job as long as they are there, and no longer."""

from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.messages import CallRef
from callboard.actors.rate_limiter.dimensions import Charged
from callboard.actors.rate_limiter.permits import Permit, Permits
from callboard.persistence.limit_rules import Charge

CHARGED = Charged(Charge(), (), ())
CALLS = st.builds(CallRef, job_id=st.integers(1, 3), epoch=st.integers(1, 2), number=st.integers(1, 2))
OWNERS = st.sampled_from(["runner-1", "runner-2"])


@given(st.lists(st.tuples(st.booleans(), CALLS, OWNERS)), CALLS, OWNERS)
def test_they_are_found_as_a_look_through_all_would_find_them(steps, call, owner):
    permits, plain = Permits(), {}
    for adds, which, by in steps:
        if adds and which not in plain:
            plain[which] = Permit(by, 0.0, CHARGED)
            permits.add(which, plain[which])
        else:
            assert permits.drop(which) == plain.pop(which, None)
    assert dict(permits.all()) == plain
    assert len(permits) == len(plain)
    assert (call in permits, permits.get(call)) == (call in plain, plain.get(call))
    theirs = {one: permit for one, permit in plain.items() if permit.owner == owner}
    assert dict(permits.of(owner)) == theirs
    of_job = {one: permit for one, permit in plain.items() if one.job_id == call.job_id}
    assert dict(permits.of(owner, call.job_id)) == {**theirs, **of_job}
