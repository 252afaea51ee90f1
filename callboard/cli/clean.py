"""`callboard clean`: delete what ended long ago, before the worker's retention does."""

import re
import sys

import click

from .errors import InputError
from .options import config_options, open_queue, read_config

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")


@click.command()
@click.option("--older-than", required=True, metavar="DURATION", help="Since its end: 30d, 12h, 90m, or seconds.")
@click.option("--state", type=click.Choice(["completed", "failed", "cancelled"]), help="In this state only.")
@config_options
def clean(older_than: str, state: str | None, config_path: str | None, database: str | None) -> None:
    """Delete jobs that ended long ago, with all that belongs to them. What they cost stays in `callboard stats`.

    What a job that has not ended waits on is kept. It goes in small steps and may be interrupted.
    """
    seconds = parse_duration(older_than)
    config = read_config(config_path, database)

    def progress(deleted: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{deleted:,} deleted", nl=False, err=True)

    with open_queue(config) as queue:
        deleted = queue.clean(older_than=seconds, state=state, progress=progress)
    click.echo(f"{deleted} deleted")


def parse_duration(given: str) -> float:
    """Seconds, from `30d`, `12h`, `90m`, `10s` or a number. Raises InputError."""
    found = _DURATION.fullmatch(given.strip())
    if found is None:
        raise InputError(f"--older-than: expected a duration such as 30d, 12h, 90m or 10s, not {given!r}")
    return float(found[1]) * _UNITS[found[2]]
