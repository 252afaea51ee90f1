"""Flows and children in an embedded company: results are given on, children pause their parent without a runner, nothing is paid for twice."""

import asyncio
import threading

import pytest

from callboard import FlowJob
from callboard.actors.providers.model import Message
from callboard.actors.runner.chat import with_results
from callboard.actors.runner.effects import CallModel, SpawnChildren
from callboard.actors.runner.results import results_text
from callboard.persistence.errors import InvalidJobError
from callboard.persistence.lifecycle import JobState
from callboard.persistence.model import JobInput


def prompts(stage):
    return [entry["body"]["messages"][-1]["content"] for entry in stage.simulator.journal()]


def given(name="a", state=JobState.COMPLETED, *, counted=True, policy="fail", result=None, error=None):
    return JobInput(
        job_id=7, name=name, step="", policy=policy, counted=counted, state=state, result=result, error=error
    )


def test_results_take_their_place_in_the_prompt(stage):
    stage.company()
    added = stage.queue.add_flow(
        {
            "first": {"type": "chat", "data": {"prompt": "One fact."}},
            "second": {"type": "chat", "data": {"prompt": "Another fact."}},
            "both": {
                "type": "chat",
                "data": {"prompt": "Join these: {results}"},
                "needs": ["second", "first"],
            },
            "alone": {"type": "chat", "data": {"prompt": "No {results} here."}},
        }
    )
    assert stage.done(added["both"]).state == "completed"
    stage.done(added["alone"])
    texts = [added[name].result["text"] for name in ("second", "first")]
    assert f"Join these: {texts[0]}\n\n{texts[1]}" in prompts(stage)
    assert "No {results} here." in prompts(stage)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([given(result={"text": "told"}), given(result=[1, "é"])], 'told\n\n[1, "é"]'),
        ([given(result="plain"), given(counted=False, result="late")], "plain"),
        ([given(state=JobState.FAILED, policy="ignore", error={"message": "no"})], ""),
        ([given(state=JobState.FAILED, policy="continue", error={"message": "no"})], "[a failed: no]"),
        ([given(None, JobState.CANCELLED, policy="continue")], "[job 7 was cancelled: no reason is known]"),
    ],
)
def test_what_stands_for_the_results(inputs, expected):
    assert results_text(inputs) == expected
    call = CallModel(step="s", messages=(Message("system", "{results}"), Message("user", "x {results} y")))
    assert [message.content for message in with_results(call, inputs).messages] == [expected, f"x {expected} y"]


def parts(count=3):
    return [{"type": "chat", "data": {"prompt": f"Part {n} of the plan."}} for n in range(count)]


def sync_agent(ctx):
    plan = ctx.complete("Make a plan.", step="plan").text
    found = ctx.children(parts())
    merged = " ".join(child.result["text"] for child in found)
    return ctx.complete(f"Merge: {plan} {merged}", step="merge").text


async def async_agent(ctx):
    plan = (await ctx.complete("Make a plan.", step="plan")).text
    found = await ctx.children(parts())
    merged = " ".join(child.result["text"] for child in found)
    return (await ctx.complete(f"Merge: {plan} {merged}", step="merge")).text


def generator_agent(job):
    plan = (yield CallModel(step="plan", messages=(Message("user", "Make a plan."),))).text
    found = yield SpawnChildren(jobs=tuple(parts()))
    merged = " ".join(child.result["text"] for child in found)
    return (yield CallModel(step="merge", messages=(Message("user", f"Merge: {plan} {merged}"),))).text


@pytest.mark.parametrize("agent", [sync_agent, async_agent, generator_agent])
def test_a_handler_of_each_kind_creates_children_and_comes_back_with_their_results(stage, agent):
    stage.company({"agent": agent})
    job = stage.queue.add("agent", priority=5, tag="t")
    assert stage.done(job).state == "completed"
    sent = prompts(stage)
    assert len(sent) == 5
    assert len(set(sent)) == 5
    assert [(child.row().priority, child.row().tag, child.row().state) for child in job.children()] == [
        (5, "t", "completed")
    ] * 3
    assert [t.to_state for t in job.transitions()] == [
        "waiting",
        "active",
        "waiting_children",
        "waiting",
        "active",
        "completed",
    ]
    assert (job.row().failures, job.row().losses, job.row().deferrals) == (0, 0, 0)


def test_one_runner_is_enough_for_children_of_any_depth(stage):
    def nested(ctx):
        depth = ctx.job.data["depth"]
        if depth == 0:
            return 1
        found = ctx.children([{"type": "nested", "data": {"depth": depth - 1}}] * 2)
        return sum(child.result for child in found)

    from callboard.actors.settings import RunnerSettings

    stage.company({"nested": nested}, runners=RunnerSettings(min=1, max=1))
    job = stage.queue.add("nested", {"depth": 4})
    assert stage.done(job).state == "completed"
    assert job.result == 16
    assert stage.queue.counts()["completed"] == 31


def test_a_quorum_of_children_and_a_failure_that_is_told(stage):
    def worker(ctx):
        if ctx.job.data["n"] == 0:
            raise InvalidJobError("data.n", "is broken on purpose")
        return ctx.job.data["n"]

    def agent(ctx):
        jobs = [{"type": "worker", "data": {"n": n}} for n in range(3)]
        told = ctx.children(jobs, step="told", policy="continue")
        some = ctx.children(jobs, step="some", quorum=2)
        return {
            "told": [child.error["class"] if child.error else child.result for child in told],
            "some": [child.result for child in some],
            "none": ctx.children([], step="none"),
        }

    stage.company({"agent": agent, "worker": worker})
    job = stage.queue.add("agent")
    assert stage.done(job).state == "completed"
    assert job.result == {"told": ["invalid", 1, 2], "some": [None, 1, 2], "none": []}


def test_children_that_cannot_be_are_refused_in_the_handler(stage):
    refused = []

    def agent(ctx):
        for jobs, more in (
            ([{"type": "chat", "key": "k"}], {}),
            ([{"type": "chat", "conversation": "c"}], {}),
            ([{"type": "chat", "policy": "hope"}], {}),
            ([{"type": "chat"}], {"quorum": 2}),
            ([{"type": "chat"}], {"step": "@turn"}),
            ([{"type": "chat", "data": {"x": float("nan")}}], {}),
            ([FlowJob(name="x", type="chat", unique="u")], {}),
        ):
            try:
                ctx.children(jobs, **{"step": f"s{len(refused)}", **more})
            except InvalidJobError as error:
                refused.append(error.field)
        return ctx.children([{"type": "nobody", "colour": "red"}], step="last")

    stage.company({"agent": agent})
    job = stage.queue.add("agent")
    assert stage.done(job).state == "failed"
    assert refused == [
        "jobs[0].key",
        "jobs[0].conversation",
        "jobs[0].policy",
        "quorum",
        "step",
        "jobs[0].data.x",
        "jobs[0].unique",
    ]
    assert job.error["class"] == "invalid"
    assert "jobs[0].colour" in job.error["message"]
    assert stage.queue.counts()["waiting"] == 0


def test_calls_beside_the_children_are_let_finish_and_are_paid_for_once(stage):
    stage.simulate(latency=0.1)

    async def agent(ctx):
        answer, found = await asyncio.gather(ctx.complete("Beside.", step="beside"), ctx.children(parts(1)))
        return [answer.text, found[0].result["text"]]

    stage.company({"agent": agent})
    job = stage.queue.add("agent")
    assert stage.done(job).state == "completed"
    assert sorted(prompts(stage)) == ["Beside.", "Part 0 of the plan."]
    assert [call.state for call in job.calls()] == ["completed"]


def test_a_step_may_not_create_children_twice_in_one_attempt(stage):
    def agent(job):
        yield SpawnChildren(jobs=({"type": "chat", "data": {"prompt": "x"}},))
        yield SpawnChildren(jobs=({"type": "chat", "data": {"prompt": "x"}},))

    stage.company({"agent": agent})
    job = stage.queue.add("agent", max_attempts=1)
    assert stage.done(job).state == "failed"
    assert "used twice" in job.error["message"]


def test_a_crash_between_spawning_and_resuming_creates_nothing_twice(stage):
    begun, go_on = threading.Event(), threading.Event()

    def slow(ctx):
        begun.set()
        assert go_on.wait(20)
        return "done"

    def agent(ctx):
        first = ctx.children([{"type": "slow"}], step="first")
        yielded = ctx.step("noted", lambda: first[0].result)
        second = ctx.children([{"type": "slow"}], step="second")
        return [yielded, second[0].result]

    supervisor = stage.company({"agent": agent, "slow": slow})
    job = stage.queue.add("agent")
    assert begun.wait(20)
    stage.crash(supervisor, "store")
    go_on.set()
    assert stage.done(job).state == "completed"
    assert job.result == ["done", "done"]
    assert len(job.children()) == 2


def test_a_cancel_by_plain_sql_is_found_by_the_sweep(stage):
    stage.company()
    first = stage.queue.add("chat", {"prompt": "x"}, delay=3600)
    last = stage.queue.add("chat", {"prompt": "y"}, needs=[first])
    with stage.queue._writer() as connection:
        connection.script(f"UPDATE llm_jobs SET state = 'cancelled', run_at = NULL WHERE id = {first.id}")
    assert stage.done(last).state == "failed"
    assert last.row().reason == f"what it waits on did not complete: job {first.id} cancelled"


def test_a_long_cascade_ends_in_the_worker_at_once(stage):
    stage.company({"broken": lambda ctx: (_ for _ in ()).throw(InvalidJobError("x", "broken"))}, sweep_interval=60.0)
    added = stage.queue.add_flow(
        {str(n): {"type": "chat", "needs": [str(n - 1)]} if n else {"type": "broken"} for n in range(1000)}
    )
    assert stage.done(added["999"]).state == "failed"
