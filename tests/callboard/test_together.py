"""Where the features of calls meet: batches with budgets, chains, conversations and caches; what is given back, and that the sums agree.

Each part has tests of its own. These are about two or three of them at once, in a real company.
"""

from contextlib import closing

import pytest

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
