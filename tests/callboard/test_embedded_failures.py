"""What becomes of a job when calls fail, limits hold, time runs out or the database refuses work: the documented state, at the documented cost."""

from contextlib import closing
from functools import partial

import pytest

from callboard import JobState
from callboard.actors.settings import LimitSettings, ModelSettings, RunnerSettings
from callboard.persistence.board import WorkerBoard
from callboard.persistence.engine import driver, open_database

ONE = RunnerSettings(min=1, max=1)
PROMPT = {"prompt": "First. Sentence."}


def requests(stage):
    return len(stage.simulator.journal())


# -- the classes of failure -----------------------------------------------------------------------------------------------

PASSING = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 529},
    {"kind": "status", "status": 408},
    {"kind": "html"},
    {"kind": "empty"},
    {"kind": "malformed_json"},
    {"kind": "cut"},
    {"kind": "cut", "n": -1},
    {"kind": "no_terminal", "n": 1},
    {"kind": "error_event"},
]
FINAL = [
    ({"kind": "status", "status": 400}, "invalid"),
    ({"kind": "status", "status": 404}, "not_found"),
    ({"kind": "status", "status": 413}, "too_large"),
    ({"kind": "status", "status": 422}, "invalid"),
]


def name(fault):
    return "-".join(str(value) for value in fault.values())


@pytest.mark.parametrize("fault", PASSING, ids=name)
def test_a_failure_that_may_pass_costs_an_attempt_and_is_tried_again(stage, fault):
    stage.simulator.faults({"fault": fault, "times": 1})
    stage.company()
    job = stage.queue.add("chat", PROMPT, max_attempts=2)
    row = stage.done(job)
    assert (row.state, row.failures, row.deferrals, requests(stage)) == ("completed", 1, 0, 2), job.calls()
    assert [t.to_state for t in job.transitions()] == [
        "waiting",
        "active",
        "delayed",
        "waiting",
        "active",
        "completed",
    ]


def test_the_last_attempt_fails_the_job_with_what_went_wrong(stage):
    stage.simulator.faults({"fault": {"kind": "status", "status": 500, "message": "out of order"}})
    stage.company()
    job = stage.queue.add("chat", PROMPT, max_attempts=2)
    row = stage.done(job)
    assert (row.state, row.failures, requests(stage)) == ("failed", 2, 2)
    assert job.error["class"] == "server"
    assert "out of order" in row.reason


@pytest.mark.parametrize(("fault", "told"), FINAL, ids=lambda value: name(value) if isinstance(value, dict) else value)
def test_a_failure_that_no_retry_heals_is_final_after_one_request(stage, fault, told):
    stage.simulator.faults({"fault": fault})
    stage.company()
    job = stage.queue.add("chat", PROMPT, max_attempts=5)
    row = stage.done(job)
    assert (row.state, row.failures, requests(stage)) == ("failed", 1, 1)
    assert job.error["class"] == told


@pytest.mark.parametrize(
    ("fault", "finish"),
    [({"kind": "content_filter"}, "filter"), ({"kind": "refusal"}, "refusal"), ({"kind": "missing_usage"}, "stop")],
    ids=lambda value: name(value) if isinstance(value, dict) else value,
)
def test_an_answer_is_an_answer_even_if_nobody_likes_it(stage, fault, finish):
    stage.simulator.faults({"fault": fault})
    stage.company()
    job = stage.queue.add("chat", PROMPT)
    assert stage.done(job).state == "completed"
    assert requests(stage) == 1
    if fault["kind"] == "missing_usage":
        assert (job.result["usage"], job.calls()[0].cost) == (None, None)
    assert job.result["finish"] in {finish, "stop", "filter"}


def test_a_rate_limit_costs_no_attempt(stage):
    stage.simulator.faults({"fault": {"kind": "status", "status": 429, "retry_after_ms": 50}, "times": 1})
    stage.company()
    job = stage.queue.add("chat", PROMPT, max_attempts=1)
    row = stage.done(job)
    assert (row.state, row.failures, requests(stage)) == ("completed", 0, 2)
    assert [call.error_class for call in job.calls()] == ["rate", None]


def test_a_long_rate_limit_sends_the_job_back_to_the_board_with_the_reason(stage):
    stage.simulator.faults({"fault": {"kind": "status", "status": 429, "retry_after": 600}, "times": 1})
    supervisor = stage.company(park_after=0.1)
    job = stage.queue.add("chat", PROMPT, max_attempts=1)
    stage.until(lambda: job.row().deferrals)
    row = job.row()
    assert (row.state, row.failures, row.deferrals, row.held_by) == ("waiting", 0, 1, "sim/m-1")
    assert 500_000 < row.held_until - row.updated_at < 700_000
    assert job.why().startswith("held by sim/m-1 until ")
    other = stage.queue.add("chat", PROMPT)
    stage.until(lambda: supervisor.status().held_keys)
    # A key on hold costs the others nothing: this one has another model, and so another key.
    assert stage.done(stage.queue.add("chat", PROMPT, model="sim:m-2")).state == "completed"
    assert other.state == "waiting"
    assert requests(stage) == 2


def test_what_the_provider_says_of_trying_again_goes_before_the_class(stage):
    for status, word in ((400, "true"), (500, "false"), (429, "false")):
        fault = {"kind": "status", "status": status, "headers": {"x-should-retry": word}}
        stage.simulator.faults({"fault": fault, "match": {"contains": f"number {status}"}, "times": 1})
    stage.company()
    jobs = [
        stage.queue.add("chat", {"prompt": f"The number {status}."}, max_attempts=5, model=f"sim:m-{status}")
        for status in (400, 500, 429)
    ]
    for job in jobs:
        stage.done(job)
    assert [(job.row().state, job.row().failures) for job in jobs] == [("completed", 1), ("failed", 1), ("failed", 1)]
    assert [[call.error_class for call in job.calls()] for job in jobs] == [["invalid", None], ["server"], ["rate"]]


def test_a_retry_after_that_is_a_date_is_waited_for(stage):
    # By the provider's own clock, which need not be ours.
    headers = {"date": "Mon, 21 Sep 2026 14:13:00 GMT", "retry-after": "Mon, 21 Sep 2026 14:23:00 GMT"}
    stage.simulator.faults({"fault": {"kind": "status", "status": 503, "headers": headers}, "times": 1})
    stage.company()
    job = stage.queue.add("chat", PROMPT)
    stage.until(lambda: job.row().state == "delayed")
    row = job.row()
    assert 599_000 < row.run_at - row.updated_at < 661_000


def test_a_refused_key_is_held_and_costs_no_attempt(stage):
    stage.simulator.faults({"fault": {"kind": "status", "status": 401}})
    supervisor = stage.company(park_after=0.1)
    job = stage.queue.add("chat", PROMPT, max_attempts=1)
    stage.until(lambda: job.row().deferrals)
    row = job.row()
    assert (row.state, row.failures, row.held_by) == ("waiting", 0, "sim/m-1")
    assert requests(stage) == 1
    stage.until(lambda: "sim/m-1" in supervisor.status().held_keys)


# -- an unknown outcome ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_unknown", "state", "asked"), [("park", "failed", 1), ("retry", "completed", 2)])
def test_an_ambiguous_timeout_is_parked_if_the_job_says_so(stage, on_unknown, state, asked):
    stage.simulator.faults({"fault": {"kind": "stall", "n": 0}, "times": 1})
    stage.company(first_token_timeout=0.2)
    job = stage.queue.add("chat", PROMPT, options={"on_unknown": on_unknown})
    row = stage.done(job)
    assert (row.state, requests(stage)) == (state, asked), job.error
    assert job.calls()[0].state == "unknown"
    if state == "failed":
        assert job.error["class"] == "unknown_outcome"
        assert row.reason.startswith("parked: ")


def test_a_parked_job_sent_back_by_a_person_is_not_called_again_while_its_outcome_is_unknown(stage):
    stage.simulator.faults({"fault": {"kind": "stall", "n": 0}, "times": 1})
    stage.company(first_token_timeout=0.2)
    job = stage.queue.add("chat", PROMPT, options={"on_unknown": "park"})
    stage.done(job)
    job.retry()
    assert stage.done(job).reason.startswith("parked: step 'chat' has a call whose outcome is unknown")
    assert requests(stage) == 1


# -- time -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options", "booked"),
    [
        ({"kind": "ping_only", "n": 0, "interval": 0.02}, {"first_token_timeout": 0.3}, "unknown"),
        ({"kind": "stall", "n": -1}, {"first_token_timeout": 0.3}, "unknown"),
        ({"kind": "ping_only", "n": 1, "interval": 0.02}, {"no_progress_timeout": 0.3}, "failed"),
        ({"kind": "ping_only", "n": 1, "interval": 0.02}, {"total_timeout": 0.3}, "failed"),
        ({"kind": "ping_only", "n": 1, "interval": 0.02}, {"job_timeout": 0.3}, "unknown"),
    ],
    ids=["first token", "first byte", "no progress", "total", "job"],
)
def test_every_timeout_ends_the_attempt(stage, fault, options, booked):
    """Booked as unknown where nothing of the answer had come: then nobody can say whether it is on the bill."""
    stage.simulator.faults({"fault": fault})
    supervisor = stage.company()
    job = stage.queue.add("chat", PROMPT, options=options, max_attempts=1)
    row = stage.done(job)
    assert (row.state, row.failures, job.error["class"]) == ("failed", 1, "timeout"), job.error
    (entry,) = stage.simulator.wait_for(lambda journal: journal[0]["outcome"])
    assert entry["outcome"] == "aborted_by_client"
    assert [call.state for call in job.calls()] == [booked]
    stage.until(lambda: supervisor.status().busy == 0)


def test_a_job_that_nobody_could_start_in_time_fails_although_every_runner_is_busy(stage):
    stage.simulator.faults({"fault": {"kind": "stall", "n": 1}, "times": 1})
    stage.company(runners=ONE)
    first = stage.queue.add("chat", PROMPT)
    stage.simulator.wait_for(lambda journal: journal)
    job = stage.queue.add("chat", PROMPT, start_within=0.05)
    row = stage.done(job)
    assert (row.state, row.attempt, row.reason) == ("failed", 0, "not started by its deadline")
    assert job.error["class"] == "expired"
    assert first.state == "active"


# -- what nobody here can run ---------------------------------------------------------------------------------------------


def test_a_job_of_an_unknown_type_waits_with_the_reason_until_somebody_knows_it(stage):
    stage.company()
    job = stage.queue.add("translate", {})
    stage.until(lambda: job.row().held_by)
    row = job.row()
    assert row.state is JobState.WAITING
    assert row.held_by == "unroutable: no handler for type 'translate' here (known: chat, embed)"
    assert stage.done(stage.queue.add("chat", PROMPT)).state == "completed"  # and is in nobody's way
    stage.company({"translate": lambda ctx: "übersetzt"})
    assert stage.done(job).state == "completed"
    assert job.row().held_by is None


def test_a_job_with_an_unknown_model_waits_with_the_reason_until_somebody_knows_it(stage):
    stage.company()
    job = stage.queue.add("chat", PROMPT, model="clever")
    stage.until(lambda: job.row().held_by)
    assert "model 'clever' is not configured" in job.row().held_by
    stage.company(models={"clever": ModelSettings(provider="sim", model="m-9")}, default_model=None)
    assert stage.done(job).state == "completed"
    assert stage.simulator.journal()[0]["model"] == "m-9"


def test_a_suspect_nobody_here_can_run_keeps_nobody_waiting(stage):
    suspect = stage.queue.add("translate", {})
    with open_database(stage.database).connect() as connection, connection.write():
        connection.script(f"UPDATE llm_jobs SET losses = 2 WHERE id = {suspect.id}")
    stage.company()
    assert stage.done(stage.queue.add("chat", PROMPT)).state == "completed"
    assert suspect.state == "waiting"


def test_suspects_run_alone(stage):
    running, most = set(), []

    def handler(ctx):
        running.add(ctx.job.id)
        most.append((ctx.job.alone, len(running)))
        ctx.complete("First. Sentence.")
        running.discard(ctx.job.id)

    jobs = [stage.queue.add("work") for _ in range(6)]
    with open_database(stage.database).connect() as connection, connection.write():
        connection.script(f"UPDATE llm_jobs SET losses = 2 WHERE id <= {jobs[2].id}")
    stage.company({"work": handler}, runners=RunnerSettings(min=4, max=4))
    for job in jobs:
        assert stage.done(job).state == "completed"
    assert [count for alone, count in most if alone] == [1, 1, 1]
    assert sum(alone for alone, _ in most) == 3


# -- limits ---------------------------------------------------------------------------------------------------------------


def test_a_concurrency_limit_holds_however_many_runners_there_are(stage):
    stage.simulate(latency=0.05)
    limits = LimitSettings(concurrency=2)
    stage.company(
        models={"m": ModelSettings(provider="sim", model="m-1", limits=limits)}, runners=RunnerSettings(max=6)
    )
    for job_id in stage.queue.add_many([{"type": "chat", "data": PROMPT} for _ in range(8)]):
        assert stage.done(stage.queue.get(job_id)).state == "completed"
    assert stage.simulator.stats()["in_flight_max"] <= 2


# -- the database ---------------------------------------------------------------------------------------------------------


def test_a_database_locked_by_a_stranger_is_waited_out(stage, monkeypatch):
    monkeypatch.setattr("callboard.embedded.WorkerBoard.open", partial(WorkerBoard.open, busy_timeout=0.05))
    stage.simulator.faults({"fault": {"kind": "barrier", "n": 2}, "times": 2})
    supervisor = stage.company()
    job = stage.queue.add("chat", PROMPT)
    stage.simulator.wait_for(lambda journal: journal)
    database = open_database(stage.database, busy_timeout=5.0)
    with database.connect() as stranger:
        with stranger.write():
            stage.simulator.clear_faults()  # the answer arrives while nothing can be written
            stage.simulator.wait_for(lambda journal: journal[0]["outcome"])
            stage.until(lambda: supervisor.status().store_problem)
            assert "locked" in supervisor.status().store_problem
        row = stage.done(job)
    database.close()
    assert (row.state, row.failures, row.losses, requests(stage)) == ("completed", 0, 0, 1)
    stage.until(lambda: supervisor.status().store_problem is None)
    assert stage.done(stage.queue.add("chat", PROMPT)).state == "completed"


def test_a_full_disk_is_waited_out_and_nothing_is_lost(stage):
    supervisor = stage.company({"big": lambda ctx: "x" * 3_000_000})
    connection = supervisor._system.actor("store")._connection
    pages = connection.pragma("page_count")
    connection.pragma("max_page_count", str(pages + 20))
    job = stage.queue.add("big")
    stage.until(lambda: supervisor.status().store_problem)
    assert "no space left" in supervisor.status().store_problem
    assert job.state == "active"
    connection.pragma("max_page_count", "1000000")
    row = stage.done(job)
    assert (row.state, row.failures, row.losses) == ("completed", 0, 0)
    assert len(job.result) == 3_000_000
    stage.until(lambda: supervisor.status().store_problem is None)


def test_a_result_the_database_cannot_hold_fails_its_job_and_no_other(stage):
    def handler(job):
        yield from ()
        nested = []
        for _ in range(100_000):
            nested = [nested]
        return nested

    supervisor = stage.company({"deep": handler}, runners=ONE)
    job = stage.queue.add("deep")
    row = stage.done(job)
    assert (row.state, row.losses) == ("failed", 0)
    assert stage.done(stage.queue.add("chat", PROMPT)).state == "completed"
    assert supervisor.failure is None


def test_an_end_that_the_database_refuses_fails_its_job_which_is_not_done_over_and_over(stage):
    runs = []

    def handler(job):
        runs.append(job.id)
        yield from ()
        return "done"

    supervisor = stage.company({"plain": handler}, runners=ONE)
    with closing(driver.connect(str(stage.path / "board.db"), timeout=20)) as host, host:
        host.execute(
            "CREATE TRIGGER host_says_no BEFORE UPDATE OF state ON llm_jobs WHEN new.state = 'completed' AND new.type = 'plain'"
            " BEGIN SELECT RAISE(ABORT, 'not in this house'); END"
        )
    job = stage.queue.add("plain")
    assert stage.done(job).state == "failed"
    assert job.error["class"] == "store"
    assert "not in this house" in job.error["message"]
    assert runs == [job.id]
    assert stage.done(stage.queue.add("chat", PROMPT)).state == "completed"
    assert supervisor.failure is None
