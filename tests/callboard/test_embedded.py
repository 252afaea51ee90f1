"""The company in a host's process: handlers of each kind, what is remembered of them, cancelling, the pool, and stopping."""

import asyncio
import subprocess
import sys
import threading

import pytest

from callboard import CompanyFailedError, JobInterrupted, JobState, Supervisor
from callboard.actors.providers.model import Message
from callboard.actors.runner import actor as runner_module
from callboard.actors.runner.effects import CallModel, KeepValue, ShowProgress
from callboard.actors.settings import RunnerSettings
from callboard.actors.supervisor import tree
from callboard.persistence import job_store

ONE = RunnerSettings(min=1, max=1)


def with_a_thread(ctx):
    fetched = ctx.step("fetch", lambda: ["a", 1])
    ctx.progress(50, "halfway")
    return [fetched, ctx.complete("First. Sentence.").text, ctx.complete("Second. Sentence.", step="two").finish]


async def on_the_loop(ctx):
    async def fetch():
        return ["a", 1]

    fetched = await ctx.step("fetch", fetch)
    ctx.progress(50, "halfway")
    first, second = await asyncio.gather(
        ctx.complete("First. Sentence."), ctx.complete("Second. Sentence.", step="two")
    )
    return [fetched, first.text, second.finish]


def as_a_generator(job):
    yield KeepValue("fetch", ["a", 1])
    yield ShowProgress(50, "halfway")
    first = yield CallModel(step="call-1", messages=(Message("user", "First. Sentence."),))
    second = yield CallModel(step="two", messages=(Message("user", "Second. Sentence."),))
    return [["a", 1], first.text, second.finish]


@pytest.mark.parametrize("handler", [with_a_thread, on_the_loop, as_a_generator])
def test_every_kind_of_handler_speaks_the_same_protocol(stage, handler):
    stage.company({"work": handler})
    job = stage.queue.add("work", {"n": 1})
    row = stage.done(job)
    assert row.state is JobState.COMPLETED, (row, job.error)
    assert job.result == [["a", 1], "First.", "stop"]
    assert {call.step: call.state for call in job.calls()} == {"call-1": "completed", "two": "completed"}
    assert [t.to_state for t in job.transitions()] == ["waiting", "active", "completed"]
    assert len(stage.simulator.journal()) == 2
    assert (row.failures, row.losses, row.deferrals) == (0, 0, 0)


def broken_thread(ctx):
    raise SystemExit("a handler cannot end the process")


async def broken_coroutine(ctx):
    raise KeyboardInterrupt


def broken_generator(job):
    yield "not an effect"


@pytest.mark.parametrize(
    ("handler", "told"),
    [(broken_thread, "SystemExit"), (broken_coroutine, "KeyboardInterrupt"), (broken_generator, "TypeError")],
)
def test_whatever_a_handler_raises_is_its_job_s_error_only(stage, handler, told):
    supervisor = stage.company({"bad": handler})
    row = stage.done(stage.queue.add("bad", max_attempts=2))
    assert (row.state, row.failures, row.losses) == ("failed", 2, 0)
    assert row.reason.startswith(told)
    assert stage.done(stage.queue.add("chat", {"prompt": "Hello. World."})).state == "completed"
    assert supervisor.failure is None


# -- what is remembered ---------------------------------------------------------------------------------------------------


def test_steps_and_completions_survive_the_crash_of_the_runner(stage):
    gate, runs, steps = threading.Event(), [], []

    def handler(ctx):
        value = ctx.step("fetch", lambda: steps.append("fetched") or len(steps))
        text = ctx.complete("First. Sentence.").text
        runs.append(ctx.job.attempt)
        if len(runs) == 1:
            gate.wait(20)
        return [value, text]

    supervisor = stage.company({"work": handler}, runners=ONE)
    job = stage.queue.add("work")
    stage.until(lambda: runs)
    stage.crash(supervisor, "runner-1")
    stage.until(lambda: len(runs) == 2)
    gate.set()
    row = stage.done(job)
    assert (row.state, row.losses, row.failures) == ("completed", 1, 0)
    assert job.result == [1, "First."]
    assert steps == ["fetched"]
    assert len(stage.simulator.journal()) == 1
    assert [t.reason for t in job.transitions() if t.to_state == "waiting"][1:] == [
        "runner crashed: UnhandledMessageError: JobRunnerActor 'runner-1' has no case for object; send it elsewhere or add the case"
    ]


def test_a_completion_is_not_paid_for_again_by_a_retry(stage):
    def handler(ctx):
        text = ctx.complete("First. Sentence.").text
        if ctx.job.failures == 0:
            raise RuntimeError("after the call")
        return text

    stage.company({"work": handler})
    job = stage.queue.add("work")
    row = stage.done(job)
    assert (row.state, row.failures, job.result) == ("completed", 1, "First.")
    assert len(stage.simulator.journal()) == len(job.calls()) == 1


@pytest.mark.parametrize(
    ("name", "requests", "losses"),
    [("limiter:sim/m-1", 1, 0), ("dispatcher", 1, 0), ("runner-1", 2, 1), ("provider:sim", 2, 0), ("store", 2, 0)],
)
def test_whoever_crashes_in_the_middle_of_a_call_the_job_is_done_once(stage, name, requests, losses):
    stage.simulator.faults({"fault": {"kind": "slow_first_byte", "seconds": 0.6}, "times": 1})
    supervisor = stage.company(runners=ONE)
    job = stage.queue.add("chat", {"prompt": "First. Sentence."})
    stage.simulator.wait_for(lambda journal: journal)
    stage.crash(supervisor, name)
    row = stage.done(job)
    assert (row.state, row.failures, row.losses) == ("completed", 0, losses), job.transitions()
    assert len(stage.simulator.journal()) == requests
    assert sum(call.state == "completed" for call in job.calls()) == 1
    assert stage.done(stage.queue.add("chat", {"prompt": "Another. One."})).state == "completed"
    assert supervisor.failure is None


def test_a_runner_that_hangs_is_replaced_and_what_it_does_afterwards_changes_nothing(stage, monkeypatch):
    monkeypatch.setattr(tree, "HANG_AFTER", 0.2)
    gate, runs = threading.Event(), []

    def handler(job):
        runs.append(job.attempt)
        if len(runs) == 1:
            gate.wait(20)  # in the runner itself, where a generator must never wait
        completion = yield CallModel(step="call", messages=(Message("user", "First. Sentence."),))
        return [job.attempt, completion.text]

    supervisor = stage.company({"work": handler}, runners=ONE)
    job = stage.queue.add("work")
    try:
        row = stage.done(job)
    finally:
        gate.set()
    assert (row.state, row.losses, row.failures, job.result) == ("completed", 1, 0, [2, "First."])
    assert "runner hung in RunJob" in [t.reason for t in job.transitions()][2]
    log = job.transitions()
    stage.until(
        lambda: supervisor._system.actor("runners").status().abandoned == 0
    )  # the thread has come back, and ended
    assert (stage.queue.get(job.id).row(), job.transitions(), len(stage.simulator.journal())) == (row, log, 1)
    assert stage.done(stage.queue.add("work")).state == "completed"


# -- progress -------------------------------------------------------------------------------------------------------------


def test_progress_never_falls_and_is_written_now_and_then(stage, monkeypatch):
    written, gate = [], threading.Event()
    set_progress = job_store.set_progress

    def count(connection, lease, percent, message, now):
        written.append(percent)
        return set_progress(connection, lease, percent, message, now)

    monkeypatch.setattr(job_store, "set_progress", count)

    def handler(ctx):
        for percent in range(61):
            ctx.progress(percent, "rising")
        ctx.progress(20)
        gate.wait(20)

    stage.company({"work": handler})
    job = stage.queue.add("work")
    stage.until(lambda: job.row().progress == 60)
    assert job.row().progress_message == "rising"
    gate.set()
    assert stage.done(job).progress == 100
    assert written == sorted(written)
    assert len(written) <= 5  # 62 reports in a few milliseconds


# -- cancelling -----------------------------------------------------------------------------------------------------------


def test_a_cancel_from_another_process_aborts_the_request_and_interrupts_the_handler(stage):
    stage.simulator.faults({"fault": {"kind": "stall", "n": 1}})
    seen = []

    def handler(ctx):
        try:
            ctx.complete("First. Sentence.")
        except JobInterrupted:
            seen.append(("interrupted", ctx.interrupted))
            raise

    supervisor = stage.company({"work": handler})
    job = stage.queue.add("work")
    stage.simulator.wait_for(lambda journal: journal)
    code = f"from callboard import JobQueue; assert JobQueue({stage.database!r}).cancel({job.id}, 'changed my mind')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    (entry,) = stage.simulator.wait_for(lambda journal: journal[0]["outcome"])
    row = stage.done(job)
    assert entry["outcome"] == "aborted_by_client"
    assert entry["ended_at"] - row.finished_at < 1500
    assert (row.state, row.reason) == ("cancelled", "changed my mind")
    stage.until(lambda: seen == [("interrupted", True)])
    stage.until(lambda: supervisor.status().busy == 0)
    assert [call.state for call in job.calls()] == ["unknown"]


def test_an_async_handler_may_await_while_it_is_cleaned_up(stage):
    began, cleaned = threading.Event(), []

    async def handler(ctx):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):  # longer than the poll that repeats the news of the cancel
                await asyncio.sleep(0.01)
            cleaned.append(ctx.interrupted)

    supervisor = stage.company({"work": handler})
    job = stage.queue.add("work")
    assert began.wait(20)
    job.cancel()
    stage.until(lambda: cleaned == [True])
    stage.until(lambda: supervisor.status().busy == 0)
    assert supervisor.status().abandoned == 0


# -- the pool -------------------------------------------------------------------------------------------------------------


def test_the_pool_grows_with_what_waits_and_shrinks_when_it_idles(stage):
    stage.simulator.faults({"fault": {"kind": "barrier", "n": 4}, "times": 8})  # only four at once get an answer
    supervisor = stage.company(runners=RunnerSettings(min=1, max=4, idle_timeout=0.3))
    ids = stage.queue.add_many([{"type": "chat", "data": {"prompt": "First. Sentence."}} for _ in range(8)])
    for job_id in ids:
        assert stage.done(stage.queue.get(job_id)).state == "completed"
    assert stage.simulator.stats()["in_flight_max"] == 4
    stage.until(lambda: supervisor.status().runners == 1)


def test_one_runner_takes_the_highest_priority_first_then_the_oldest(stage):
    gate, order = threading.Event(), []

    def handler(ctx):
        gate.wait(20)
        order.append(ctx.job.data)

    supervisor = stage.company({"work": handler}, runners=ONE)
    first = stage.queue.add("work", "first")
    stage.until(lambda: first.state is JobState.ACTIVE)
    jobs = [stage.queue.add("work", [p, n], priority=p) for n, p in enumerate([0, 10, -5, 10, 100])]
    gate.set()
    for job in jobs:
        stage.done(job)
    assert order == ["first", [100, 4], [10, 1], [10, 3], [0, 0], [-5, 2]]
    assert supervisor.status().claimed == 6


# -- stopping and giving up -----------------------------------------------------------------------------------------------


def test_a_stop_hands_back_what_does_not_end_in_time(stage):
    began = threading.Event()

    def handler(ctx):
        began.set()
        ctx.complete("First. Sentence.")

    stage.simulator.faults({"fault": {"kind": "stall", "n": 1}, "times": 1})
    supervisor = stage.company({"work": handler})
    job = stage.queue.add("work", max_attempts=1)
    stage.simulator.wait_for(lambda journal: journal)
    assert supervisor.stop(0.05)
    row = job.row()
    assert (row.state, row.failures, row.losses, row.deferrals) == ("waiting", 0, 0, 0)
    assert row.reason == "the worker is stopping"
    assert stage.simulator.wait_for(lambda j: j[0]["outcome"])[0]["outcome"] == "aborted_by_client"
    stage.company({"work": handler})
    assert stage.done(job).state == "completed"


def test_a_stop_waits_for_what_ends_in_time_and_claims_nothing_more(stage):
    gate, began = threading.Event(), threading.Event()

    def handler(ctx):
        began.set()
        gate.wait(20)
        return "done"

    supervisor = stage.company({"work": handler}, runners=ONE)
    job = stage.queue.add("work")
    assert began.wait(20)
    later = stage.queue.add("work")
    stopping = threading.Thread(target=supervisor.stop, args=(20.0,))
    stopping.start()
    stage.until(lambda: supervisor.status().draining)
    gate.set()
    stopping.join(20)
    assert (job.state, later.state) == ("completed", "waiting")


def test_too_many_handlers_that_will_not_end_make_the_company_give_up_and_the_host_lives(stage, monkeypatch):
    monkeypatch.setattr(runner_module, "HANDLER_GRACE", 0.05)
    gate, told = threading.Event(), []

    def handler(ctx):
        gate.wait(20)  # hears nothing of an interruption

    supervisor = stage.company({"work": handler}, max_abandoned=1, on_failure=told.append, runners=ONE)
    jobs = [stage.queue.add("work", options={"job_timeout": 0.05}, max_attempts=1) for _ in range(3)]
    try:
        stage.until(lambda: told)
        assert "2 handlers did not end when they were interrupted" in told[0]
        assert supervisor.failure == told[0]
        assert supervisor.wait(20)
        with pytest.raises(CompanyFailedError, match="did not end when they were interrupted"):
            supervisor.status()
        states = [job.state for job in jobs]
        assert states[:2] == ["failed", "failed"]
        supervisor.stop()
        assert jobs[2].state in ("waiting", "failed")  # never left as if somebody worked on it
        assert stage.queue.add("work").state == "waiting"
    finally:
        gate.set()


def test_a_handler_that_ends_after_all_is_not_counted_any_more(stage, monkeypatch):
    monkeypatch.setattr(runner_module, "HANDLER_GRACE", 0.05)
    gate = threading.Event()
    supervisor = stage.company({"work": lambda ctx: gate.wait(20)}, runners=RunnerSettings(max=2, idle_timeout=0.1))
    job = stage.queue.add("work", options={"job_timeout": 0.05}, max_attempts=1)
    try:
        stage.until(lambda: supervisor.status().abandoned == 1)
        assert stage.done(job).state == "failed"
    finally:
        gate.set()
    stage.until(lambda: supervisor.status().abandoned == 0)


def test_it_is_started_once_and_may_be_stopped_twice(stage):
    supervisor = stage.company()
    with pytest.raises(CompanyFailedError, match="started before"):
        supervisor.start()
    assert supervisor.stop()
    assert supervisor.stop()
    with pytest.raises(CompanyFailedError):
        supervisor.status()
    with Supervisor(stage.config()) as again:
        assert again.status().runners == 1
