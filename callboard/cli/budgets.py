"""`callboard budgets`: how much may still be spent, and budgets on the board put, raised and dropped, which every worker keeps to at once."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from callboard.config_checks import check_model, did_you_mean

from .errors import InputError
from .options import config_options, json_option, open_queue, read_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from callboard.config import Config
    from callboard.persistence.budgets import Budget, Standing
    from callboard.persistence.job_queue import JobQueue

SCOPES = ("all", "tag", "tree", "job", "model", "provider")
PERIODS = ("none", "day", "month")
ACTIONS = ("stop", "pause", "downgrade")
"""As the options take them; a test compares them with the board's."""
NANO = 1_000_000_000
_OF_JOB = "job:"
_OPTIONS = {"value": "--of", "downgrade_to": "--downgrade-to", "name": "NAME"}

_dollars = click.option("--dollars", type=click.FloatRange(0), metavar="DOLLARS", help="How much its calls may cost.")
_tokens = click.option(
    "--tokens", type=click.IntRange(0), metavar="N", help="How many tokens they may take, input and output together."
)


@click.group(invoke_without_command=True)
@json_option
@config_options
@click.pass_context
def budgets(context: click.Context, as_json: bool, config_path: str | None, database: str | None) -> None:
    """Show each budget: how much it is, spent, reserved by calls under way, left, and until when. Of a period only the current one.

    `put`, `raise` and `drop` change those on the board, and those of single jobs (job:ID). Those of the configuration are changed there.
    """
    if context.invoked_subcommand is not None:
        return
    from .records import now_ms

    config = read_config(config_path, database)
    now = now_ms()
    with open_queue(config) as queue:
        standings = [s for s in queue.budgets() if s.until is None or s.until > now]
    known = {standing.budget for standing in standings}
    standings += [
        unused for unused in _configured(config, now) if not any(_is_of(name, unused.budget) for name in known)
    ]
    if as_json:
        from .text import json_line

        for standing in standings:
            click.echo(json_line(_standing_json(standing)))
    else:
        _print_budgets(standings)


@budgets.command()
@click.argument("name")
@_dollars
@_tokens
@click.option("--scope", type=click.Choice(SCOPES), default="all", show_default=True, help="Which calls count in it.")
@click.option(
    "--of",
    "value",
    metavar="TAG|MODEL|PROVIDER|ID",
    help="The tag, model, provider or job that a budget of that scope is about. Without it each has one of its own.",
)
@click.option("--period", type=click.Choice(PERIODS), default="none", show_default=True, help="When it begins anew.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Whose midnight that is.")
@click.option(
    "--action",
    type=click.Choice(ACTIONS),
    default="stop",
    show_default=True,
    help="A job whose call does not fit fails (stop), waits (pause), or goes on with another model (downgrade).",
)
@click.option("--downgrade-to", metavar="MODEL", help="With --action downgrade: the model.")
@click.option(
    "--assume",
    type=click.FloatRange(0),
    metavar="DOLLARS",
    help="What a call without a known price counts as; else it is refused.",
)
@click.option(
    "--unchecked",
    is_flag=True,
    help="Take a model or provider that this configuration does not know: the worker's may.",
)
@config_options
def put(name: str, unchecked: bool, config_path: str | None, database: str | None, **fields: Any) -> None:
    """Put the budget NAME on the board, or in place of the one of this name: what is not said is as by default, not as it was.

    Every worker of the database keeps to it from its next call on; jobs that wait for it look again at once. What it has counted stays.
    """
    config = read_config(config_path, database)
    if name.startswith(_OF_JOB):
        with open_queue(config) as queue, _named_by_option():
            _put_on_job(queue, name, fields)
        return
    _refuse_configured(config, name, "put")
    if not unchecked:
        _check_names(config, fields)

    with open_queue(config, create=True) as queue, _named_by_option():
        if fields["scope"] in ("job", "tree") and fields["value"] is not None and fields["value"].isdecimal():
            queue.row(int(fields["value"]))  # there must be such a job
        queue.set_budget(name, **fields)
        (made,) = [budget for budget in queue.board_budgets() if budget.name == name]
    click.echo(f"{name}: {_told(made)}")


@budgets.command("raise")
@click.argument("name")
@_dollars
@_tokens
@config_options
def raise_(name: str, dollars: float | None, tokens: int | None, config_path: str | None, database: str | None) -> None:
    """Give the budget NAME of the board, or of a job (job:ID), more dollars or tokens; all else of it stays. Jobs that wait for it look again at once.

    A job that failed for its budget is sent back with `callboard retry`.
    """
    if dollars is None and tokens is None:
        raise InputError("give --dollars or --tokens: what it is to be from now on, all in all")
    config = read_config(config_path, database)
    with open_queue(config) as queue, _named_by_option():
        if name.startswith(_OF_JOB):
            _raise_of_job(queue, name, dollars, tokens)
            return
        _refuse_configured(config, name, "raised")
        before = _on_board(queue, name)
        after = before
        if dollars is not None:
            cost = round(dollars * NANO)
            _check_more("dollars", name, cost, before.cost)
            after = replace(after, cost=cost)
        if tokens is not None:
            _check_more("tokens", name, tokens, before.tokens)
            after = replace(after, tokens=tokens)
        queue.set_budget(name, **_fields(after))
    click.echo(f"{name}: {_told(after)}")


@budgets.command()
@click.argument("name")
@config_options
def drop(name: str, config_path: str | None, database: str | None) -> int:
    """Take the budget NAME off the board, or off a job (job:ID). What it has counted stays; jobs that wait for it go on at once.

    Exit code 1 if there is none.
    """
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        if name.startswith(_OF_JOB):
            job_id = _job_of(name)
            found = _budget_of_job(queue, job_id) is not None
            if found:
                queue.set_job_budget(job_id, None)
        else:
            found = queue.drop_budget(name)
            if not found:
                _refuse_configured(config, name, "dropped")
    if not found:
        click.echo(f"callboard: there is no budget {name!r} on the board", err=True)
        return 1
    click.echo(f"{name} dropped")
    return 0


def _refuse_configured(config: "Config", name: str, done: str) -> None:
    if name in config.budgets:
        raise InputError(
            f"NAME: {name!r} is a budget of the configuration, and cannot be {done} from here",
            f"change [budgets.{name}] there and restart the workers; a budget of another name holds beside it",
        )


def _check_names(config: "Config", fields: dict[str, Any]) -> None:
    """Resolve a model to what calls name it; refuse models and providers that this configuration does not know."""
    if fields["downgrade_to"] is not None:
        check_model(config, fields["downgrade_to"], "--downgrade-to")
    value = fields["value"]
    if fields["scope"] == "model" and value is not None:
        from callboard.actors.settings import route

        check_model(config, value, "--of")
        where = route(config, value)
        fields["value"] = f"{where.provider}:{where.name}"
    if fields["scope"] == "provider" and value is not None and value not in config.providers:
        raise InputError(
            f"--of: provider {value!r} is not configured (known: {', '.join(config.providers)})",
            did_you_mean(value, config.providers),
        )


def _named_by_option() -> "AbstractContextManager[None]":
    """Errors of the board's about a field, told by the option that it came from."""
    from contextlib import contextmanager

    from callboard.persistence.errors import InvalidJobError

    @contextmanager
    def named() -> "Iterator[None]":
        try:
            yield
        except InvalidJobError as error:
            problem = str(error).partition(": ")[2]
            raise InputError(f"{_OPTIONS.get(error.field, f'--{error.field}')}: {problem}") from error

    return named()


def _on_board(queue: "JobQueue", name: str) -> "Budget":
    known = {budget.name: budget for budget in queue.board_budgets()}
    if name not in known:
        raise InputError(
            f"NAME: there is no budget {name!r} on the board (there are: {', '.join(known) or 'none'})",
            did_you_mean(name, list(known)) or "`callboard budgets put` makes one",
        )
    return known[name]


def _check_more(option: str, name: str, new: int, before: int | None) -> None:
    if before is None:
        raise InputError(
            f"--{option}: {name} has no limit in {option}, so any would be less; `callboard budgets put` sets one"
        )
    if new <= before:
        shown = f"{before:,}" if option == "tokens" else f"${before / NANO:g}"
        raise InputError(f"--{option}: {name} is {shown} already; `callboard budgets put` makes it less")


def _put_on_job(queue: "JobQueue", name: str, fields: dict[str, Any]) -> None:
    job_id = _job_of(name)
    context = click.get_current_context()
    for field in fields:
        if field != "dollars" and context.get_parameter_source(field) is ParameterSource.COMMANDLINE:
            raise InputError(
                f"{_OPTIONS.get(field, f'--{field}')}: the budget of a job is in dollars alone, for it and all that it creates"
            )
    if fields["dollars"] is None:
        raise InputError(f"--dollars: say what job {job_id} and all that it creates may cost")
    _set_of_job(queue, job_id, fields["dollars"])


def _raise_of_job(queue: "JobQueue", name: str, dollars: float | None, tokens: int | None) -> None:
    job_id = _job_of(name)
    if tokens is not None or dollars is None:
        raise InputError("--tokens: the budget of a job is in dollars alone")
    before = _budget_of_job(queue, job_id)
    _check_more("dollars", name, round(dollars * NANO), None if before is None else round(before * NANO))
    _set_of_job(queue, job_id, dollars)


def _set_of_job(queue: "JobQueue", job_id: int, dollars: float) -> None:
    queue.set_job_budget(job_id, dollars)
    click.echo(f"{_OF_JOB}{job_id}: ${dollars:g} for it and all that it creates; what does not fit: stop")
    if queue.row(job_id).state == "failed":
        click.echo(f"callboard: job {job_id} has failed; `callboard retry {job_id}` sends it back", err=True)


def _job_of(name: str) -> int:
    number = name.removeprefix(_OF_JOB)
    if not (number.isascii() and number.isdecimal()):
        raise InputError(f"NAME: {name!r} is no job's; write job:7 for that of job 7")
    return int(number)


def _budget_of_job(queue: "JobQueue", job_id: int) -> float | None:
    """In dollars. Raises JobNotFoundError."""
    queue.row(job_id)
    found: float | None = queue.body(job_id)[2].get("budget")
    return found


def _fields(budget: "Budget") -> dict[str, Any]:
    """A budget as `set_budget` takes it."""
    return {
        "dollars": None if budget.cost is None else budget.cost / NANO,
        "tokens": budget.tokens,
        "scope": budget.scope,
        "value": budget.value,
        "period": budget.period,
        "timezone": budget.timezone,
        "action": budget.action,
        "downgrade_to": budget.downgrade_to,
        "assume": None if budget.assume is None else budget.assume / NANO,
    }


def _told(budget: "Budget") -> str:
    """What a budget is, in a line."""
    amounts = [f"${budget.cost / NANO:g}"] if budget.cost is not None else []
    amounts += [f"{budget.tokens:,} tokens"] if budget.tokens is not None else []
    whose = (
        "all calls"
        if budget.scope == "all"
        else f"each {budget.scope}"
        if budget.value is None
        else f"{budget.scope} {budget.value}"
    )
    period = "" if budget.period == "none" else f" a {budget.period} ({budget.timezone})"
    action = f"downgrade to {budget.downgrade_to}" if budget.downgrade_to is not None else budget.action
    return f"{' and '.join(amounts)}{period} for {whose}; what does not fit: {action}"


def _is_of(name: str, budget: str) -> bool:
    return name == budget or name.startswith(f"{budget}:")


def _configured(config: "Config", now: int) -> "list[Standing]":
    """The configuration's budgets that nothing has asked yet."""
    from callboard.actors.shared_budgets import budgets_of
    from callboard.persistence.budgets import Standing, period_at

    found = []
    for budget in budgets_of(config):
        period = period_at(budget, now)
        found.append(Standing(budget.name, period.name, budget.cost, budget.tokens, 0, 0, 0, 0, period.until, now))
    return found


def _standing_json(standing: "Standing") -> dict[str, Any]:
    from .text import dollars, iso

    return {
        "budget": standing.budget,
        "period": standing.period or None,
        "limit_usd": dollars(standing.cap),
        "spent_usd": dollars(standing.spent),
        "reserved_usd": dollars(standing.reserved),
        "left_usd": dollars(standing.left),
        "limit_tokens": standing.token_cap,
        "spent_tokens": standing.tokens_spent,
        "reserved_tokens": standing.tokens_reserved,
        "until": iso(standing.until),
    }


def _print_budgets(standings: "list[Standing]") -> None:
    from .display import print_table
    from .text import count, moment, money, one_line

    if not standings:
        click.echo(
            "callboard: no budgets; `callboard budgets put` makes one, or [budgets.NAME] in the configuration (docs/money.md)",
            err=True,
        )
        return
    print_table(
        [
            ("budget", "left"),
            ("limit", "right"),
            ("spent", "right"),
            ("reserved", "right"),
            ("left", "right"),
            ("tokens", "right"),
            ("until", "left"),
        ],
        [
            [
                one_line(s.budget, 60),
                "-" if s.cap is None else money(s.cap),
                money(s.spent),
                money(s.reserved),
                "-" if s.left is None else f"-{money(-s.left)}" if s.left < 0 else money(s.left),
                count(s.tokens_spent)
                + (f" + {count(s.tokens_reserved)} reserved" if s.tokens_reserved else "")
                + ("" if s.token_cap is None else f" of {count(s.token_cap)}"),
                "" if s.until is None else moment(s.until, "minutes"),
            ]
            for s in standings
        ],
    )
