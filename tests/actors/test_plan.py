"""What to claim and how many runners to keep: tables, and what holds for every input."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.plan import Allowance, plan_claim, runners_allowed, surplus
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import CompanySettings, LimitSettings, ModelSettings, RunnerSettings
from callboard.persistence.model import LaneDepth

NOW = 1_000_000


def provider(name):
    return ProviderSettings(name=name, wire="openai-chat", base_url="https://provider.example/v1")


SETTINGS = CompanySettings(
    database="sqlite://",
    providers={"acme": provider("acme"), "umbra": provider("umbra")},
    models={
        "small": ModelSettings(provider="acme", model="s1", family="s"),
        "small-again": ModelSettings(provider="acme", model="s2", family="s"),
        "large": ModelSettings(provider="umbra", model="l1"),
    },
    limits={"umbra": LimitSettings(concurrency=3)},
    default_model="small",
)
TYPES = frozenset({"chat", "report"})


def lane(kind="chat", model=None, queue="default", waiting=5):
    return LaneDepth(f"{queue}|{kind}|{model or ''}", queue, kind, model, waiting)


def plan(*lanes, slots=4, allowances=None):
    return plan_claim(lanes, slots=slots, settings=SETTINGS, types=TYPES, allowances=allowances or {}, now_ms=NOW)


def test_a_lane_that_can_be_run_gets_every_slot_and_its_key():
    made = plan(lane(model="small"), lane(), lane("report"), lane("report", "large"))
    assert set(made.quotas.values()) == {4}
    assert made.keys == {"default|chat|small": "acme/s", "default|chat|": "acme/s", "default|report|large": "umbra"}
    assert not made.unroutable


def test_a_job_claimed_before_its_key_was_held_leaves_the_reason_of_the_hold():
    held = Allowance(0, NOW + 1, "overloaded")
    assert held.less_one() == held
    assert Allowance(3, NOW + 1).less_one() == Allowance(2, NOW + 1)


def test_what_nobody_here_can_run_is_named_with_the_reason():
    made = plan(lane("dance"), lane(model="clever"))
    assert made.quotas == {}
    assert made.unroutable["default|dance|"] == "no handler for type 'dance' here (known: chat, report)"
    assert made.unroutable["default|chat|clever"].startswith("model 'clever' is not configured")


def test_lanes_of_one_key_share_its_allowance_and_other_keys_do_not_feel_it():
    allowances = {"acme/s": Allowance(3, NOW + 1), "other": Allowance(0, NOW + 1)}
    made = plan(lane(model="small"), lane(model="small-again"), lane(model="large"), allowances=allowances)
    assert made.quotas == {"default|chat|small": 3, "default|chat|small-again": 3, "default|chat|large": 4}
    assert (
        made.keys["default|chat|small"] == made.keys["default|chat|small-again"]
    )  # so the claim takes three of both together


def test_a_held_key_is_left_out_until_its_hold_has_passed():
    assert plan(lane(model="small"), allowances={"acme/s": Allowance(0, NOW + 1)}).quotas == {}
    assert plan(lane(model="small"), allowances={"acme/s": Allowance(0, NOW)}).quotas == {"default|chat|small": 4}


models = st.sampled_from([None, "small", "small-again", "large", "clever"])
lanes_of = st.lists(
    st.builds(lane, st.sampled_from(["chat", "report", "dance"]), models, st.sampled_from(["a", "b"])),
    unique_by=lambda one: one.lane,
    max_size=12,
)
allowances_of = st.dictionaries(
    st.sampled_from(["acme/s", "umbra"]), st.builds(Allowance, st.integers(0, 6), st.integers(NOW - 2, NOW + 2))
)


@given(lanes_of, st.integers(0, 8), allowances_of)
def test_a_plan_never_promises_more_than_there_is(lanes, slots, allowances):
    made = plan(*lanes, slots=slots, allowances=allowances)
    assert all(0 < quota <= slots for quota in made.quotas.values())
    assert set(made.quotas).isdisjoint(made.unroutable)
    assert set(made.quotas) | set(made.unroutable) <= {one.lane for one in lanes}
    for key, allowance in allowances.items():  # the lanes of a key have their quota, the same number, together
        together = {quota for name, quota in made.quotas.items() if made.keys.get(name) == key}
        assert len(together) <= 1
        assert allowance.until_ms <= NOW or all(quota <= allowance.left for quota in together)


# -- the pool -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "memory", "allowed"),
    [
        (3, None, 16),
        (3, 100.0, 16),
        (3, 474.9, 16),
        (3, 475.0, 3),
        (3, 499.0, 3),
        (3, 500.0, 2),
        (3, 900.0, 2),
        (1, 900.0, 1),
    ],
)
def test_memory_stops_the_growth_and_then_shrinks_the_pool(running, memory, allowed):
    assert runners_allowed(minimum=1, maximum=16, running=running, memory_mb=memory, cap_mb=500) == allowed


@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 30), st.none() | st.floats(0, 1000))
def test_the_pool_stays_between_its_bounds(minimum, more, running, memory):
    maximum = minimum + more
    allowed = runners_allowed(minimum=minimum, maximum=maximum, running=running, memory_mb=memory, cap_mb=500)
    assert minimum <= allowed <= maximum


idlers = st.dictionaries(st.integers(1, 20).map("runner-{}".format), st.floats(0, 100), max_size=12)


@given(idlers, st.integers(0, 8), st.integers(1, 4), st.integers(1, 20), st.floats(100, 200))
def test_only_idle_runners_leave_and_the_minimum_stays(idle, busy, minimum, allowed, now):
    running = len(idle) + busy
    leaving = surplus(idle, running=running, minimum=minimum, allowed=allowed, now=now, idle_timeout=30.0)
    assert len(set(leaving)) == len(leaving)
    assert set(leaving) <= set(idle)
    assert not leaving or running - len(leaving) >= minimum
    stayed = [since for name, since in idle.items() if name not in leaving]
    assert all(idle[name] <= since for name in leaving for since in stayed)  # who idles longest goes first


def test_a_pool_in_use_does_not_flap():
    """Four runners of which two are busy by turns: nobody leaves before idling for the whole timeout."""
    idle = {"runner-1": 0.0, "runner-2": 0.0}
    for now in range(1, 100):
        assert surplus(idle, running=4, minimum=1, allowed=16, now=float(now), idle_timeout=3.0) == []
        idle = {f"runner-{1 + now % 4}": float(now), f"runner-{1 + (now + 1) % 4}": float(now)}
    assert surplus({"runner-1": 0.0}, running=1, minimum=1, allowed=16, now=1e9, idle_timeout=3.0) == []


def test_jobs_of_a_key_are_taken_by_few_and_others_are_not():
    made = plan(lane(), lane("report"), lane("report", "large"), slots=64)
    assert made.quotas == {"default|chat|": 8, "default|report|": 64, "default|report|large": 8}
    assert made.most == 80
    again = plan(lane(), lane(model="small"), slots=64)
    assert (again.most, set(again.quotas.values())) == (8, {8}), "lanes of one key have their quota together"


def test_a_large_pool_is_filled_in_a_dozen_looks():
    settings = msgspec.structs.replace(SETTINGS, runners=RunnerSettings(max=600))
    made = plan_claim([lane()], slots=64, settings=settings, types=TYPES, allowances={}, now_ms=NOW)
    assert made.most == 50
