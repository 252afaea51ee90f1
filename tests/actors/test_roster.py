"""Runner groups: who can run what, what each may claim, whom to start. And what a plan says of lanes that are nobody's here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.messages import ClaimPart
from callboard.actors.plan import Allowance, plan_claim
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.roster import Roster, asked, runner_groups
from callboard.actors.settings import ClaimSettings, CompanySettings, GroupSettings, ModelSettings, RunnerSettings
from callboard.persistence.model import LaneDepth, lane_name

NOW = 1_000_000
TYPES = frozenset({"chat", "ocr", "embed"})


def settings(groups=None, *, runners=6, **claims):
    provider = ProviderSettings(name="acme", wire="openai-chat", base_url="https://provider.example/v1")
    return CompanySettings(
        database="sqlite://",
        runners=RunnerSettings(max=runners),
        claims=ClaimSettings(**claims),
        groups={name: GroupSettings(**group) for name, group in (groups or {}).items()},
        providers={"acme": provider},
        models={
            "m": ModelSettings(provider="acme", model="m"),
            "n": ModelSettings(provider="acme", model="n", family="m"),
        },
        default_model="m",
    )


def lane(kind="ocr", *requires, queue="default", model=None, paused=False):
    return LaneDepth(lane_name(queue, kind, model, requires), queue, kind, model, 5, requires, paused)


def plan(configured, *lanes, slots=4, allowances=None):
    return plan_claim(lanes, slots=slots, settings=configured, types=TYPES, allowances=allowances or {}, now_ms=NOW)


GPU = {
    "gpu": {"runners": 2, "tags": ["gpu"]},
    "text": {"runners": 3, "types": ["chat", "embed"], "queues": ["default"]},
}


def test_groups_have_their_own_runners_and_the_rest_are_others():
    groups = runner_groups(settings(GPU))
    assert [(group.name, group.names) for group in groups] == [
        ("gpu", ["runner-1", "runner-2"]),
        ("text", ["runner-3", "runner-4", "runner-5"]),
        ("others", ["runner-6"]),
    ]
    assert [group.name for group in runner_groups(settings(GPU, runners=5))] == ["gpu", "text"]
    assert [group.name for group in runner_groups(settings())] == ["others"]


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"5 runners together, more than runners\.max, which is 4"):
        runner_groups(settings(GPU, runners=4))
    with pytest.raises(ValueError, match="another name"):
        runner_groups(settings({"others": {"runners": 1}}))


def test_a_lane_is_for_the_groups_that_are_capable_of_it():
    made = plan(settings(GPU), lane("ocr"), lane("ocr", "gpu"), lane("chat"), lane("embed", queue="night"))
    assert made.groups == {
        "default|ocr||": {"gpu", "others"},
        "default|ocr||gpu": {"gpu"},
        "default|chat||": {"gpu", "text", "others"},
        "night|embed||": {"gpu", "others"},
    }
    assert not made.unroutable


def test_the_worker_s_own_tags_are_everybodys():
    made = plan(settings(GPU, tags=["eu"]), lane("ocr", "eu", "gpu"), lane("ocr", "eu"))
    assert made.groups == {"default|ocr||eu,gpu": {"gpu"}, "default|ocr||eu": {"gpu", "others"}}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (lane("dance"), "no handler for type 'dance' here (known: chat, embed, ocr)"),
        (lane("ocr", "gpu", "vision"), "no runner here has 'vision' (tags here: gpu)"),
        (lane("chat", model="clever"), "model 'clever' is not configured"),
    ],
)
def test_what_is_missing_is_named(wanted, reason):
    made = plan(settings(GPU), wanted)
    assert made.unroutable[wanted.lane].startswith(reason)
    assert made.refused == {wanted.lane}
    assert made.quotas == {}


def test_a_type_that_no_group_takes_is_unroutable():
    only_text = {"text": {**GPU["text"], "runners": 6}}
    made = plan(settings(only_text), lane("ocr"), lane("embed", queue="night"))
    assert made.unroutable == {
        "default|ocr||": "no runner group here takes type 'ocr' in queue 'default' (groups: text)",
        "night|embed||": "no runner group here takes type 'embed' in queue 'night' (groups: text)",
    }


def test_what_is_left_to_other_workers_is_no_obstacle_and_paused_queues_get_nothing():
    configured = settings(types=["chat", "ocr"], queues=["default"])
    made = plan(configured, lane("ocr"), lane("embed"), lane("ocr", queue="night"), lane("chat", paused=True))
    assert (list(made.quotas), made.unroutable) == (["default|ocr||"], {})
    assert made.elsewhere == {"default|embed||", "night|ocr||"}
    assert made.paused == {"default|chat||"}


def test_lanes_of_one_key_are_given_its_allowance_together():
    made = plan(
        settings(), lane("chat"), lane("chat", model="n"), lane("ocr"), allowances={"acme/m": Allowance(2, NOW + 1)}
    )
    assert made.quotas == {"default|chat||": 2, "default|chat|n|": 2, "default|ocr||": 4}
    assert made.keys == {"default|chat||": "acme/m", "default|chat|n|": "acme/m"}


def test_each_group_claims_for_its_own_free_runners_and_the_first_moves_on():
    roster = Roster(runner_groups(settings(GPU)))
    capable = {"a": {"gpu"}, "b": {"text", "others"}}
    made = roster.parts(capable, busy=["runner-1", "runner-3"], unassigned=["text"], slots=9, turn=0)
    assert made == (ClaimPart("gpu", 1, ("a",)), ClaimPart("text", 1, ("b",)), ClaimPart("others", 1, ("b",)))
    turned = roster.parts(capable, busy=["runner-6"], unassigned=["gpu", "gpu"], slots=2, turn=2)
    assert turned == (ClaimPart("text", 2, ("b",)),)
    assert [part.group for part in roster.parts(capable, busy=[], unassigned=[], slots=9, turn=4)] == [
        "text",
        "others",
        "gpu",
    ]
    assert asked({"a": 5, "b": 1}, made) == {("gpu", "a"): 1, ("text", "b"): 1, ("others", "b"): 1}


def test_runners_are_started_for_the_group_whose_jobs_wait():
    roster = Roster(runner_groups(settings(GPU)))
    assert roster.to_start({"runner-3"}, starting=["runner-3"], unassigned=["text", "text"], at_least=0) == ["runner-4"]
    assert roster.to_start({"runner-1"}, starting=[], unassigned=["gpu", "gpu"], at_least=3) == [
        "runner-2",
        "runner-3",
        "runner-4",
    ]
    assert roster.to_start(set(roster.names), starting=[], unassigned=["gpu"], at_least=1) == []


names = st.sets(st.sampled_from(["x", "y", "z"]))
groups_of = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.fixed_dictionaries(
        {
            "runners": st.integers(1, 3),
            "tags": names.map(sorted),
            "types": st.none() | st.lists(st.sampled_from(sorted(TYPES)), unique=True),
        }
    ),
)
lanes_of = st.lists(
    st.builds(lambda kind, tags: lane(kind, *sorted(tags)), st.sampled_from(sorted(TYPES)), names),
    unique_by=lambda one: one.lane,
)


@given(groups_of, lanes_of, st.sets(st.integers(1, 10)), st.integers(0, 9), st.integers(0, 9))
def test_no_part_is_beyond_its_group_and_no_lane_is_forgotten(groups, lanes, busy, slots, turn):
    configured = settings(groups, runners=10)
    roster = Roster(runner_groups(configured))
    made = plan(configured, *lanes, slots=slots)
    parts = roster.parts(made.groups, busy=[f"runner-{n}" for n in busy], unassigned=[], slots=slots, turn=turn)
    by_name = {group.name: group for group in roster.groups}
    depth = {one.lane: one for one in lanes}
    for part in parts:
        group = by_name[part.group]
        free = [name for name in group.names if int(name.removeprefix("runner-")) not in busy]
        assert 0 < part.slots <= min(slots, len(free))
        for name in part.lanes:
            assert group.tags.issuperset(depth[name].requires)
            assert group.types is None or depth[name].type in group.types
    assert set(made.unroutable) == {one.lane for one in lanes if not any(group.can_run(one) for group in roster.groups)}
    if slots:
        assert set(made.quotas) | set(made.unroutable) == set(depth)
