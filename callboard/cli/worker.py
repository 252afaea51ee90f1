"""`callboard worker`: the standalone supervisor process. Imports nothing of the company until it is called."""

import sys
from typing import Any

import click

from callboard.config import Config, config_from_json

from .options import read_config


@click.command()
@click.option(
    "--config", "config_path", metavar="FILE", help="The configuration; - reads it as one line of JSON from stdin."
)
@click.option("--database", metavar="PATH|URL", help="The database; created if it does not exist.")
@click.option(
    "--profile",
    type=click.Choice(["solo", "pool"]),
    help="solo: one job at a time. pool: as many as runners and limits allow.",
)
@click.option("--runners", type=click.IntRange(1, 1000), help="At most this many jobs at once (runners.max).")
@click.option("--once", is_flag=True, help="End when nothing is left to do, instead of waiting for more.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="json: one object per line.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--watch-stdin", is_flag=True, hidden=True, help="End when stdin ends: the parent process has gone.")
def worker(once: bool, watch_stdin: bool, **given: Any) -> int:
    """Perform the jobs on the board until told to stop.

    SIGTERM or Ctrl-C drains: running jobs may finish within drain_timeout, the others go back to the board at no cost of an attempt;
    a second signal does not wait. Exit codes: 0 stopped or drained, 70 gave up (restart it), 78 bad configuration.
    """
    config = _config(**given)
    from callboard.worker import run_worker

    from .log_format import configure_logging

    configure_logging(config.log_level, config.log_format)
    return run_worker(config, once=once, watch_stdin=watch_stdin)


def _config(
    config_path: str | None,
    database: str | None,
    profile: str | None,
    runners: int | None,
    log_format: str | None,
    log_level: str | None,
) -> Config:
    options = {"profile": profile, "runners.max": runners, "log_format": log_format, "log_level": log_level}
    if config_path == "-":
        return config_from_json(sys.stdin.buffer.readline(), overrides={"database": database, **options})
    return read_config(config_path, database, options)
