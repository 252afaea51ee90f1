"""Budgets in a company in this process: what becomes of the jobs that do not fit, and what a configuration may say."""

import pytest

from callboard import ConfigError, load_config
from callboard.actors.settings import BudgetSettings, ModelSettings, PriceSettings

CHAT = {"prompt": "Cats sleep. Dogs bark.", "max_output": 10}
DEAR, CHEAP = PriceSettings(input=1000, output=1000), PriceSettings(input=1, output=1)
MODELS = {
    "m": ModelSettings(provider="sim", model="m-1", price=DEAR),
    "mini": ModelSettings(provider="sim", model="mini-1", price=CHEAP),
    "unpriced": ModelSettings(provider="sim", model="u-1"),
}


def company(stage, handlers=None, **budgets):
    return stage.company(handlers, models=MODELS, budgets=budgets)


def asked(job):
    return [call.model for call in job.calls()]


def error_of(job):
    return {key: job.error[key] for key in ("class", "budget")}


def test_a_budget_goes_on_with_a_cheaper_model(stage):
    rule = BudgetSettings(scope="model", model="m", dollars=0.03, action="downgrade", downgrade_to="mini")
    company(stage, dear=rule)
    jobs = [stage.queue.add("chat", CHAT) for _ in range(3)]
    for job in jobs:
        assert stage.done(job).state == "completed"
    assert sorted(model for job in jobs for model in asked(job)) == ["m-1", "mini-1", "mini-1"]
    assert [row.cost is not None for row in stage.queue.costs("model")] == [True, True]


def test_a_budget_that_the_cheaper_model_does_not_fit_either_stops_the_job(stage):
    company(stage, all=BudgetSettings(dollars=0, action="downgrade", downgrade_to="mini"))
    job = stage.queue.add("chat", CHAT)
    row = stage.done(job)
    assert (row.state, row.failures, error_of(job)) == ("failed", 1, {"class": "budget", "budget": "all"})
    assert "budget 'all' is $0.00" in row.reason
    assert asked(job) == []
    assert stage.simulator.journal() == []


def test_a_model_without_a_price_is_refused_under_a_budget_in_dollars(stage):
    company(stage, all=BudgetSettings(dollars=1))
    job = stage.queue.add("chat", CHAT, model="unpriced")
    assert "price of sim:u-1 is not known" in stage.done(job).reason
    assert stage.simulator.journal() == []


def test_a_job_that_is_paused_goes_on_when_the_budget_is_raised(stage):
    supervisor = company(stage, all=BudgetSettings(dollars=0.01, action="pause"))
    job = stage.queue.add("chat", CHAT)
    stage.until(lambda: "budget all" in stage.queue.why(job), "it waits for the budget")
    row = stage.queue.row(job.id)
    assert (row.state, row.failures, row.deferrals, row.held_by) == ("waiting", 0, 1, "budget all")
    supervisor.stop(0.0)
    company(stage, all=BudgetSettings(dollars=1, action="pause"))
    assert stage.done(job).state == "completed"


def test_a_job_s_own_budget_covers_what_it_creates(stage):
    def parent(ctx):
        ctx.children([{"type": "chat", "data": CHAT}] * 3, policy="ignore")

    company(stage, {"parent": parent})
    job = stage.queue.add("parent", options={"budget": 0.03})
    assert stage.done(job).state == "completed"
    states = sorted(child.state for child in job.children())
    assert states == ["completed", "failed", "failed"]
    failed = [error_of(child) for child in job.children() if child.state == "failed"]
    assert failed == [{"class": "budget", "budget": f"job:{job.id}"}] * 2
    tree = job.tree_cost()
    assert (tree.jobs, tree.calls) == (4, 1)
    assert 0 < tree.cost <= 30_000_000


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("[budgets.b]", "budgets.b.dollars", "dollars or tokens must be given"),
        ('[budgets.b]\ndollars = 1\ntag = "x"', "budgets.b.tag", 'scope = "tag"'),
        ('[budgets.b]\ndollars = 1\nscope = "moon"', "budgets.b.scope", "expected"),
        ('[budgets.b]\ndollars = 1\naction = "downgrade"', "budgets.b.downgrade_to", "needs one"),
        (
            '[budgets.b]\ndollars = 1\naction = "downgrade"\ndowngrade_to = "what"',
            "budgets.b.downgrade_to",
            "is not configured",
        ),
        ('[budgets.b]\ndollars = 1\nscope = "model"\nmodel = "what"', "budgets.b.model", "is not configured"),
        ('[budgets.b]\ndollars = 1\nscope = "provider"\nprovider = "what"', "budgets.b.provider", "is not configured"),
        ('[budgets.b]\ndollars = 1\ntimezone = "Mars"', "budgets.b.timezone", "is not known here"),
        ("[budgets.b]\ndollars = -1", "budgets.b.dollars", "at least 0"),
        ('[prices]\nfile = "gone.json"', "prices.file", "cannot be read"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(tmp_path, text, where, says):
    file = tmp_path / "callboard.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as told:
        load_config(file, env={})
    assert told.value.where.endswith(where), told.value.where
    assert says in str(told.value)


def test_a_configuration_with_budgets_is_handed_to_a_child_as_it_is(tmp_path):
    from callboard.config import config_from_json

    file = tmp_path / "callboard.toml"
    file.write_text(
        '[budgets.daily]\nscope = "day"\ndollars = 5\ntimezone = "Europe/Berlin"\naction = "pause"\n'
        '[models.a]\nprovider = "openai"\nmodel = "x"\n[models.a.price]\ninput = 1\noutput = 2\n'
        "[models.a.price.long_context]\nabove = 100\ninput = 2\noutput = 4\n"
    )
    config = load_config(file, env={})
    assert config_from_json(config.to_json()) == config
    assert config.models["a"].price.long_context.above == 100
