"""Another model is asked instead: after which failures, with what in the ledger, and what readers of the stream are told."""

import pytest

from callboard import ConfigError, load_config
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import LimitSettings, ModelSettings, PriceSettings

PROMPT = {"prompt": "Cats sleep. Dogs bark."}
PRICE = PriceSettings(input=1.0, output=1.0)


def company(stage, *, fallback_on=("overloaded", "truncated", "server"), fallback=("second", "third"), limits=None):
    provider = ProviderSettings(
        name="sim", wire="openai-chat", base_url=f"{stage.simulator.url}/v1", allow_private=True
    )
    other = ProviderSettings(name="other", wire="anthropic-messages", base_url=stage.simulator.url, allow_private=True)
    models = {
        "first": ModelSettings(
            provider="sim",
            model="m-1",
            price=PRICE,
            max_output=50,
            fallback=fallback,
            fallback_on=fallback_on,
            limits=limits,
        ),
        "second": ModelSettings(provider="sim", model="m-2", price=PRICE, max_output=60),
        "third": ModelSettings(provider="other", model="m-3", price=PRICE),
    }
    return stage.company(providers={"sim": provider, "other": other}, models=models, default_model="first")


def fail(stage, model, fault, **rule):
    stage.simulator.faults({"fault": fault, "match": {"model": model}, **rule})


def asked(job):
    return [(call.model, call.state, call.error_class) for call in job.calls()]


OVERLOADED = {"kind": "status", "status": 503}


def test_the_next_model_is_asked_within_the_same_attempt(stage):
    fail(stage, "m-1", OVERLOADED)
    fail(stage, "m-2", OVERLOADED)
    company(stage)
    job = stage.queue.add("chat", PROMPT)
    row = stage.done(job)
    assert (row.state, row.attempt, row.failures) == ("completed", 1, 0)
    assert job.result["model"] == "m-3"
    assert asked(job) == [("m-1", "failed", "overloaded"), ("m-2", "failed", "overloaded"), ("m-3", "completed", None)]
    bodies = {entry["model"]: entry["body"] for entry in stage.simulator.journal()}
    assert (bodies["m-1"]["max_tokens"], bodies["m-2"]["max_tokens"]) == (50, 60), "each model's own default holds"


def test_a_chain_that_is_used_up_costs_an_attempt_and_begins_anew(stage):
    fail(stage, "m-1", OVERLOADED, times=1)
    fail(stage, "m-2", OVERLOADED, times=1)
    company(stage, fallback=("second",))
    job = stage.queue.add("chat", PROMPT)
    row = stage.done(job)
    assert (row.state, row.failures, job.result["model"]) == ("completed", 1, "m-1")
    assert [model for model, *_ in asked(job)] == ["m-1", "m-2", "m-1"]


def test_a_failure_that_is_not_named_goes_its_ordinary_way(stage):
    fail(stage, "m-1", {"kind": "status", "status": 400})
    company(stage)
    job = stage.queue.add("chat", PROMPT)
    assert stage.done(job).state == "failed"
    assert [model for model, *_ in asked(job)] == ["m-1"]


@pytest.mark.parametrize(("fault", "named"), [({"kind": "refusal"}, "refusal"), ({"kind": "content_filter"}, "filter")])
def test_a_model_that_will_not_answer_is_paid_and_passed_over_where_the_alias_says_so(stage, fault, named):
    fail(stage, "m-1", fault)
    company(stage, fallback_on=(named,))
    job = stage.queue.add("chat", PROMPT)
    assert stage.done(job).state == "completed"
    assert asked(job) == [("m-1", "failed", named), ("m-2", "completed", None)]
    assert job.calls()[0].cost > 0, "what was refused is paid for"


def test_a_refusal_is_a_result_where_it_is_not_named(stage):
    fail(stage, "m-1", {"kind": "refusal"})
    company(stage)
    job = stage.queue.add("chat", PROMPT)
    assert stage.done(job).state == "completed"
    assert (job.result["finish"], job.result["model"]) == ("refusal", "m-1")


def test_what_was_shown_of_the_first_model_is_void_for_its_readers(stage):
    fail(stage, "m-1", {"kind": "cut", "n": 1})
    company(stage)
    job = stage.queue.add("chat", PROMPT)
    assert stage.done(job).state == "completed"
    assert asked(job)[0] == ("m-1", "failed", "truncated")
    shown, voided = "", []
    for chunk in job.stream():
        if chunk.restarted:
            voided.append(shown)
            shown = ""
        shown += chunk.text
    assert shown == job.result["text"]
    assert [bool(text) for text in voided] == [True], "the reader was told once, after it had seen something"


def test_a_job_that_would_rather_be_looked_at_is_not_asked_elsewhere(stage):
    fail(stage, "m-1", {"kind": "html"})
    company(stage, fallback_on=("server",))
    job = stage.queue.add("chat", PROMPT, options={"on_unknown": "park"})
    assert stage.done(job).state == "failed"
    assert [model for model, *_ in asked(job)] == ["m-1"]
    assert job.error["class"] == "unknown_outcome"


def calls_to(stage, model):
    return sum(entry["model"] == model for entry in stage.simulator.journal())


REFUSALS = [
    ({"kind": "status", "status": 429, "retry_after": 60}, "rate", "m-2"),
    ({"kind": "status", "status": 429, "type": "insufficient_quota", "code": "insufficient_quota"}, "quota", "m-3"),
    ({"kind": "status", "status": 401}, "auth", "m-3"),
]


@pytest.mark.parametrize(("fault", "kind", "answers"), REFUSALS)
def test_a_key_that_is_held_sends_its_jobs_elsewhere_without_a_call(stage, fault, kind, answers):
    fail(stage, "m-1", fault)
    if answers == "m-3":  # both models of the provider have one credential, so both are held
        fail(stage, "m-2", fault)
    company(stage, fallback_on=(kind,))
    first = stage.queue.add("chat", PROMPT)
    assert stage.done(first).state == "completed"
    made = calls_to(stage, "m-1"), calls_to(stage, "m-2")
    stage.until(lambda: hold_of(stage), "the hold on disk")
    for _ in range(3):
        job = stage.queue.add("chat", PROMPT)
        row = stage.done(job)
        assert (row.state, row.attempt, row.failures, row.deferrals) == ("completed", 1, 0, 0)
        assert asked(job) == [(answers, "completed", None)]
    assert calls_to(stage, "m-1") == made[0] == 1
    if answers == "m-3":
        assert calls_to(stage, "m-2") == made[1] <= 1


def hold_of(stage):
    with stage.queue._reader() as c:
        return c.script("SELECT kind FROM llm_limit_holds")


def test_a_key_that_is_held_for_what_is_not_named_is_waited_for(stage):
    fail(stage, "m-1", {"kind": "status", "status": 401})
    company(stage, fallback_on=("rate",))
    job = stage.queue.add("chat", PROMPT)
    stage.until(lambda: stage.queue.get(job.id).row().held_by is not None, "the job to wait for the key")
    row = job.row()
    assert (row.state, row.failures) == ("waiting", 0)
    assert [model for model, *_ in asked(job)] == ["m-1"]


def test_limits_of_our_own_that_are_used_up_count_as_rate(stage):
    company(stage, fallback_on=("rate",), limits=LimitSettings(requests_per_day=1))
    jobs = [stage.queue.add("chat", PROMPT) for _ in range(3)]
    assert {stage.done(job).state for job in jobs} == {"completed"}
    assert sorted(job.result["model"] for job in jobs) == ["m-1", "m-2", "m-2"]
    later = stage.queue.add("chat", PROMPT)
    assert stage.done(later).deferrals == 0
    assert asked(later) == [("m-2", "completed", None)]


def test_an_open_breaker_sends_its_jobs_elsewhere_without_a_call(stage):
    fail(stage, "m-1", {**OVERLOADED, "retry_after": 100})
    company(stage, fallback_on=("overloaded",))
    for number in range(7):
        job = stage.queue.add("chat", PROMPT)
        row = stage.done(job)
        assert (row.state, row.failures, job.result["model"]) == ("completed", 0, "m-2")
        assert calls_to(stage, "m-1") == min(5, number + 1)


def test_a_chain_that_is_held_whole_waits_for_whichever_is_free_first(stage):
    fail(stage, "m-1", {"kind": "status", "status": 429, "retry_after": 100})
    fail(stage, "m-2", {"kind": "status", "status": 429, "retry_after": 4000})
    company(stage, fallback_on=("rate",), fallback=("second",))
    job = stage.queue.add("chat", PROMPT)
    stage.until(lambda: job.row().held_by is not None, "the job to wait")
    assert job.row().held_by == "sim/m-1"
    again = stage.queue.add("chat", PROMPT)
    later = stage.queue.add("chat", PROMPT, model="third")
    assert stage.done(later).state == "completed", "the board was looked at after both were held"
    # It may be claimed before the dispatcher knows; then the limiter sends it back.
    stage.until(lambda: again.row().state == "waiting", "the other to wait as well")
    assert (again.row().failures, again.calls()) == (0, [])
    assert (calls_to(stage, "m-1"), calls_to(stage, "m-2")) == (1, 1)


def test_a_fallback_that_leads_nowhere_is_refused_with_its_place(tmp_path):
    file = tmp_path / "callboard.toml"
    file.write_text(
        "[models.fast]\nprovider = 'openai'\nmodel = 'm'\nfallback = ['openai:n', 'slwo']\n[models.slow]\nprovider = 'openai'\nmodel = 'o'\n"
    )
    with pytest.raises(ConfigError, match=r"models\.fast\.fallback\[1\].*slwo") as refused:
        load_config(file, env={})
    assert "slow" in refused.value.hint
