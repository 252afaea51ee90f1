"""`callboard costs` and `callboard budgets`: what calls have cost, and how much may still be spent."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from .errors import InputError
from .options import config_options, json_option, open_queue, read_config

if TYPE_CHECKING:
    from callboard.config import Config
    from callboard.persistence.budgets import Standing
    from callboard.persistence.costs import CostRow

BY = ("model", "provider", "tag", "day", "job", "tree", "type", "queue", "all")
"""As the option takes them; a test compares them with the board's."""
_SPANS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


@click.command()
@click.option("--by", type=click.Choice(BY), default="model", show_default=True, help="What to sum by.")
@click.option("--since", metavar="WHEN", help="Calls sent since then: 90m, 24h, 7d, 2w, or a date (UTC).")
@click.option("--before", metavar="WHEN", help="Calls sent before then.")
@click.option("--tag", help="Only jobs with this tag.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The dearest so many.")
@json_option
@config_options
def costs(
    by: str,
    since: str | None,
    before: str | None,
    tag: str | None,
    limit: int,
    as_json: bool,
    config_path: str | None,
    database: str | None,
) -> None:
    """Show what calls have cost. What deleted jobs cost is in the sums; calls without a known price are counted apart, never as 0."""
    from .records import now_ms
    from .text import json_line

    now = now_ms()
    first, end = moment(since, now, "--since"), moment(before, now, "--before")
    with open_queue(read_config(config_path, database)) as queue:
        rows = queue.costs(by, since=first or 0, before=end, tag=tag, limit=limit)
        total = next(iter(queue.costs("all", since=first or 0, before=end, tag=tag)), None)
    if as_json:
        for row in rows:
            click.echo(json_line(_row_json(by, row)))
        return
    _print_costs(by, rows, total)


def moment(text: str | None, now: int, option: str) -> int | None:
    """A time as people write it, in epoch milliseconds: so long ago, or a date or time (UTC unless it says otherwise)."""
    if text is None:
        return None
    if text[:-1].isdigit() and text[-1] in _SPANS:
        return now - int(text[:-1]) * _SPANS[text[-1]] * 1000
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{option}: {text!r} is no time", "write 90m, 24h, 7d, 2w, 2026-11-21 or 2026-11-21T08:00"
        ) from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _row_json(by: str, row: "CostRow") -> dict[str, Any]:
    from .text import dollars

    found = {
        name: value
        for name, value in row._asdict().items()
        if name not in ("name", "cost", "reserved", "unknown_cost", "saved")
    }
    return {
        by: row.name,
        **found,
        "cost_usd": dollars(row.cost),
        "reserved_usd": dollars(row.reserved),
        "unknown_usd": dollars(row.unknown_cost),
        "saved_usd": dollars(row.saved),
    }


def _print_costs(by: str, rows: "list[CostRow]", total: "CostRow | None") -> None:
    from .display import Justify, print_table
    from .text import count, money, one_line

    if total is None:
        click.echo("callboard: no calls", err=True)
        return

    def cells(row: "CostRow", name: str) -> list[Any]:
        return [
            one_line(name, 60),
            count(row.calls),
            count(row.input),
            count(row.cache_read),
            count(row.output),
            "-" if row.cost is None and not (row.unpriced or row.unknown or row.reserved) else money(row.cost),
            count(row.unpriced) if row.unpriced else "",
            money(row.reserved) if row.reserved else "",
            f"{count(row.unknown)} ({money(row.unknown_cost)})" if row.unknown else "",
            money(row.saved) if row.saved else "",
        ]

    table = [cells(row, row.name or "(none)") for row in rows]
    if by != "all":
        table.append(cells(total, "all"))
    headings = (
        "calls",
        "tokens in",
        "of them cached",
        "tokens out",
        "cost",
        "unpriced",
        "under way",
        "unknown",
        "saved",
    )
    columns: list[tuple[str, Justify]] = [
        ("day (UTC)" if by == "day" else by, "left"),
        *((heading, "right") for heading in headings),
    ]
    # Four of them are empty as a rule, and then only make the table broader than a terminal.
    used = [n for n in range(len(columns)) if n < 6 or any(row[n] for row in table)]
    print_table([columns[n] for n in used], [[row[n] for n in used] for row in table])


@click.command()
@click.option(
    "--drop", metavar="NAME", help="Take a budget off the board that a program or `map --max-cost` put there."
)
@json_option
@config_options
def budgets(drop: str | None, as_json: bool, config_path: str | None, database: str | None) -> int:
    """Show each budget: how much it is, spent, reserved by calls under way, left, and until when. Of a period only the current one.

    Exit code 1 if --drop finds no such budget on the board; those of the configuration are changed there.
    """
    from .records import now_ms

    config = read_config(config_path, database)
    now = now_ms()
    with open_queue(config) as queue:
        if drop is not None:
            if queue.drop_budget(drop):
                click.echo(f"{drop} dropped")
                return 0
            click.echo(f"callboard: there is no budget {drop!r} on the board", err=True)
            return 1
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
    return 0


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
    from .text import count, money, one_line
    from .text import moment as shown

    if not standings:
        click.echo("callboard: no budgets; [budgets.NAME] in the configuration makes one (docs/money.md)", err=True)
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
                "" if s.until is None else shown(s.until, "minutes"),
            ]
            for s in standings
        ],
    )
