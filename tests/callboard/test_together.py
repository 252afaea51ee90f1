"""Where the features of calls meet: batches with budgets, chains, conversations and caches; what is given back, and that the sums agree.

Each part has tests of its own. These are about two or three of them at once, in a real company.
"""

import runpy
from contextlib import closing

import pytest

from callboard.actors import answer_cache
from callboard.actors.batch_settings import BatchSettings
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import BudgetSettings, LimitSettings, ModelSettings, PriceSettings
from callboard.persistence import batch_orders, costs, migrate
from callboard.persistence.engine import driver
from callboard.persistence.version import VERSION_TABLE

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


# --- what no client of ours would write ----------------------------------------------------------------------------------------------------


def by_sql(stage, options, text="Cats sleep."):
    with closing(driver.connect(str(stage.path / "board.db"), timeout=20)) as connection:
        connection.execute(
            "INSERT INTO llm_inbox (type, data, options, max_attempts) VALUES ('chat', json_object('prompt', ?), ?, 1)",
            (text, options),
        )
        connection.commit()
        return stage.queue.get(connection.execute("SELECT max(id) FROM llm_jobs").fetchone()[0])


def test_options_without_bounds_do_no_harm(stage):
    stage.simulate(batch_seconds=0)
    company(stage)
    innocent = chat(stage)
    names = ("cache", "budget", "job_timeout", "total_timeout", "first_token_timeout", "no_progress_timeout")
    endless = [by_sql(stage, f'{{"{name}": 9e999}}') for name in names]
    endless += [by_sql(stage, f'{{"{name}": 1e300}}') for name in names]
    endless += [by_sql(stage, f'{{"latency": "batch", "deadline": {at}}}') for at in ("9e999", "1e300", "1.5e18")]
    below = [by_sql(stage, f'{{"{name}": -9e999}}') for name in ("cache", "deadline")]
    told = {
        str(job.id): (str(stage.done(job).state), job.row().failures, job.row().losses)
        for job in [innocent, *endless, *below]
    }
    assert set(told.values()) == {("completed", 0, 0)}, told
    assert innocent.calls()[0].limit_key == "batch:sim/m-1"
    assert stage.done(by_sql(stage, '{"budget": -9e999}')).state == "failed"
    assert stage.done(by_sql(stage, '{"latency": "batch", "deadline": -9e999}')).state == "completed"


# --- what is given back --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "revoke", "stop"])
def test_whatever_ends_jobs_at_whatever_stage_all_is_given_back(stage, how, monkeypatch):
    monkeypatch.setattr(answer_cache, "PRUNE_EVERY_MS", 10)
    stage.simulate()
    stage.simulator.faults({"fault": {"kind": "stall", "n": 0}, "times": 2})
    limits = LimitSettings(concurrency=2, tokens_per_minute=100_000)
    settings = {
        "models": {"m": ModelSettings(provider="sim", model="m-1", price=PRICE, limits=limits)},
        "budgets": {"all": BudgetSettings(dollars=1)},
    }
    supervisor = company(stage, **settings)
    asks = {"cache": 60, "budget": 0.5}
    # Two in flight, one that waits for its turn, and two that wait for the answers of others. At once, before the key is known to be full.
    new = [{"type": "chat", "data": {"prompt": f"Text {n}."}, "options": asks} for n in (0, 1, 2, 0, 1)]
    jobs = [stage.queue.get(job_id) for job_id in stage.queue.add_many(new)]
    stage.until(lambda: len(stage.simulator.journal()) == 2 and stage.queue.counts()["active"] == 5, "all are in hand")
    if how == "stop":
        supervisor.stop(0.0)
    if how == "revoke":
        taken_away(stage)
    else:
        for job in jobs:
            job.cancel()
    if how == "stop":
        company(stage, **settings)
    stage.until(lambda: given_back(stage)[:1] == (0,), "no call is open")
    assert rows(stage, "SELECT budget, spent, reserved FROM llm_budget_usage WHERE budget = 'all'") == rows(
        stage, "SELECT 'all', 0, sum(reserved_cost) FROM llm_calls WHERE state = 'unknown'"
    ), "what may have been paid for stays reserved, and nothing else"
    sums = "SELECT owner = '', sum(requests), sum(total) FROM llm_limit_usage GROUP BY 1 ORDER BY 1"
    (_, *slots), (_, *whole) = rows(stage, sums)
    assert slots == whole
    # Both places are free: what waits for two in flight at once comes to its end.
    stage.simulator.faults({"fault": {"kind": "barrier", "n": 2}, "times": 2})
    for job in [chat(stage, f"Text {n}.", options=asks) for n in range(2)]:
        assert stage.done(job).state == "completed"
    stage.until(lambda: not rows(stage, "SELECT 1 FROM llm_cache_flights"), "nobody leads")
    stage.simulator.faults({"fault": {"kind": "stall", "n": 0}, "times": 1})
    late = chat(stage, "Text 10.", options=asks)
    stage.until(lambda: rows(stage, "SELECT 1 FROM llm_cache_flights"), "it leads")
    late.cancel()
    stage.until(
        lambda: not rows(stage, "SELECT 1 FROM llm_cache_flights"), "nobody leads, also if nothing was kept since"
    )


def taken_away(stage):
    """Leases are lost, and nobody takes the jobs up."""
    with closing(driver.connect(str(stage.path / "board.db"), timeout=20)) as connection:
        connection.execute(
            "UPDATE llm_jobs SET state = 'waiting', lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL,"
            " held_until = 1 << 52 WHERE state = 'active'"
        )
        connection.commit()


# --- the sums ------------------------------------------------------------------------------------------------------------------------------


def test_the_sums_of_costs_agree_by_every_dimension_and_with_the_provider(stage):
    """Of a cache, a group, batches, a chain, refusals, retries and deleted jobs."""
    stage.simulate(batch_seconds=0)
    stage.simulator.faults(
        {"fault": {"kind": "status", "status": 503}, "match": {"model": "m-1"}, "times": 1},
        {"fault": {"kind": "status", "status": 500}, "match": {"model": "m-2"}, "times": 1},
        {"fault": {"kind": "refusal"}, "match": {"model": "m-1"}, "times": 1},
    )
    stage.simulator.batches(
        {"do": "lines", "outcome": "expire", "times": 1}, {"do": "lines", "outcome": "refuse", "times": 1}
    )
    models = {
        "m": ModelSettings(
            provider="sim", model="m-1", price=PRICE, fallback=("n",), fallback_on=("overloaded", "refusal")
        ),
        "n": ModelSettings(provider="sim", model="m-2", price=PriceSettings(input=3.0, output=5.0)),
        "e": ModelSettings(provider="sim", model="e-1", price=PRICE),
    }

    def steps(ctx):
        one = ctx.complete("One thing is said.", step="one")
        ctx.children([{"type": "chat", "data": {"prompt": "A child asks."}, "tag": "b"}])
        return ctx.complete(f"Two: {one.text}", step="two").text

    company(stage, {"steps": steps}, models=models, budgets={"all": BudgetSettings(dollars=1)})
    jobs = [chat(stage, "Cats sleep.", options={"cache": 60}, tag="a") for _ in range(3)]
    jobs += [chat(stage, f"Batch item {n}.", tag="a" if n % 2 else None) for n in range(5)]
    jobs += [chat(stage, f"Online item {n}.", options=None) for n in range(3)]
    jobs += [stage.queue.add("embed", {"input": f"text {n}"}, tag="e", model="e") for n in range(6)]
    jobs += [stage.queue.add("steps", {}, options=BATCH, tag="b"), stage.queue.add("steps", {}, options={"cache": 9})]
    assert {str(stage.done(job).state) for job in jobs} == {"completed"}
    stage.until(
        lambda: rows(stage, "SELECT count(*) FROM llm_jobs WHERE type LIKE '@%' AND finished_at IS NULL") == [(0,)]
    )
    before = {by: totals(stage, by) for by in costs.BY}
    assert len(set(before.values())) == 1, before
    spent = before["all"][0]
    assert rows(stage, "SELECT spent, reserved FROM llm_budget_usage WHERE budget = 'all'") == [(spent, 0)]
    assert billed(stage, models) == rows(stage, "SELECT sum(cost) FROM llm_calls WHERE origin IS NOT 'batch'")[0][0]
    assert (
        len(stage.simulator.journal()) - about_batches(stage)
        == rows(stage, "SELECT sum(requests) FROM llm_calls")[0][0]
    )
    assert stage.queue.delete_where("type:chat") > 10
    after = {by: totals(stage, by) for by in costs.BY}
    assert set(after.values()) == set(before.values()), after


def totals(stage, by):
    names = ("cost", "input", "output", "calls", "unpriced", "reserved", "unknown")
    found = stage.queue.costs(by)
    return tuple(sum(getattr(row, name) or 0 for row in found) for name in names)


def billed(stage, models):
    """What the provider would bill for calls made one by one, by its own count of tokens; nano-dollars."""
    prices = {known.model: known.price for known in models.values()}
    return round(
        sum(
            1000
            * (
                used["input_tokens"] * prices[entry["model"]].input
                + used["output_tokens"] * prices[entry["model"]].output
            )
            for entry in stage.simulator.journal()
            if entry["status"] == 200 and (used := entry.get("usage")) and not is_about_batches(entry)
        )
    )


def is_about_batches(entry):
    return any(part in entry["path"] for part in ("/files", "batches"))


def about_batches(stage):
    return sum(map(is_about_batches, stage.simulator.journal()))


def test_a_batch_that_ended_as_its_last_member_was_cancelled_is_booked_all_the_same(stage):
    """Its provider refuses to cancel what has ended."""
    stage.simulate(batch_seconds=INF)
    company(stage, batch=BatchSettings(max_age=0.05, poll=600, poll_cap=600))
    job = chat(stage)
    stage.until(lambda: running(stage), "the batch is with the provider")
    stage.simulator.batches({"do": "end"})
    job.cancel()
    first = driving(stage)
    stage.until(lambda: first.row().held_until, "it waits for its next look")
    first.promote()
    stage.until(lambda: first.row().finished, "its driving job has ended")
    assert first.row().state == "completed"
    assert [(call.state, call.cost > 0) for call in job.calls()] == [("completed", True)]
    job.retry()
    assert stage.done(job).state == "completed"
    assert len(stage.simulator.batches()) == 1


def test_who_would_rather_be_looked_at_is_parked_when_its_batch_is_let_go_and_its_answer_is_found_later(stage):
    stage.simulate(batch_seconds=INF)
    company(stage)
    job = chat(stage, options={**BATCH, "on_unknown": "park"})
    stage.until(lambda: running(stage), "the batch is with the provider")
    first = driving(stage)
    first.cancel()
    assert stage.done(job).state == "failed"
    assert [parked.id for parked in stage.queue.parked()] == [job.id]
    stage.simulator.batches({"do": "end"})
    first.retry()
    assert stage.done(first).state == "completed"
    job.retry()
    assert stage.done(job).state == "completed"
    assert [call.state for call in job.calls()] == ["completed"]
    assert len(stage.simulator.batches()) == 1, "what was paid for is not asked for again"


# --- a board of the release before ---------------------------------------------------------------------------------------------------------


def test_a_board_of_the_release_before_is_worked_on_after_its_upgrade(stage, tmp_path):
    """With a job in the hands of a process that is gone, its call open; one parked; a hold; what deleted jobs cost; keys of options that meant nothing."""
    path = tmp_path / "before.db"
    older = closing(driver.connect(str(path), isolation_level=None))
    with older as c:
        for revision in ("0001_spine", "0002_board"):
            module = runpy.run_path(str(migrate._FOLDER / "versions" / f"{revision}.py"))
            for statement in module["STATEMENTS"]:
                c.execute(statement)
        c.execute(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        c.execute(f"INSERT INTO {VERSION_TABLE} VALUES ('0002')")
        c.executescript("""
            INSERT INTO llm_jobs (id, type, tag) VALUES (1, 'chat', 't'), (2, 'chat', 't'), (3, 'chat', NULL), (4, 'chat', NULL), (5, 'embed', NULL);
            INSERT INTO llm_job_data (job_id, data, options) VALUES (1, '{"prompt": "Cats sleep."}', '{"budget": "none", "latency": 5}'),
                (2, '{"prompt": "Dogs bark."}', '{}'), (3, '{"prompt": "It rains."}', '{"on_unknown": "park"}'),
                (4, '{"prompt": "It snows."}', '{"cache": 60, "latency": "batch"}'), (5, '{"input": "text"}', '{}');
            UPDATE llm_jobs SET state = 'active', lease_owner = 'gone', lease_until = 50, lease_epoch = 1, attempt = 1 WHERE id IN (2, 3);
            INSERT INTO llm_calls (job_id, epoch, attempt, step, fingerprint, provider, model, limit_key, state, reserved_tokens, sent_at)
                VALUES (2, 1, 1, 'chat', 'f', 'sim', 'm-1', 'sim/m-1', 'open', 7, 1), (3, 1, 1, 'chat', 'f', 'sim', 'm-1', 'sim/m-1', 'open', 7, 1);
            INSERT INTO llm_limit_holds ("key", until, reason, at) VALUES ('sim/m-1', 60, 'r', 1), ('other', 9000000000000, 'r', 1);
            INSERT INTO llm_usage_deleted (day, tag, calls, input_uncached, cache_read, cache_write, output_visible, output_reasoning, cost, unpriced)
                VALUES (20000, 't', 3, 5, 0, 0, 7, 0, 900, 0);
        """)
    migrate.upgrade(f"sqlite:///{path}")
    path.rename(stage.path / "board.db")
    company(stage, budgets={"all": BudgetSettings(dollars=1)})
    jobs = [stage.queue.get(number) for number in (1, 2, 3, 4, 5)]
    assert [str(stage.done(job).state) for job in jobs] == [
        "completed",
        "completed",
        "failed",
        "completed",
        "completed",
    ]
    assert jobs[2].error["class"] == "unknown_outcome"
    assert [call.state for call in jobs[1].calls()] == ["unknown", "completed"]
    assert [call.limit_key for call in jobs[3].calls()] == ["sim/m-1"], "what meant nothing then means nothing now"
    assert len({totals(stage, by) for by in costs.BY}) == 1
    assert stage.queue.check() == []


def test_who_does_not_fit_a_budget_with_room_later_waits_for_another_batch_and_does_not_pay_twice_as_much(
    stage, monkeypatch
):
    monkeypatch.setattr(batch_orders, "HELD_MS", 100)
    stage.simulate(batch_seconds=0)
    models = {"m": ModelSettings(provider="sim", model="m-1", price=PriceSettings(input=1000, output=1000))}
    budget = BudgetSettings(scope="day", dollars=0.02, action="pause")
    company(
        stage,
        models=models,
        budgets={"daily": budget},
        batch=BatchSettings(max_age=0.05, poll=0.02, poll_cap=0.05, max_rounds=1),
    )
    jobs = [chat(stage, f"Item {n}. It is.", max_output=10) for n in range(3)]
    # Each may take more than half of what there is, and takes a fifth.
    assert [str(stage.done(job).state) for job in jobs] == ["completed"] * 3
    assert rows(stage, "SELECT DISTINCT origin FROM llm_calls") == [("batch",)]
    assert rows(stage, "SELECT state, count(*) FROM llm_batch_requests GROUP BY 1") == [("done", 3)]
    more = [chat(stage, f"Thing {n}. It is.", max_output=10) for n in range(3)]
    tomorrow = stage.queue.clock() + 1000
    stage.until(lambda: sum((job.row().held_until or 0) > tomorrow for job in more) == 2, "two wait for the next day")
    assert sum("budget daily" in job.why() for job in more) == 2
