"""Requests that go out together: provider batches behind `latency = "batch"`, and embeddings grouped into one request, in a real company.

What a provider does with a batch (when it ends, which lines fail, which requests about it are cut off) is ordered from the simulator; the
crashes are in `tests/scenarios/test_batches.py`.
"""

from collections import Counter
from contextlib import closing

import pytest

from callboard.actors.batch_settings import BatchSettings, EmbeddingSettings
from callboard.actors.cache_settings import CacheSettings
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import ModelSettings, PriceSettings
from callboard.persistence.engine import driver

QUICK = BatchSettings(max_age=0.05, poll=0.02, poll_cap=0.05, find_after=0.2)
PRICE = PriceSettings(input=1.0, output=2.0)
INF = float("inf")


def rows(stage, sql, *given):
    with closing(driver.connect(str(stage.path / "board.db"), timeout=20)) as connection:
        return connection.execute(sql, given).fetchall()


def company(stage, handlers=None, **settings):
    models = {"m": ModelSettings(provider="sim", model="m-1", price=PRICE)}
    return stage.company(handlers, **{"batch": QUICK, "models": models, **settings})


def prompts(count, **options):
    return [
        {
            "type": "chat",
            "data": {"prompt": f"Item {n:03d}. It is a thing."},
            "options": {"latency": "batch", **options},
        }
        for n in range(count)
    ]


def add(stage, count, **options):
    return [stage.queue.get(job_id) for job_id in stage.queue.add_many(prompts(count, **options))]


def texts(stage, count, **fields):
    new = [{"type": "embed", "data": {"input": f"text number {n:04d}"}, **fields} for n in range(count)]
    return [stage.queue.get(job_id) for job_id in stage.queue.add_many(new)]


def finish(stage, jobs):
    for job in jobs:
        job.wait(20)
    stage.until(
        lambda: not rows(stage, "SELECT 1 FROM llm_jobs WHERE type LIKE '@%' AND state NOT IN ('completed', 'failed')"),
        "the driving jobs have ended",
    )


def batches(stage):
    return stage.simulator.batches()


def running(stage):
    return [batch for batch in batches(stage) if batch["state"] == "running"]


def online(stage):
    """The calls that were made one by one: what is about files and batches is none."""
    apart = ("/files", "batches", ":batch", ":async")
    return [entry for entry in stage.simulator.journal() if not any(part in entry["path"] for part in apart)]


# --- provider batches --------------------------------------------------------------------------------------------------------------------


def test_a_job_with_latency_batch_goes_with_others_at_half_the_price(stage):
    stage.simulate(batch_seconds=0)
    company(stage)
    jobs = add(stage, 5)
    finish(stage, jobs)
    assert [batch["state"] for batch in batches(stage)] == ["ended"]
    assert len(batches(stage)[0]["requests"]) == 5
    assert not online(stage), "none was asked for by itself"
    for job in jobs:
        assert job.result["text"].startswith("Item")
        (call,) = job.calls()
        assert (call.state, call.limit_key) == ("completed", "batch:sim/m-1")
        full = call.input_uncached * 1000 + call.output_visible * 2000
        assert call.cost == full // 2
    assert rows(stage, "SELECT origin, sum(requests) FROM llm_calls") == [("batch", 0)]
    assert not list(stage.path.glob("*-batches")), "the files are gone"


def test_while_it_waits_a_job_holds_no_runner_and_says_what_for(stage):
    stage.simulate(batch_seconds=INF)
    company(stage, profile="solo")
    (job,) = add(stage, 1)
    stage.until(lambda: running(stage), "the batch is with the provider")
    assert job.row().state == "waiting_children"
    assert "1 request that others' go with" in stage.queue.why(job)
    other = stage.queue.add("chat", {"prompt": "Now. At once."})
    assert stage.done(other).state == "completed"
    (listed,) = stage.queue.batches()
    assert (listed.kind, listed.provider, listed.state, listed.requests) == ("batch", "sim", "submitted", 1)
    assert listed.members == {"sent": 1}
    assert f"batch {listed.id} at sim ({listed.batch_id}) is submitted, 1 requests" in job.why()
    (told,) = job.batches()
    assert (told.step, told.batch, told.state) == ("chat", listed.id, "sent")
    stage.simulator.batches({"do": "end"})
    finish(stage, [job])
    assert stage.queue.batches() == []
    assert stage.queue.batches(every=True)[0].state == "applied"


def test_of_500_requests_7_that_fail_go_again_alone(stage):
    stage.simulate(batch_seconds=INF)
    company(stage, batch=BatchSettings(max_age=60, max_requests=500, poll=0.02, poll_cap=0.05))
    jobs = add(stage, 500)
    stage.until(lambda: running(stage), "a full batch leaves at once, however young it is")
    failing = {f"Item {n:03d}" for n in (3, 77, 101, 250, 333, 404, 499)}
    kinds = [
        {"outcome": "error", "status": 500},
        {"outcome": "drop"},
        {"outcome": "expire"},
        {"outcome": "error", "status": 429},
    ]
    orders = [
        {"do": "lines", "contains": text, "times": 1, **kinds[place % 4]} for place, text in enumerate(sorted(failing))
    ]
    stage.simulator.batches(*orders, {"do": "end"})
    stage.until(
        lambda: rows(stage, "SELECT count(*) FROM llm_jobs WHERE type = 'chat' AND state = 'completed'") == [(493,)]
    )
    again = rows(
        stage,
        "SELECT job_id, pending FROM llm_jobs JOIN llm_batch_requests AS r ON r.job_id = llm_jobs.id WHERE r.state = 'again'",
    )
    assert len(again) == 7
    stage.until(
        lambda: rows(stage, "SELECT requests FROM llm_batches WHERE state = 'open'") == [(7,)],
        "the seven have joined another",
    )
    (second,) = rows(stage, "SELECT job_id FROM llm_batches WHERE state = 'open'")[0]
    stage.queue.promote(second)
    stage.until(lambda: running(stage), "it is with the provider")
    assert len(running(stage)[0]["requests"]) == 7
    stage.simulator.batches({"do": "end"})
    finish(stage, jobs)
    assert {job.row().state for job in jobs} == {"completed"}
    assert rows(stage, "SELECT max(failures) FROM llm_jobs") == [(0,)], "no attempt was counted"
    assert Counter(rows(stage, "SELECT state FROM llm_calls")) == {("completed",): 500, ("failed",): 7}
    assert stage.simulator.stats()["batch_requests"] >= 500
    assert len(batches(stage)) == 2


def test_what_is_refused_for_good_fails_its_own_job_alone_and_may_be_sent_back(stage):
    stage.simulate(batch_seconds=0)
    stage.simulator.batches({"do": "lines", "contains": "Item 001", "outcome": "error", "status": 400, "times": 1})
    company(stage)
    jobs = add(stage, 3)
    finish(stage, jobs)
    assert [str(job.row().state) for job in jobs] == ["completed", "failed", "completed"]
    assert jobs[1].error["class"] == "invalid"
    jobs[1].retry()
    finish(stage, [jobs[1]])
    assert jobs[1].row().state == "completed", "a person sent it back: it is tried again"


def test_a_request_without_an_answer_in_some_batches_is_asked_for_by_itself(stage):
    stage.simulate(batch_seconds=0)
    stage.simulator.batches({"do": "lines", "outcome": "drop"})
    company(stage, batch=BatchSettings(max_age=0.02, poll=0.01, poll_cap=0.01, max_rounds=2))
    (job,) = add(stage, 1)
    finish(stage, [job])
    assert job.row().state == "completed"
    assert len(batches(stage)) == 2
    assert len(online(stage)) == 1
    assert [call.state for call in job.calls()] == ["failed", "failed", "completed"]


def test_an_expired_batch_keeps_what_was_done_and_the_rest_goes_again(stage):
    stage.simulate(batch_seconds=INF)
    company(stage)
    jobs = add(stage, 6)
    stage.until(lambda: running(stage), "the batch is with the provider")
    stage.simulator.batches({"do": "expire", "done": 4})
    stage.until(lambda: running(stage), "the rest is with the provider")
    assert len(running(stage)[0]["requests"]) == 2
    stage.simulator.batches({"do": "end"})
    finish(stage, jobs)
    assert {str(job.row().state) for job in jobs} == {"completed"}
    assert rows(stage, "SELECT max(failures) FROM llm_jobs") == [(0,)]


def test_a_batch_that_is_refused_is_halved_until_what_is_wrong_stands_alone(stage):
    stage.simulate(batch_seconds=INF)
    company(stage)
    jobs = add(stage, 8)
    poison = f"{jobs[5].id}-"
    refused = []

    def step():
        for batch in running(stage):
            bad = any(line["custom_id"].startswith(poison) for line in batch["requests"])
            if bad:
                refused.append(len(batch["requests"]))
            stage.simulator.batches({"do": "fail" if bad else "end", "id": batch["id"]})
        return jobs[5].row().finished and all(job.row().finished for job in jobs)

    stage.until(step, "all have ended")
    finish(stage, jobs)
    assert refused == [8, 4, 2, 1]
    assert [str(job.row().state) for job in jobs] == ["completed"] * 5 + ["failed"] + ["completed"] * 2
    assert jobs[5].error["class"] == "invalid"
    assert not online(stage)
    assert Counter(rows(stage, "SELECT state FROM llm_calls"))[("completed",)] == 7


def test_a_line_that_the_provider_names_is_taken_out_without_halving(stage):
    stage.simulate(batch_seconds=INF)
    company(stage)
    jobs = add(stage, 4)
    stage.until(lambda: running(stage), "the batch is with the provider")
    stage.simulator.batches({"do": "fail", "line": 3, "message": "not a request"})
    stage.until(lambda: running(stage), "the others are with the provider again")
    assert len(running(stage)[0]["requests"]) == 3
    stage.simulator.batches({"do": "end"})
    finish(stage, jobs)
    assert sorted(str(job.row().state) for job in jobs) == ["completed"] * 3 + ["failed"]
    assert len(batches(stage)) == 2


def test_a_batch_refused_for_now_is_asked_for_again_later(stage):
    stage.simulate(batch_seconds=INF)
    company(stage)
    jobs = add(stage, 2)
    stage.until(lambda: running(stage), "the batch is with the provider")
    stage.simulator.batches({"do": "fail", "code": "token_limit_exceeded", "message": "Enqueued token limit reached"})
    stage.until(lambda: running(stage), "it is there again")
    stage.simulator.batches({"do": "end"})
    finish(stage, jobs)
    assert {str(job.row().state) for job in jobs} == {"completed"}
    assert [len(batch["requests"]) for batch in batches(stage)] == [2, 2]


CUT_OFF = (
    ("upload", "cut"),
    ("create", "cut"),
    ("create", "half"),
    ("poll", "cut"),
    ("results", "cut"),
    ("results", "half"),
)
WIRES = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")
ALWAYS = {("openai-chat", *cut) for cut in CUT_OFF} | {(wire, "create", "cut") for wire in WIRES}


@pytest.mark.parametrize(
    ("wire", "on", "kind"),
    [
        pytest.param(wire, *cut, marks=() if (wire, *cut) in ALWAYS else pytest.mark.soak)
        for wire in WIRES
        for cut in CUT_OFF
    ],
)
def test_a_request_about_a_batch_that_is_cut_off_never_makes_a_second_batch(stage, wire, on, kind):
    stage.simulate(batch_seconds=0)
    stage.simulator.batches({"do": "fault", "on": on, "kind": kind, "times": 1})
    base = stage.simulator.url + ("/v1" if wire.startswith("openai") else "")
    provider = ProviderSettings(name="sim", wire=wire, base_url=base, allow_private=True)
    company(stage, providers={"sim": provider})
    jobs = add(stage, 3)
    finish(stage, jobs)
    assert {str(job.row().state) for job in jobs} == {"completed"}
    assert len(batches(stage)) == 1
    assert Counter(rows(stage, "SELECT state FROM llm_calls")) == {("completed",): 3}


@pytest.mark.parametrize("status", [429, 500, 401])
def test_a_creation_that_is_refused_is_tried_again(stage, status):
    stage.simulate(batch_seconds=0)
    stage.simulator.batches({"do": "fault", "on": "create", "kind": "status", "status": status, "times": 2})
    company(stage)
    jobs = add(stage, 2)
    finish(stage, jobs)
    assert {str(job.row().state) for job in jobs} == {"completed"}
    assert len(batches(stage)) == 1


def test_where_it_cannot_be_known_whether_there_is_a_batch_its_members_decide(stage):
    """Anthropic has no tags: two batches that look alike cannot be told apart."""
    stage.simulate(batch_seconds=INF)
    provider = ProviderSettings(name="sim", wire="anthropic-messages", base_url=stage.simulator.url, allow_private=True)
    stage.simulator.batches(
        {"do": "fault", "on": "create", "kind": "cut", "times": 1},
        {"do": "fault", "on": "find", "kind": "status", "status": 500, "times": 1},
    )
    company(stage, providers={"sim": provider})
    parks, retries = add(stage, 1, on_unknown="park")[0], add(stage, 1)[0]
    stage.until(lambda: batches(stage), "the batch is there, and its answer is lost")
    _twin(stage, provider)
    stage.until(lambda: parks.row().finished, "one is parked for a person")
    assert parks.error["class"] == "unknown_outcome"
    assert [job.id for job in stage.queue.parked()] == [parks.id]
    stage.until(lambda: len(running(stage)) == 3, "the other is in a new batch")
    stage.simulator.batches({"do": "end"})
    finish(stage, [retries])
    assert retries.row().state == "completed"
    assert [call.state for call in retries.calls()] == ["unknown", "completed"]


def _twin(stage, provider):
    """Another batch of as many requests at the same time, by somebody else with the same key."""
    import httpx

    line = {
        "custom_id": "x",
        "params": {"model": "m-1", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
    }
    body = {"requests": [line, {**line, "custom_id": "y"}]}
    reply = httpx.post(
        f"{provider.base_url}/v1/messages/batches", json=body, headers={"anthropic-version": provider.version}
    )
    assert reply.status_code == 200


def test_a_member_that_is_cancelled_before_it_leaves_is_left_out_and_after_it_left_is_booked(stage):
    stage.simulate(batch_seconds=INF)
    company(stage, batch=BatchSettings(max_age=600, poll=0.02, poll_cap=0.05))
    jobs = add(stage, 3)
    stage.until(lambda: rows(stage, "SELECT requests FROM llm_batches") == [(3,)], "all have joined")
    jobs[0].cancel()
    ((driving,),) = rows(stage, "SELECT job_id FROM llm_batches")
    stage.queue.promote(driving)
    stage.until(lambda: running(stage), "the batch is with the provider")
    assert len(running(stage)[0]["requests"]) == 2
    jobs[1].cancel()
    stage.simulator.batches({"do": "end"})
    finish(stage, [jobs[2]])
    assert [str(job.row().state) for job in jobs] == ["cancelled", "cancelled", "completed"]
    assert [call.state for call in jobs[1].calls()] == ["completed"], "it was paid for, and is booked"
    assert jobs[0].calls() == []
    jobs[1].retry()
    finish(stage, [jobs[1]])
    assert jobs[1].row().state == "completed"
    assert len(batches(stage)) == 1, "what was paid for is not asked for again"


def test_a_batch_that_nobody_waits_for_any_more_is_cancelled(stage):
    stage.simulate(batch_seconds=INF)
    company(stage)
    jobs = add(stage, 2)
    stage.until(lambda: running(stage), "the batch is with the provider")
    for job in jobs:
        job.cancel()
    stage.until(lambda: batches(stage)[0]["state"] == "cancelled", "it is cancelled")
    finish(stage, [])
    assert Counter(rows(stage, "SELECT state FROM llm_calls")) == {("failed",): 2}


def test_a_request_leaves_its_batch_when_its_deadline_comes_near(stage):
    stage.simulate(batch_seconds=INF)
    company(stage, batch=BatchSettings(max_age=0.05, poll=600, poll_cap=600, deadline_margin=1.0))
    hurried, patient = add(stage, 1, deadline=stage.queue.clock() + 2500)[0], add(stage, 1)[0]
    stage.until(lambda: running(stage) and len(running(stage)[0]["requests"]) == 2, "both are in one batch")
    assert stage.done(hurried).state == "completed"
    assert len(online(stage)) == 1, "it was asked for by itself"
    assert patient.row().state == "waiting_children"
    assert [call.state for call in hurried.calls()] == ["open", "completed"], "the batch may still bill it"
    stage.simulator.batches({"do": "end"})
    ((driving,),) = rows(stage, "SELECT job_id FROM llm_batches")
    assert rows(
        stage, "SELECT held_until - ? BETWEEN 0 AND 660000 FROM llm_jobs WHERE id = ?", stage.queue.clock(), driving
    ) == [(1,)]


def test_a_deadline_that_is_near_from_the_start_is_asked_for_at_once(stage):
    stage.simulate(batch_seconds=INF)
    company(stage)
    (job,) = add(stage, 1, deadline=stage.queue.clock() + 60_000)
    assert stage.done(job).state == "completed"
    assert batches(stage) == []


def test_a_provider_without_a_batch_api_is_asked_online(stage):
    stage.simulate()
    provider = ProviderSettings(name="sim", wire="ollama", base_url=stage.simulator.url, allow_private=True)
    company(stage, providers={"sim": provider})
    (job,) = add(stage, 1)
    assert stage.done(job).state == "completed"


def test_the_calls_that_a_handler_makes_side_by_side_go_in_one_batch(stage):
    import asyncio

    async def three(ctx):
        answers = await asyncio.gather(*(ctx.complete(f"Part {n}. It is a part.", step=f"part-{n}") for n in range(3)))
        return [answer.text for answer in answers]

    stage.simulate(batch_seconds=0)
    company(stage, {"three": three})
    job = stage.queue.add("three", options={"latency": "batch"})
    finish(stage, [job])
    assert len(job.result) == 3
    assert [len(batch["requests"]) for batch in batches(stage)] == [3]


def test_a_call_that_is_refused_late_keeps_nobody_from_leaving(stage):
    """Of two calls made side by side one goes with others again; the other waits for somebody else's answer, and is refused when there is none."""
    import asyncio

    async def ask(ctx):
        asked = (ctx.complete(f"Part {n}. It is a part.", step=f"part-{n}") for n in ctx.job.data)
        told = await asyncio.gather(*asked, return_exceptions=True)
        return [type(one).__name__ for one in told]

    stage.simulate(batch_seconds=INF)
    supervisor = company(stage, {"ask": ask}, cache=CacheSettings(max_age=60))
    answers = supervisor._system.directory.find("store").actor._answers
    job = stage.queue.add("ask", [1, 2], options={"latency": "batch"})
    stage.until(lambda: running(stage), "both are with the provider")
    stage.simulator.faults({"fault": {"kind": "stall", "n": 0}, "times": 1})
    other = stage.queue.add("ask", [1])
    stage.until(lambda: online(stage), "somebody else asks for the first of them")
    lines = {"do": "lines", "contains": "Part 1.", "times": 1, "outcome": "error", "status": 400}
    stage.simulator.batches(lines, {"do": "lines", "contains": "Part 2.", "times": 1, "outcome": "drop"}, {"do": "end"})
    stage.until(lambda: answers._waiting, "it asks again, and waits for the other's answer")
    other.cancel("nobody wants it")
    stage.until(lambda: running(stage), "the second is with the provider again")
    stage.simulator.batches({"do": "end"})
    finish(stage, [job])
    assert job.result == ["CallFailedError", "Completion"]


def test_embeddings_go_by_batch_as_well(stage):
    stage.simulate(batch_seconds=0)
    company(stage)
    jobs = texts(stage, 3, options={"latency": "batch"})
    chat = add(stage, 1)
    finish(stage, jobs + chat)
    assert all(len(job.result["embedding"]) > 1 for job in jobs)
    assert sorted(len(batch["requests"]) for batch in batches(stage)) == [1, 3], "each endpoint has its own"


# --- embeddings in groups ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["solo", pytest.param("pool", marks=pytest.mark.soak)])
def test_a_thousand_embeddings_take_as_many_requests_as_their_groups(stage, profile):
    stage.simulate()
    company(stage, profile=profile, embeddings=EmbeddingSettings(max_inputs=100))
    jobs = texts(stage, 1000)
    finish(stage, jobs[-1:] + jobs[:1])
    stage.until(
        lambda: rows(stage, "SELECT count(*) FROM llm_jobs WHERE type = 'embed' AND state = 'completed'") == [(1000,)]
    )
    assert len(online(stage)) <= 1000 // 100 + 4
    used = rows(stage, "SELECT sum(input_uncached), sum(cost), sum(requests) FROM llm_calls")[0]
    assert used == (4000, 4_000_000, len(online(stage))), "each token is counted once, each request too"
    assert rows(
        stage,
        "SELECT DISTINCT job.type, sum(input_uncached) FROM llm_calls JOIN llm_jobs AS job ON job.id = job_id GROUP BY 1",
    ) == [
        ("@group", None),
        ("embed", 4000),
    ], "what was used is its own job's"


def test_each_member_of_a_group_gets_its_own_vector(stage):
    stage.simulate()
    company(stage)
    jobs = texts(stage, 20)
    several = stage.queue.add("embed", {"inputs": ["text number 0003", "text number 0004"]})
    finish(stage, [*jobs, several])
    assert len(online(stage)) <= 4
    alone = [stage.done(stage.queue.add("embed", {"input": f"text number {n:04d}"})).id for n in (3, 4)]
    expected = [stage.queue.get(job_id).result["embedding"] for job_id in alone]
    assert [jobs[3].result["embedding"], jobs[4].result["embedding"]] == expected
    assert several.result["embeddings"] == expected
    assert len({tuple(job.result["embedding"]) for job in jobs}) == 20
    assert all(job.result["usage"]["input_uncached"] == job.calls()[0].input_uncached == 4 for job in jobs)


def test_a_text_that_is_refused_fails_its_own_job_alone(stage):
    stage.simulate()
    stage.simulator.faults({"fault": {"kind": "status", "status": 400}, "match": {"contains": "number 0013"}})
    company(stage)
    jobs = texts(stage, 20)
    finish(stage, jobs)
    states = [str(job.row().state) for job in jobs]
    assert states == ["completed"] * 13 + ["failed"] + ["completed"] * 6
    assert jobs[13].error["class"] == "invalid"
    assert len(online(stage)) <= 2 * 6


def test_a_group_waits_out_a_failure_that_passes(stage):
    stage.simulate()
    stage.simulator.faults({"fault": {"kind": "status", "status": 503}, "times": 2})
    company(stage)
    jobs = texts(stage, 10)
    finish(stage, jobs)
    assert {str(job.row().state) for job in jobs} == {"completed"}
    assert rows(
        stage,
        "SELECT max(failures) FROM llm_jobs WHERE type = 'embed' AND id NOT IN (SELECT job_id FROM llm_calls WHERE origin IS NULL)",
    ) == [(0,)]


def test_jobs_of_other_models_and_shapes_make_groups_of_their_own(stage):
    stage.simulate()
    models = {name: ModelSettings(provider="sim", model=f"{name}-1", price=PRICE) for name in ("m", "n")}
    company(stage, models=models)
    jobs = texts(stage, 10, model="m") + texts(stage, 10, model="n")
    wide = [{"type": "embed", "data": {"input": f"wide {n}", "dimensions": 16}} for n in range(10)]
    jobs += [stage.queue.get(job_id) for job_id in stage.queue.add_many(wide)]
    finish(stage, jobs)
    assert {len(job.result["embedding"]) for job in jobs[20:]} == {16}
    found = rows(stage, "SELECT DISTINCT group_key FROM llm_batches")
    assert len(found) <= 3, "models and shapes are never mixed"
    assert len(online(stage)) <= 12


def test_paused_queues_and_limited_groups_are_not_adopted(stage):
    stage.simulate()
    stage.queue.pause("later")
    held = texts(stage, 5, queue="later")
    limited = texts(stage, 6, group="tenant", group_limit=1)
    jobs = texts(stage, 10)
    company(stage)
    finish(stage, jobs + limited)
    assert {str(job.row().state) for job in held} == {"waiting"}


def test_an_embedding_that_is_alone_waits_for_nobody(stage):
    stage.simulate()
    company(stage, embeddings=EmbeddingSettings(max_age=600))
    (job,) = texts(stage, 1)
    assert stage.done(job).state == "completed"
    assert rows(stage, "SELECT count(*) FROM llm_batches") == [(0,)]
    assert [call.state for call in job.calls()] == ["completed"]
