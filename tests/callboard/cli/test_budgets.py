"""Budgets put, raised and dropped from the shell: every field, a clear word for each bad one, and jobs that waited go on at once."""

import json
from dataclasses import replace

import pytest

from callboard.actors.settings import ModelSettings, PriceSettings
from callboard.cli.budgets import ACTIONS, NANO, PERIODS, SCOPES
from callboard.persistence import budgets as board_budgets
from callboard.persistence.job_queue import JobQueue

CHAT = {"prompt": "Cats sleep. Dogs bark.", "max_output": 10}
CONFIG = """
default_model = "big"
[providers.acme]
wire = "openai-chat"
base_url = "http://127.0.0.1:9/v1"
[models.big]
provider = "acme"
model = "big-1"
[models.small]
provider = "acme"
model = "small-1"
[budgets.daily]
scope = "day"
dollars = 5
"""


@pytest.fixture
def board(here):
    """A configuration and a board with one job."""
    (here / "callboard.toml").write_text(CONFIG)
    with JobQueue("callboard.db") as queue:
        queue.add("chat", CHAT, options={"budget": 0.5})
        yield queue


def on_board(queue):
    return {budget.name: budget for budget in queue.board_budgets()}


def test_the_names_in_options_are_the_boards():
    assert (SCOPES, PERIODS, ACTIONS, NANO) == (
        board_budgets.SCOPES,
        board_budgets.PERIODS,
        board_budgets.ACTIONS,
        board_budgets.NANO,
    )


def test_a_budget_is_put_with_all_its_fields_raised_and_dropped(cli, board):
    fields = "--tokens 1000 --scope model --of big --period month --timezone Europe/Berlin --action downgrade --downgrade-to small"
    put = cli("budgets", "put", "dear", "--dollars", "2.5", *fields.split(), "--assume", "0.01")
    told = "dear: $2.5 and 1,000 tokens a month (Europe/Berlin) for model acme:big-1; what does not fit: downgrade to small\n"
    assert (put.code, put.out) == (0, told), put.err
    assert on_board(board)["dear"] == board_budgets.Budget(
        name="dear",
        scope="model",
        value="acme:big-1",  # as calls name it
        cost=2_500_000_000,
        tokens=1000,
        period="month",
        timezone="Europe/Berlin",
        action="downgrade",
        downgrade_to="small",
        assume=10_000_000,
    )
    before = on_board(board)["dear"]
    raised = cli("budgets", "raise", "dear", "--dollars", "4", "--tokens", "2000")
    assert raised.out == told.replace("$2.5 and 1,000", "$4 and 2,000")
    assert on_board(board)["dear"] == replace(before, cost=4_000_000_000, tokens=2000)  # and the rest is as it was
    listed = [json.loads(line)["budget"] for line in cli("budgets", "--json").out.splitlines()]
    assert listed == ["dear", "daily"]
    assert (cli("budgets", "drop", "dear").out, on_board(board)) == ("dear dropped\n", {})
    again = cli("budgets", "drop", "dear")
    assert (again.code, again.err) == (1, "callboard: there is no budget 'dear' on the board\n")


def test_a_budget_of_a_job_is_put_raised_and_dropped(cli, board):
    def budget():
        return board.body(1)[2].get("budget")

    assert cli("budgets", "raise", "job:1", "--dollars", "0.75").code == 0
    assert budget() == 0.75
    board.cancel(1)
    assert cli("budgets", "put", "job:1", "--dollars", "0.25").out.startswith(
        "job:1: $0.25 for it and all that it creates"
    )
    assert budget() == 0.25
    assert (cli("budgets", "drop", "job:1").out, budget()) == ("job:1 dropped\n", None)
    assert cli("budgets", "drop", "job:1").code == 1
    assert "there is no job 9" in cli("budgets", "drop", "job:9").err


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("put b", "--dollars: or tokens must be given"),
        ("put b --dollars -1", "'--dollars': -1.0 is not in the range x>=0"),
        ("put b --dollars 1e30", "--dollars: must be at most 1e+09"),
        ("put b --tokens 99999999999999999999", "--tokens: must be at most"),
        ("put b --tokens 1.5", "'--tokens': '1.5' is not a valid integer"),
        ("put b --dollars 1 --scope moon", "'--scope': 'moon' is not one of"),
        ("put b --dollars 1 --of x", "--of: goes with another scope"),
        ("put b --dollars 1 --scope job --of seven", "--of: must be the id of a job"),
        ("put b --dollars 1 --scope tree --of 7", "there is no job 7"),
        ("put b --dollars 1 --scope model --of bigg", "--of: model 'bigg' is not configured"),
        ("put b --dollars 1 --scope model --of bigg --unchecked", '--of: must be "provider:model"'),
        ("put b --dollars 1 --scope provider --of acne", "--of: provider 'acne' is not configured"),
        ("put b --dollars 1 --period week", "'--period': 'week' is not one of"),
        ("put b --dollars 1 --timezone Mars/Base", "--timezone: 'Mars/Base' is not known here"),
        ("put b --dollars 1 --action beg", "'--action': 'beg' is not one of"),
        ("put b --dollars 1 --action downgrade", "--downgrade-to: goes with action"),
        ("put b --dollars 1 --downgrade-to smal", "--downgrade-to: model 'smal' is not configured"),
        ("put b --dollars 1 --assume 1e30", "--assume: must be at most 1e+09"),
        (f"put {'b' * 101} --dollars 1", "NAME: must be 1 to 100 characters"),
        ("put daily --dollars 1", "NAME: 'daily' is a budget of the configuration, and cannot be put from here"),
        ("put job:1 --dollars 1 --scope all", "--scope: the budget of a job is in dollars alone"),
        ("put job:1 --dollars 0", "--dollars: must be above 0"),
        ("put job:1", "--dollars: say what job 1"),
        ("put job:x --dollars 1", "NAME: 'job:x' is no job's"),
        ("raise kept", "give --dollars or --tokens"),
        ("raise kep --dollars 9", "NAME: there is no budget 'kep' on the board (there are: kept)"),
        ("raise kept --dollars 5", "--dollars: kept is $5 already"),
        ("raise kept --tokens 5", "--tokens: kept has no limit in tokens"),
        ("raise daily --dollars 9", "cannot be raised from here"),
        ("raise job:1 --dollars 0.1", "--dollars: job:1 is $0.5 already"),
        ("raise job:1 --tokens 5", "--tokens: the budget of a job is in dollars alone"),
        ("drop daily", "cannot be dropped from here"),
    ],
)
def test_what_cannot_be_is_said_with_its_field_and_changes_nothing(cli, board, asked, says):
    board.set_budget("kept", dollars=5)
    told = cli("budgets", *asked.split())
    assert told.code in (2, 78), told
    assert says in told.err
    assert (on_board(board).keys(), on_board(board)["kept"].cost) == ({"kept"}, 5_000_000_000)
    assert board.body(1)[2] == {"budget": 0.5}


@pytest.mark.parametrize("how", ["raise run --dollars 1", "put run --tokens 100000", "drop run"])
def test_jobs_that_waited_for_a_budget_go_on_at_once(cli, stage, how):
    where = ["--database", stage.database]
    put = cli(
        "budgets", "put", "run", "--dollars", "0.0001", "--scope", "tag", "--of", "night", "--action", "pause", *where
    )
    assert put.code == 0, put.err
    stage.company(models={"m": ModelSettings(provider="sim", model="m-1", price=PriceSettings(input=10, output=20))})
    job = stage.queue.add("chat", CHAT, tag="night")
    stage.until(lambda: "held by budget run" in stage.queue.why(job), "it waits for the budget")
    assert stage.simulator.journal() == []
    assert cli("budgets", *how.split(), *where).code == 0
    assert stage.done(job).state == "completed"


def test_a_job_that_failed_for_its_own_budget_is_said_to_need_a_retry(cli, stage):
    where = ["--database", stage.database]
    stage.company(models={"m": ModelSettings(provider="sim", model="m-1", price=PriceSettings(input=10, output=20))})
    job = stage.queue.add("chat", CHAT, options={"budget": 0.0000001})
    assert stage.done(job).state == "failed"
    told = cli("budgets", "raise", f"job:{job.id}", "--dollars", "1", *where)
    assert f"`callboard retry {job.id}` sends it back" in told.err
    assert cli("retry", job.id, *where).code == 0
    assert stage.done(job.refresh()).state == "completed"
