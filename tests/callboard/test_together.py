"""Where the features of calls meet: batches with budgets, chains, conversations and caches; what is given back, and that the sums agree.

Each part has tests of its own. These are about two or three of them at once, in a real company.
"""

from contextlib import closing

from callboard.actors.batch_settings import BatchSettings
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import BudgetSettings, ModelSettings, PriceSettings
from callboard.persistence.engine import driver

QUICK = BatchSettings(max_age=0.05, poll=0.02, poll_cap=0.05, find_after=0.2)
PATIENT = BatchSettings(max_age=600, poll=0.02, poll_cap=0.05)
PRICE = PriceSettings(input=1.0, output=2.0)
BATCH = {"latency": "batch"}
INF = float("inf")


def rows(stage, sql, *given):
    with closing(driver.connect(str(stage.path / "board.db"), timeout=20)) as connection:
        return connection.execute(sql, given).fetchall()


def company(stage, handlers=None, **settings):
    models = {"m": ModelSettings(provider="sim", model="m-1", price=PRICE)}
    return stage.company(handlers, **{"batch": QUICK, "models": models, **settings})


def chat(stage, text="Cats sleep. Dogs bark.", *, options=BATCH, **more):
    data = {name: more.pop(name) for name in ("max_output", "schema", "reasks") if name in more}
    return stage.queue.add("chat", {"prompt": text, **data}, options=options, **more)


def running(stage):
    return [batch for batch in stage.simulator.batches() if batch["state"] == "running"]


def driving(stage):
    return stage.queue.get(rows(stage, "SELECT max(job_id) FROM llm_batches")[0][0])


def given_back(stage):
    """What is left of calls when nothing is under way: (open calls, reservations, requests in batches, leads of jobs in hand)."""
    return rows(
        stage,
        """SELECT (SELECT count(*) FROM llm_calls WHERE state = 'open'), (SELECT coalesce(sum(reserved), 0) FROM llm_budget_usage),
        (SELECT count(*) FROM llm_batch_requests WHERE state IN ('waiting', 'sent'))""",
    )[0]


def test_a_batch_whose_driving_job_is_cancelled_leaves_no_call_open(stage):
    stage.simulate(batch_seconds=INF)
    company(stage, budgets={"all": BudgetSettings(dollars=1)})
    job = chat(stage)
    stage.until(lambda: running(stage), "the batch is with the provider")
    driving(stage).cancel()
    stage.until(lambda: len(running(stage)) == 2, "it is asked for in another")
    assert [call.state for call in job.calls()] == ["unknown", "open"], "the first may be billed"
    stage.simulator.batches({"do": "end"})
    assert stage.done(job).state == "completed"
    assert [call.state for call in job.calls()] == ["unknown", "completed"]


def test_a_batch_whose_driving_job_was_cancelled_takes_in_nobody(stage):
    stage.simulate(batch_seconds=0)
    company(stage, batch=PATIENT)
    job = chat(stage)
    stage.until(lambda: rows(stage, "SELECT requests FROM llm_batches"), "it has joined")
    first = driving(stage)
    first.cancel()
    stage.until(lambda: driving(stage).id != first.id, "it is in another")
    driving(stage).promote()
    assert stage.done(job).state == "completed"
    assert [call.limit_key for call in job.calls()] == ["batch:sim/m-1"]


# --- chains and what goes on at the provider -----------------------------------------------------------------------------------------------


def background(stage):
    return ProviderSettings(
        name="sim",
        wire="openai-responses",
        base_url=f"{stage.simulator.url}/v1",
        allow_private=True,
        background=True,
    )


def test_a_call_to_a_later_model_of_the_chain_is_taken_up_too(stage):
    stage.simulate(tokens_per_second=30)
    stage.simulator.faults({"fault": {"kind": "status", "status": 503}, "match": {"model": "m-1"}})
    models = {
        "m": ModelSettings(provider="sim", model="m-1", price=PRICE, fallback=("n",), fallback_on=("overloaded",)),
        "n": ModelSettings(provider="sim", model="m-2", price=PRICE, max_output=60),
    }
    text = "Cats sleep all the day long, and in the night they sit on the wall and sing."
    supervisor = company(stage, models=models, providers={"sim": background(stage)}, batch=QUICK)
    job = chat(stage, text, options={"budget": 0.01})
    stage.until(
        lambda: rows(
            stage, "SELECT 1 FROM llm_calls WHERE handle IS NOT NULL AND EXISTS (SELECT 1 FROM llm_job_chunks)"
        ),
        "the second model is at it",
    )
    supervisor.stop(0.0)
    assert [(call.model, call.state) for call in job.calls()] == [("m-1", "failed"), ("m-2", "unknown")]
    company(stage, models=models, providers={"sim": background(stage)})
    assert stage.done(job).state == "completed"
    assert job.result["text"] == text
    assert [(call.model, call.state) for call in job.calls()] == [("m-1", "failed"), ("m-2", "completed")]
    posts = [entry["model"] for entry in stage.simulator.journal() if entry["path"] == "/v1/responses"]
    assert posts == ["m-1", "m-2"], "nothing was asked for twice"
    assert given_back(stage) == (0, 0, 0)


# --- batches and what else a call may meet -------------------------------------------------------------------------------------------------


def test_a_refused_batch_request_that_led_others_lets_them_go(stage):
    """The handler lives on after the refusal, and asks something else: nobody waits for what it will not ask again."""
    stage.simulate(batch_seconds=0)
    stage.simulator.batches({"do": "lines", "outcome": "error", "status": 400})

    def goes_on(ctx):
        try:
            ctx.complete("Cats sleep.", step="first")
        except Exception:
            stage.until(lambda: not rows(stage, "SELECT 1 FROM llm_cache_flights"), "nobody is led any more")
            return "went on"

    company(stage, {"goes-on": goes_on})
    job = stage.queue.add("goes-on", {}, options={"latency": "batch", "cache": 60}, max_attempts=1)
    row = stage.done(job)
    assert (row.state, job.result) == ("completed", "went on"), row.reason


def test_a_turn_that_its_batch_finds_too_long_is_shortened_as_online(stage):
    stage.simulate(batch_seconds=0)
    company(stage)
    for number in range(4):
        turn = chat(stage, f"Turn {number}. It says something.", options=None, conversation="talk")
        assert stage.done(turn).state == "completed"
    stage.simulator.batches(
        {"do": "lines", "outcome": "error", "status": 400, "code": "context_length_exceeded", "times": 1}
    )
    late = chat(stage, "The last turn.", conversation="talk")
    after = chat(stage, "And one behind it.", options=None, conversation="talk")
    assert stage.done(late).state == "completed", late.error
    assert stage.done(after).state == "completed"
    assert late.row().finished_at <= after.row().finished_at


def test_a_refusal_in_a_batch_goes_down_the_chain_where_the_alias_says_so(stage):
    stage.simulate(batch_seconds=0)
    stage.simulator.batches({"do": "lines", "outcome": "refuse", "contains": "m-1"})
    models = {
        "m": ModelSettings(provider="sim", model="m-1", price=PRICE, fallback=("n",), fallback_on=("refusal",)),
        "n": ModelSettings(provider="sim", model="m-2", price=PRICE),
    }
    company(stage, models=models)
    job = chat(stage)
    assert stage.done(job).state == "completed"
    assert job.result["model"] == "m-2"
    assert [(call.model, call.state, call.error_class) for call in job.calls()] == [
        ("m-1", "failed", "refusal"),
        ("m-2", "completed", None),
    ]
    assert job.calls()[0].cost > 0, "what was refused is paid for"
