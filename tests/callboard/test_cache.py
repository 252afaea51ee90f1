"""Answers that are given again, and calls that are made once for all who ask the same at the same time."""

import pytest

from callboard.actors.cache_settings import CacheSettings
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.runner import caching
from callboard.actors.settings import LimitSettings, ModelSettings, PriceSettings, RetrySettings, RunnerSettings

PROMPT = {"prompt": "Cats sleep. Dogs bark."}
CACHE = {"cache": 3600}
PRICE = PriceSettings(input=1.0, output=1.0)


def company(stage, *, limits=None, retries=None, handlers=None, runners=None, **settings):
    models = {
        "m": ModelSettings(provider="sim", model="m-1", price=PRICE, limits=limits, **settings.pop("model", {})),
        "n": ModelSettings(provider="sim", model="m-2", price=PRICE),
    }
    return stage.company(
        handlers,
        models=models,
        retries=retries or RetrySettings(base=0.01, cap=0.02),
        runners=runners or RunnerSettings(max=60),
        **settings,
    )


def rows(job):
    with job._queue._reader() as c:
        return c.script(
            f"SELECT state, origin, requests, cost, saved, input_uncached FROM llm_calls WHERE job_id = {job.id} ORDER BY id"
        )


def requests(stage):
    return len(stage.simulator.journal())


def ask(stage, prompt=PROMPT, options=CACHE, **fields):
    job = stage.queue.add("chat", prompt, options=options, **fields)
    assert stage.done(job).state == "completed", job.error
    return job


def test_the_same_again_makes_no_request_and_takes_no_permit(stage):
    company(stage, limits=LimitSettings(requests_per_day=5))
    first, second = ask(stage), ask(stage)
    assert requests(stage) == 1
    with stage.queue._reader() as c:
        assert c.script("SELECT sum(requests) FROM llm_limit_days") == [(1,)], (
            "an answer that is there counts in no limit"
        )
    assert second.result == first.result
    (paid,), (given,) = rows(first), rows(second)
    assert paid[:3] == ("completed", None, 1)
    assert paid[3] > 0
    assert paid[4] is None
    assert given == ("completed", "cache", 0, 0, paid[3], 0)
    (total,) = stage.queue.costs("all")
    assert (total.calls, total.cost, total.saved, total.unpriced) == (2, paid[3], paid[3], 0)
    assert "".join(chunk.text for chunk in second.stream()) == second.result["text"]


def test_only_who_asks_for_it_is_given_an_old_answer(stage):
    company(stage)
    ask(stage)
    ask(stage, options=None)
    assert requests(stage) == 2


def test_a_worker_may_give_old_answers_to_all_but_those_who_refuse(stage):
    company(stage, cache=CacheSettings(max_age=60))
    ask(stage, options=None)
    ask(stage, options=None)
    assert requests(stage) == 1
    ask(stage, options={"cache": 0})
    assert requests(stage) == 2


def test_what_differs_in_anything_that_decides_the_answer_is_asked(stage):
    company(stage)
    ask(stage)
    ask(stage, {**PROMPT, "temperature": 0.5})
    ask(stage, {**PROMPT, "max_output": 7})
    ask(stage, model="n")
    assert requests(stage) == 4
    ask(stage, {**PROMPT, "cache_key": "k"})
    assert requests(stage) == 4, "what the provider keeps of the prompt is no part of the question"


def test_an_answer_that_is_too_old_is_asked_anew_and_replaced(stage):
    company(stage)
    ask(stage)
    with stage.queue._writer() as c:
        c.script("UPDATE llm_cache SET at = at - 3600001")
    ask(stage)
    assert requests(stage) == 2
    ask(stage)
    assert requests(stage) == 2


@pytest.mark.parametrize("fault", [{"kind": "refusal"}, {"kind": "content_filter"}])
def test_an_answer_that_is_none_is_not_kept(stage, fault):
    stage.simulator.faults({"fault": fault, "times": 1})
    company(stage)
    ask(stage)
    job = ask(stage)
    assert requests(stage) == 2
    assert job.result["finish"] == "stop"


def test_an_answer_that_was_cut_is_not_kept(stage):
    company(stage)
    ask(stage, {**PROMPT, "max_output": 1})
    ask(stage, {**PROMPT, "max_output": 1})
    assert requests(stage) == 2


def test_an_answer_that_does_not_follow_its_schema_is_not_kept(stage):
    stage.simulator.faults({"fault": {"kind": "reply", "text": "no JSON"}, "times": 1})
    company(stage)
    asked = {**PROMPT, "schema": {"type": "object"}, "reasks": 0}
    job = stage.queue.add("chat", asked, options=CACHE, max_attempts=1)
    assert stage.done(job).state == "failed"
    stage.simulator.faults({"fault": {"kind": "reply", "text": '{"a": 1}'}, "times": 1})
    assert ask(stage, asked).result["data"] == {"a": 1}
    assert ask(stage, asked).result["data"] == {"a": 1}
    assert requests(stage) == 2


def test_vectors_are_kept_too(stage):
    company(stage)
    jobs = [stage.queue.add("embed", {"input": "cats"}, options=CACHE) for _ in range(5)]
    assert {stage.done(job).state for job in jobs} == {"completed"}
    assert all(job.result["embedding"] == jobs[0].result["embedding"] for job in jobs)
    assert requests(stage) == 1


def test_fifty_that_ask_the_same_at_once_are_one_request(stage, monkeypatch):
    monkeypatch.setattr(caching, "LOOK_EVERY", 3600.0)  # they are told, and need not look by themselves
    stage.simulator.faults({"fault": {"kind": "barrier", "n": 2}})
    company(stage)
    jobs = [stage.queue.add("chat", PROMPT, options=CACHE) for _ in range(50)]
    stage.until(lambda: stage.queue.counts()["active"] == 50, "all of them in hand")
    # What the first waits for: a second request. It is of somebody who asks for no old answer.
    other = stage.queue.add("chat", PROMPT)
    assert {stage.done(job).state for job in [*jobs, other]} == {"completed"}
    assert requests(stage) == 2
    assert sorted(origin or "" for job in jobs for _, origin, *_ in rows(job)) == [""] + ["cache"] * 49


def test_when_the_first_fails_exactly_one_other_goes(stage, monkeypatch):
    monkeypatch.setattr(caching, "LOOK_EVERY", 3600.0)
    stage.simulator.faults({"fault": {"kind": "status", "status": 400}, "times": 1})
    company(stage)
    jobs = [stage.queue.add("chat", PROMPT, options=CACHE) for _ in range(10)]
    states = sorted(stage.done(job).state for job in jobs)
    assert states == ["completed"] * 9 + ["failed"]
    assert requests(stage) == 2


def test_a_call_that_is_given_up_lets_the_next_go(stage):
    stage.simulator.faults({"fault": {"kind": "stall", "n": 0}, "times": 1})
    company(stage)
    first = stage.queue.add("chat", PROMPT, options=CACHE)
    stage.until(lambda: requests(stage) == 1, "the first call")
    second = stage.queue.add("chat", PROMPT, options=CACHE)
    stage.until(lambda: second.row().state == "active", "the second in hand")
    first.cancel()
    assert stage.done(second).state == "completed"
    assert requests(stage) == 2


def test_what_goes_to_another_model_is_not_kept_as_the_first_ones_answer(stage):
    stage.simulator.faults({"fault": {"kind": "status", "status": 503}, "match": {"model": "m-1"}, "times": 1})
    company(stage, model={"fallback": ("n",)})
    assert ask(stage).result["model"] == "m-2"
    assert ask(stage).result["model"] == "m-1"
    assert ask(stage, model="n").result["model"] == "m-2"
    assert requests(stage) == 3


def test_steps_within_a_job_that_ask_the_same(stage):
    def twice(ctx):
        return [ctx.complete("Cats sleep.").text, ctx.complete("Cats sleep.").text]

    company(stage, handlers={"twice": twice})
    job = stage.queue.add("twice", {}, options=CACHE)
    assert stage.done(job).state == "completed"
    assert requests(stage) == 1


def test_a_call_may_say_for_itself_how_old_an_answer_may_be(stage):
    def asks(ctx):
        ages = [None, 60, 60, 0, None]
        return [ctx.complete("Cats sleep.", step=f"s{n}", cache=age).text for n, age in enumerate(ages)]

    company(stage, handlers={"asks": asks})
    assert stage.done(stage.queue.add("asks", {})).state == "completed"
    assert requests(stage) == 4, "the third has the second's answer"


@pytest.mark.parametrize("age", [-1, "60", True, float("nan"), 1e12])
def test_an_age_that_is_none_is_refused_by_name(stage, age):
    company(stage, handlers={"asks": lambda ctx: ctx.complete("Cats sleep.", cache=age).text})
    job = stage.queue.add("asks", {})
    assert stage.done(job).state == "failed"
    assert "cache: expected seconds" in job.error["message"]
    assert requests(stage) == 0


def test_what_is_over_the_bounds_goes_the_least_recently_used_first(stage):
    company(stage, cache=CacheSettings(max_entries=2))
    ask(stage, {"prompt": "One thing."})
    ask(stage, {"prompt": "Two things."})
    ask(stage, {"prompt": "One thing."})
    with stage.queue._writer() as c:
        c.script("UPDATE llm_cache SET used_at = used_at - 1000 WHERE hits = 0")
    ask(stage, {"prompt": "Three things."})
    with stage.queue._reader() as c:
        stage.until(lambda: len(c.script("SELECT 1 FROM llm_cache")) == 2, "the third to go")
    ask(stage, {"prompt": "One thing."})
    assert requests(stage) == 3
    ask(stage, {"prompt": "Two things."})
    assert requests(stage) == 4


def test_the_same_name_at_another_address_is_another_account(stage):
    from callboard.actors.providers.model import Request
    from callboard.actors.providers.parts import Message
    from callboard.actors.settings import route

    settings = stage.config(
        providers={"sim": ProviderSettings(name="sim", wire="ollama", base_url="http://localhost:1")}
    )
    where = route(settings, "m")
    request = Request(model="m-1", messages=(Message("user", "x"),))
    assert caching.key_of(request, where, "a") != caching.key_of(request, where, "b")


def test_who_goes_to_another_model_keeps_nobody_waiting_for_the_first(stage):
    stage.simulator.faults({"fault": {"kind": "stall", "n": 0}, "match": {"model": "m-2"}, "times": 1})
    company(
        stage,
        limits=LimitSettings(requests_per_day=1),
        model={"fallback": ("n",), "fallback_on": ("rate",)},
        park_after=0.1,
    )
    ask(stage, options=None)
    job = stage.queue.add("chat", PROMPT, options=CACHE)
    stage.until(lambda: requests(stage) == 2, "the call to the other model")
    with stage.queue._reader() as c:
        assert c.script("SELECT count(*) FROM llm_cache_flights") == [(1,)], "it leads what it asks, and nothing else"
    job.cancel()
