"""`callboard events`: what happens on the board, as it is committed."""

import sys
from typing import TYPE_CHECKING

import click

from .options import STATES, config_options, json_option, open_queue, read_config

if TYPE_CHECKING:
    from callboard.persistence.events import Event

NOW = "now"


@click.command()
@click.option("--follow", is_flag=True, help="Stay and print what comes, until interrupted.")
@click.option("--after", metavar="CURSOR|now", help="Begin behind this cursor, or with what happens from now on.")
@click.option("--type", "types", multiple=True, help="Of jobs of this type only; may be repeated.")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Moves to this state only; may be repeated."
)
@click.option("--job", metavar="ID", type=int, help="Of this job only.")
@json_option
@config_options
def events(
    follow: bool,
    after: str | None,
    types: tuple[str, ...],
    states: tuple[str, ...],
    job: int | None,
    as_json: bool,
    config_path: str | None,
    database: str | None,
) -> None:
    """Print every transition of every job, oldest first. With --json: one object a line, each with its cursor.

    A program that starts again with the last cursor it has dealt with misses nothing and sees nothing twice.
    """
    config = read_config(config_path, database)
    if after is not None and after != NOW and not after.isdecimal():
        raise click.BadParameter(
            f"{after!r} is neither a cursor, which is a whole number, nor {NOW}", param_hint="--after"
        )
    with open_queue(config) as queue:
        begin = queue.cursor() if after == NOW else None if after is None else int(after)
        for event in queue.events(begin, types=types or None, states=states or None, job=job, follow=follow):
            click.echo(_json(event) if as_json else _line(event))
            if follow:
                sys.stdout.flush()


def _json(event: "Event") -> str:
    from .text import iso, json_line

    return json_line(
        {
            "cursor": event.cursor,
            "job": event.job_id,
            "type": event.type,
            "from": event.from_state,
            "to": event.to_state,
            "at": iso(event.at),
            "epoch": event.epoch,
            "attempt": event.attempt,
            "actor": event.actor,
            "reason": event.reason,
        }
    )


def _line(event: "Event") -> str:
    from .text import moment, one_line

    moved = f"{event.from_state or 'added'} → {event.to_state}"
    reason = f"  {one_line(event.reason, 200)}" if event.reason else ""
    return f"{event.cursor:>8}  {moment(event.at)}  job {event.job_id} {one_line(event.type, 40)}  {moved}{reason}"
