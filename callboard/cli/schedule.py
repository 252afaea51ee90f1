"""`callboard schedule`: jobs that recur."""

from typing import Any

import click

from .add import check_posting, parse_data, parse_priority
from .errors import InputError
from .options import config_options, json_option, open_queue, read_config
from .text import duration, iso, json_line, moment, one_line


@click.group(invoke_without_command=True)
@click.pass_context
def schedule(ctx: click.Context) -> None:
    """Jobs that recur: by a cron expression in a time zone, or in an interval."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@schedule.command()
@click.argument("name")
@click.argument("job_type", metavar="TYPE")
@click.option("--data", default="{}", show_default=True, metavar="JSON|@FILE|-", help="The data of its jobs.")
@click.option("--cron", metavar="EXPR", help="When, as in '0 9 * * 1-5'.")
@click.option("--every", type=click.FloatRange(1), metavar="SECONDS", help="Or in this interval.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="Of --cron, as in Europe/Berlin.")
@click.option(
    "--catch-up",
    type=click.Choice(["latest", "all"]),
    default="latest",
    show_default=True,
    help="What to make up for of what was missed while no worker ran.",
)
@click.option("--model", help="An alias, or provider:model. Default: the worker's default model.")
@click.option("--priority", default="0", metavar="N|NAME", help="Of its jobs, as in `callboard add`.")
@click.option("--tag", help="Of its jobs.")
@click.option("--unique", metavar="NAME", help="Let an occurrence go while a live job has this name.")
@click.option("--unchecked", is_flag=True, help="Even if this configuration knows no such type or model.")
@config_options
def add(
    name: str,
    job_type: str,
    data: str,
    cron: str | None,
    every: float | None,
    model: str | None,
    priority: str,
    unchecked: bool,
    config_path: str | None,
    database: str | None,
    **fields: Any,
) -> None:
    """Make a schedule, or change the one of this name; one whose rhythm stays keeps its next time."""
    if (cron is None) == (every is None):
        raise InputError("give --cron or --every, one of them")
    config = read_config(config_path, database)
    if not unchecked:
        check_posting(config, job_type, model)
    said = {key: value for key, value in fields.items() if value is not None}
    with open_queue(config, create=True) as queue:
        made = queue.schedule(
            name,
            job_type,
            parse_data(data),
            cron=cron,
            every=every,
            model=model,
            priority=parse_priority(priority),
            **said,
        )
    rests = " (it is paused)" if made.paused_at is not None else ""
    click.echo(f"{name}: next at {moment(made.next_at)}{rests}")


@schedule.command("list")
@json_option
@config_options
def list_schedules(as_json: bool, config_path: str | None, database: str | None) -> None:
    """List all schedules. With --json: one object a line."""
    from dataclasses import asdict

    config = read_config(config_path, database)
    with open_queue(config) as queue:
        found = queue.schedules()
    if as_json:
        for one in found:
            times = {key: iso(getattr(one, key)) for key in ("next_at", "last_at", "paused_at", "created_at")}
            click.echo(json_line({**asdict(one), **times}))
        return
    if not found:
        click.echo("no schedules", err=True)
        return
    from .display import print_table

    print_table(
        [("name", "left"), ("when", "left"), ("type", "left"), ("next", "left"), ("last", "left"), ("note", "left")],
        [
            [
                one.name,
                f"{one.cron} {one.timezone}" if one.cron is not None else f"every {duration(one.every)}",
                one_line(str(one.job.get("type")), 28),
                "-" if one.paused_at is not None else moment(one.next_at),
                moment(one.last_at),
                one_line(one.problem or ("paused" if one.paused_at is not None else ""), 200),
            ]
            for one in found
        ],
        wide=5,
    )


def _named(verb: str, done: str, summary: str) -> None:
    @schedule.command(verb, help=summary)
    @click.argument("name")
    @config_options
    def command(name: str, config_path: str | None, database: str | None) -> int:
        with open_queue(read_config(config_path, database)) as queue:
            moves = {
                "remove": queue.unschedule,
                "pause": queue.pause_schedule,
                "resume": queue.resume_schedule,
            }
            if not moves[verb](name):
                raise InputError(f"there is no schedule {name!r}", "callboard schedule list names them")
        click.echo(f"{name} {done}")
        return 0


_named("remove", "removed", "Forget a schedule; the jobs it has added stay.")
_named("pause", "paused", "Let a schedule rest until it is resumed.")
_named("resume", "resumed", "Let it go on with the next occurrence; what was due meanwhile is not made up for.")
