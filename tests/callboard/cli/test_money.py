"""What is shown of money: costs, budgets, prices, and what a run of `map` may cost."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from callboard.actors.money_settings import PricesSettings
from callboard.cli.costs import BY
from callboard.cli.map_money import projected
from callboard.cli.map_progress import Snapshot, describe
from callboard.cli.rows import Naming, read_rows
from callboard.persistence.costs import BY as BOARD_BY
from callboard.persistence.errors import InvalidJobError
from callboard.persistence.job_queue import JobQueue

ROWS = [f"Row {n} has a sentence of its own." for n in range(12)]
PRICED = '[models.priced]\nprovider = "local"\nmodel = "m-1"\nprice = { input = 10, output = 20 }\n'


@pytest.fixture
def priced(provider, here):
    """A simulator whose model has a price, as the default."""
    file = here / "callboard.toml"
    file.write_text(file.read_text().replace('"local:m"', '"priced"') + PRICED)
    return provider


@pytest.fixture
def rows(here):
    (here / "rows.jsonl").write_text("".join(json.dumps({"t": text}) + "\n" for text in ROWS))
    return here / "rows.jsonl"


def billed(simulator):
    """In dollars, by the provider's own count."""
    usages = [entry["usage"] for entry in simulator.journal()]
    return sum(usage["input_tokens"] * 10e-6 + usage["output_tokens"] * 20e-6 for usage in usages)


def test_the_names_in_options_are_the_boards():
    assert set(BY) == set(BOARD_BY)


def test_map_says_what_it_may_cost_and_stops_at_max_cost(cli, priced, rows, here):
    arguments = ["map", rows, "--prompt", "Say: {t}", "--max-output", "20", "-o", "out.jsonl"]
    told = cli(*arguments, "--max-cost", "0.002")
    assert "estimate: 12 requests to priced, about" in told.err
    assert "at most $0.0" in told.err
    assert "--max-cost of $0.002 is reached: " in told.err
    assert "rows have no answer yet and stay on the board" in told.err
    assert told.code == 1
    assert 0 < billed(priced) <= 0.002
    done = len(priced.journal())
    assert 0 < done < 12
    listed = [json.loads(line) for line in cli("budgets", "--json").out.splitlines()]
    assert [(b["limit_usd"], b["reserved_usd"]) for b in listed] == [(0.002, 0)]
    assert listed[0]["spent_usd"] == pytest.approx(billed(priced))

    again = cli(*arguments, "--max-cost", "0.02")
    assert again.code == 0
    assert f"estimate: {12 - done} requests" in again.err
    assert len(priced.journal()) == 12  # nothing was asked twice
    assert billed(priced) <= 0.02

    (model,) = [json.loads(line) for line in cli("costs", "--json").out.splitlines()]
    assert (model["model"], model["calls"], model["unpriced"]) == ("local:m-1", 12, 0)
    assert model["cost_usd"] == pytest.approx(billed(priced))
    days = cli("costs", "--by", "day", "--since", "1h").out
    assert days.startswith("day (UTC)")
    assert "12" in days.splitlines()[1]
    assert "all" in days.splitlines()[-1]
    assert cli("costs", "--since", "2200-01-01").err == "callboard: no calls\n"
    shown = cli("show", "1")
    assert "cost $0.0" in shown.out
    assert json.loads(cli("show", "1", "--json").out)["cost"]["tree_jobs"] == 1


def test_a_run_with_a_tag_of_its_own_is_told_apart_and_its_rows_count_in_every_budget_of_the_tag(cli, priced, here):
    (here / "two.jsonl").write_text('{"t": "One."}\n{"t": "Two."}\n')
    naming = Naming("Say: {t}", "priced", {"max_output": 20})
    with JobQueue(here / "callboard.db") as queue:
        # One row was answered before there was a tag, the other was not.
        for row in read_rows(str(here / "two.jsonl")):
            data = {"prompt": f"Say: {row.fields['t']}", "max_output": 20}
            queue.add("chat", data, model="priced", key=naming.key(row), tag=naming.name)
        queue.cancel(2)
        assert cli("worker", "--once").code == 0
        queue.set_budget("map:another", dollars=0, scope="tag", value="nightly", action="pause")

        arguments = [
            "map",
            "two.jsonl",
            "--prompt",
            "Say: {t}",
            "--max-output",
            "20",
            "--tag",
            "nightly",
            "--retry-failed",
        ]
        told = cli(*arguments, "-o", "out.jsonl")
        assert told.code == 1
        assert "the --max-cost of another run is about the tag 'nightly' too" in told.err
        assert (
            "is reached: 1 rows have no answer yet and stay on the board; `callboard budgets raise map:another"
            in told.err
        )
        assert len(priced.journal()) == 1
        assert [queue.row(job_id).tag for job_id in (1, 2)] == [naming.name, "nightly"]

        assert cli("budgets", "raise", "map:another", "--dollars", "1").code == 0
        told = cli(*arguments, "-o", "out.jsonl", "--max-cost", "0.5")
        assert told.code == 0, told.err
        assert "callboard list --tag nightly" in told.out
        (cap,) = [budget for budget in queue.board_budgets() if budget.name == naming.name]
        assert (cap.value, cap.cost) == ("nightly", 500_000_000)
    assert len(priced.journal()) == 2
    tags = [json.loads(line) for line in cli("costs", "--by", "tag", "--json").out.splitlines()]
    assert {row["tag"]: row["calls"] for row in tags} == {naming.name: 1, "nightly": 1}
    standings = {told["budget"]: told for told in map(json.loads, cli("budgets", "--json").out.splitlines())}
    assert standings[naming.name]["spent_usd"] == standings["map:another"]["spent_usd"] > 0


@pytest.mark.parametrize("tag", ["", "x" * 201])
def test_a_tag_that_no_job_can_have_is_refused_before_anything_is_posted(cli, provider, rows, here, tag):
    told = cli("map", rows, "--prompt", "Say: {t}", "--tag", tag)
    assert (told.code, "--tag: must be text of 1 to 200 characters" in told.err) == (2, True), told.err
    assert not (here / "callboard.db").exists()


def test_where_it_is_money_and_somebody_is_there_it_asks(cli, priced, rows, here):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "callboard", "map", rows, "--prompt", "Say: {t}", "-o", "out.jsonl"]
    asking = subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    said = b""
    while b"go on?" not in said:
        said += os.read(ours, 1000)
    os.write(ours, b"n\n")
    assert asking.wait(30) == 1
    assert b"at most $" in said
    assert b"answers of 512 tokens assumed" in said
    os.close(ours)
    assert priced.journal() == []
    with JobQueue(here / "callboard.db") as queue:
        assert queue.list() == []


def test_what_a_run_will_cost_is_projected_from_what_it_has_cost():
    assert projected(100, 4, 12) == 400
    assert projected(100, 4, 0) == 100
    assert projected(None, 4, 12) is None
    assert projected(0, 0, 12) is None
    shown = Snapshot(
        done=4, failed=0, active=1, waiting=11, tokens=9, cost=10**9, rate=1, held=None, projected=4 * 10**9
    )
    assert "cost $1.00 of about $4.00" in describe(shown, 16)


def test_an_unknown_price_is_said_and_has_no_max_cost(cli, provider, rows, here):
    told = cli("map", rows, "--prompt", "Say: {t}", "--max-cost", "1")
    assert told.code == 2
    assert "--max-cost: the price of local:m is not known" in told.err
    with JobQueue(here / "callboard.db") as queue:
        assert queue.list() == []


def test_budgets_of_the_configuration_are_shown_before_they_are_used(cli, priced, here):
    with JobQueue(here / "callboard.db") as queue:
        assert queue.budgets() == []
    assert "no budgets" in cli("budgets").err
    file = here / "callboard.toml"
    file.write_text(file.read_text() + '[budgets.daily]\nscope = "day"\ndollars = 5\naction = "pause"\n')
    (shown,) = [json.loads(line) for line in cli("budgets", "--json").out.splitlines()]
    assert (shown["budget"], shown["limit_usd"], shown["left_usd"]) == ("daily", 5, 5)
    assert shown["until"].endswith("T00:00:00.000+00:00")
    shown = cli("budgets").out
    assert "$5.00" in shown
    assert re.search(r"\d\d:\d\d[+-]\d\d:\d\d$", shown.rstrip()), "the end of the day names its zone"


@pytest.mark.parametrize("when", ["yesterday", "7", "d", "2026-13-01"])
def test_a_time_that_is_none(cli, here, when):
    told = cli("costs", "--since", when)
    assert (told.code, "is no time" in told.err) == (2, True)


def test_prices_are_shown_with_their_source(cli, priced, here):
    told = cli("prices")
    assert "openai:gpt-5-mini" in told.out
    assert "priced" in told.out
    assert "genai-prices" in told.out
    assert "gemini:gemini-2.5-pro" in cli("prices", "--all").out
    rows = [json.loads(line) for line in cli("prices", "--json").out.splitlines()]
    assert {"model": "priced", "from": "configured"}.items() <= rows[0].items()


COMMUNITY = {
    "sample_spec": {"mode": "chat", "litellm_provider": "one of", "input_cost_per_token": 0.0},
    "gpt-5-mini": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 3e-07,
        "output_cost_per_token": 2e-06,
        "cache_read_input_token_cost": 2.5e-08,
        "input_cost_per_token_batches": 1.5e-07,
        "max_input_tokens": 272000,
        "max_output_tokens": 128000,
    },
    "gemini/gemini-9": {
        "litellm_provider": "gemini",
        "mode": "chat",
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
    },
    "azure/gpt-5-mini": {"litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 9},
    "gpt-image": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_token": 9},
    **{
        f"filler-{n}": {
            "litellm_provider": "anthropic",
            "mode": "chat",
            "input_cost_per_token": 1e-06,
            "output_cost_per_token": 5e-06,
        }
        for n in range(10)
    },
}


def refreshed(cli, here, table, *more):
    (here / "new.json").write_text(json.dumps(table))
    return cli("prices", "refresh", "--from", "new.json", "--to", "prices.json", *more)


def test_a_refresh_reads_the_community_s_format_and_says_what_changed(cli, here):
    told = refreshed(cli, here, COMMUNITY)
    assert told.code == 0, told.err
    assert "openai:gpt-5-mini: 0.25/2 -> 0.3/2" in told.out
    assert "11 models are new" in told.out
    assert 'prices] file = "prices.json"' in told.err
    models = json.loads((here / "prices.json").read_text())["models"]
    assert models["openai"] == {
        "gpt-5-mini": {
            "input": 0.3,
            "output": 2.0,
            "cache_read": 0.025,
            "batch": 0.5,
            "context_window": 272000,
            "max_output": 128000,
        }
    }
    assert models["gemini"]["gemini-9"]["long_context"] == {"above": 200000, "input": 2.5, "output": 15.0}
    (here / "callboard.toml").write_text('[prices]\nfile = "prices.json"\n')
    assert "openai:gpt-5-mini" in cli("prices").out.split("prices.json")[0]
    assert refreshed(cli, here, COMMUNITY).out.endswith("0 models are new, 0 are gone, 0 changed\n")


def changed(**more):
    return {**COMMUNITY, "gpt-5-mini": {**COMMUNITY["gpt-5-mini"], **more}}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "has prices for 0 models"),
        (changed(input_cost_per_token=3e-04), "more than 10 times"),
        (changed(input_cost_per_token=0), "more than 10 times"),
        (changed(output_cost_per_token=-1), "-1 is no price"),
        (changed(input_cost_per_token="free"), "is no price"),
        ([], "not a table of prices"),
    ],
)
def test_what_is_more_likely_a_mistake_than_news_is_refused(cli, here, table, says):
    assert refreshed(cli, here, COMMUNITY).code == 0
    before = (here / "prices.json").read_bytes()
    told = refreshed(cli, here, table)
    assert (told.code, says in told.err) == (2, True), told.err
    assert (here / "prices.json").read_bytes() == before
    assert sorted(file.name for file in here.iterdir()) == ["new.json", "prices.json"]


def test_half_a_table_is_refused_unless_it_is_meant(cli, here):
    wide = {**COMMUNITY, **{f"more-{n}": COMMUNITY["filler-0"] for n in range(30)}}
    assert refreshed(cli, here, wide).code == 0
    assert "and the one in use for 42" in refreshed(cli, here, COMMUNITY).err
    assert refreshed(cli, here, COMMUNITY, "--force").code == 0
    assert "only https" in cli("prices", "refresh", "--from", "http://example.com/x", "--to", "p.json").err
    assert "no file of your own" in cli("prices", "refresh").err


def test_budgets_of_the_board_are_shown_before_they_are_used(cli, here):
    with JobQueue("sqlite:///callboard.db") as queue:
        queue.set_budget("run-7", dollars=5, scope="tag", value="run-7")
        queue.set_budget("each", tokens=100, scope="tag", period="day")
        assert [(b.budget, b.cap, b.token_cap) for b in queue.budgets()] == [
            ("each", None, 100),
            ("run-7", 5_000_000_000, None),
        ]
    assert "run-7" in cli("budgets").out
    assert (cli("budgets", "drop", "run-7").out, cli("budgets", "drop", "run-7").code) == ("run-7 dropped\n", 1)
    assert "run-7" not in cli("budgets").out


def test_what_was_never_sent_has_no_unknown_cost(cli, provider, here):
    provider.faults({"fault": {"kind": "status", "status": 400}})
    assert cli("add", "chat", "--prompt", "x").code == 0
    assert cli("worker", "--once").code == 0
    heading, row, _ = cli("costs").out.splitlines()
    assert heading.split("  ")[-1].strip() == "cost"  # and no column of what is unpriced or unknown
    assert row.split() == ["local:m", "1", "0", "0", "0", "-"]


def test_a_job_is_added_with_its_bounds(cli, provider, here):
    told = cli("add", "chat", "--prompt", "x", "--max-output", "7", "--budget", "0.5", "--cache", "60")
    with JobQueue("sqlite:///callboard.db") as queue:
        job = queue.get(int(told.out))
        assert job.data == {"prompt": "x", "max_output": 7}
        assert queue.body(job.id)[2] == {"budget": 0.5, "cache": 60}


@pytest.mark.parametrize(
    ("asks", "told"),
    [
        (lambda queue: queue.set_budget("b", dollars=-1), "dollars: must be a number of at least 0, not -1"),
        (lambda queue: queue.set_budget("b", tokens=-1), "tokens: must be a number of at least 0, not -1"),
        (lambda queue: queue.costs(since="yesterday"), "since: must be a time in whole epoch milliseconds"),
        (lambda queue: queue.add("chat", {}, options={"deadline": 3600}), "not seconds from now: 3600 was in 1970"),
    ],
)
def test_a_slip_of_units_is_refused(here, asks, told):
    with JobQueue("sqlite:///callboard.db") as queue, pytest.raises(InvalidJobError, match=told):
        asks(queue)


def test_a_worker_that_runs_takes_up_prices_that_are_refreshed(cli, stage, here):
    def table(price):
        return json.dumps(
            {
                "format": 1,
                "date": "2026-11-01",
                "source": "ours",
                "models": {"sim": {"m-1": {"input": price, "output": 0}}},
            }
        )

    def cost_per_token():
        job = stage.done(stage.queue.add("chat", {"prompt": f"Cats sleep. Dogs bark. {len(stage.queue.list())}"})).id
        (call,) = stage.queue.calls(job)
        return call.cost / call.input_uncached

    (here / "callboard.toml").write_text('[prices]\nfile = "prices.json"\n')
    (here / "prices.json").write_text(table(10))
    stage.company(prices=PricesSettings(file="prices.json"))
    assert cost_per_token() == 10_000
    (here / "new.json").write_text(table(30))
    told = cli("prices", "refresh", "--from", "new.json", "--force")
    assert "sim:m-1: 10/0 -> 30/0" in told.out
    assert "workers that run look at it at every sweep" in told.err
    stage.until(lambda: cost_per_token() == 30_000, "the new price")
