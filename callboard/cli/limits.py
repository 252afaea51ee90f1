"""`callboard limits`: how each limit key stands, and lifting a hold. From the database alone, whether or not a worker runs."""

from typing import Any

import click

from .options import config_options, json_option, read_config

_NAMES = {"requests": "requests", "input": "input tokens", "output": "output tokens", "total": "tokens"}


@click.command()
@click.option(
    "--resume", metavar="KEY", help="Lift the hold of this key (or provider); its jobs go on within a second."
)
@json_option
@config_options
def limits(resume: str | None, as_json: bool, config_path: str | None, database: str | None) -> int:
    """Show each limit key: what is used of each limit and free, calls in flight, holds, and who waits until when.

    A hold stands after a refusal by the provider: for money (quota) and keys (auth) until that is put right and --resume KEY says so, or until
    the worker has tried again. Exit code 1 if --resume finds no hold.
    """
    config = read_config(config_path, database)
    from callboard.persistence import limits as shared
    from callboard.persistence.engine import open_database
    from callboard.persistence.limit_status import overview

    from .records import now_ms

    board = open_database(config.database, create=False, synchronous=config.synchronous)
    try:
        with board.connect() as connection:
            if resume is not None:
                with connection.write():
                    freed = shared.resume(connection, resume, now_ms())
                if freed < 0:
                    click.echo(f"callboard: {resume} is not on hold; `callboard limits` shows what is", err=True)
                    return 1
                from .text import plural

                click.echo(f"{resume} resumed; nothing holds {plural(freed, 'job')} any more")
                return 0
            now = now_ms()
            found = overview(connection, now)
    finally:
        board.close()
    if as_json:
        from .text import json_line

        click.echo(json_line({"at_ms": now, "keys": found}, indent=2))
    elif not found:
        click.echo("callboard: no limit key is in use yet: a model has one from its first call on", err=True)
    else:
        _print(found, now)
    return 0


def _print(found: list[dict[str, Any]], now: int) -> None:
    from rich.text import Text

    from .display import cell, print_table

    rows: list[list[Text]] = []
    for one in found:
        shown = one["key"]
        for what, used, limit, free in _lines(one):
            rows.append([cell(shown, "bold"), cell(what), cell(used), cell(limit), cell(free, _style(free))])
            shown = ""
        for text, style in _notes(one, now):
            rows.append([cell(shown, "bold"), Text.assemble(cell(text, style)), cell(""), cell(""), cell("")])
            shown = ""
    print_table(
        [("key", "left"), ("what", "left"), ("used", "right"), ("limit", "right"), ("free", "right")],
        rows,
        wide=1,
        wrap=True,
    )


def _lines(one: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    from .text import count, moment

    lines = [(f"{_NAMES[name]} per minute", told) for name, told in one["minute"].items()]
    ends = one["day"].get("ends_ms")
    until = f" until {moment(ends, 'minutes')}" if ends is not None else ""
    lines += [(f"{_NAMES[name]} per day{until}", told) for name, told in one["day"].items() if name in _NAMES]
    lines.append(("calls in flight", one["concurrency"]))
    return [(what, count(told["used"]), count(told["limit"]), count(told["free"])) for what, told in lines]


def _notes(one: dict[str, Any], now: int) -> list[tuple[str, str]]:
    from .text import duration, one_line, plural

    notes = []
    if (hold := one["hold"]) is not None:
        whole = "" if hold["key"] == one["key"] else f", with all of {hold['key']}"
        left = duration((hold["until_ms"] - now) / 1000)
        notes.append((f"on hold for {left} more{whole} ({hold['kind']}): {one_line(hold['reason'], 200)}", "red"))
        if hold["kind"] in ("auth", "quota"):
            notes.append((f"put that right, then: callboard limits --resume {hold['key']}", "red"))
    if one["factor"] < 1:
        notes.append((f"lowered to {one['factor']:.0%} after refusals; comes back by 2 % a minute", "yellow"))
    waiting = one["waiting"]
    if waiting["in_line"]:
        notes.append((f"{plural(waiting['in_line'], 'call')} in line", ""))
    if waiting["jobs"]:
        first = duration(max(0, waiting["from_ms"] - now) / 1000)
        last = duration(max(0, waiting["until_ms"] - now) / 1000)
        notes.append(
            (f"one job waits, for {first}", "")
            if waiting["jobs"] == 1
            else (f"{waiting['jobs']} jobs wait: the first for {first}, the last for {last}", "")
        )
    return notes


def _style(free: str) -> str:
    return "red" if free == "0" else ""
