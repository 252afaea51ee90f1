"""`callboard costs`: what calls have cost."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from .errors import InputError
from .options import config_options, json_option, open_queue, read_config

if TYPE_CHECKING:
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
