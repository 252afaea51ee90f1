"""`callboard delete`: remove ended jobs and everything that belongs to them."""

import click

from .bulk import check_targets, run_where, where_options
from .options import config_options, open_queue, read_config

ENDED = "state:completed,failed,cancelled"


@click.command()
@click.argument("ids", metavar="[ID]...", type=int, nargs=-1)
@where_options
@config_options
def delete(ids: tuple[int, ...], where: str | None, yes: bool, config_path: str | None, database: str | None) -> int:
    """Delete ended jobs with their data, results, calls, text and events; a job that has not ended is left alone.

    Exit code 1 if one of the ids had not ended, is waited on, or does not exist.
    """
    check_targets(ids, where)
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        if where is not None:
            return run_where(where, queue.count, queue.delete_where, yes=yes, verb="delete", done="deleted", only=ENDED)
        failures = 0
        for job_id in ids:
            if queue.delete_where(f"id:{job_id}"):
                click.echo(f"{job_id} deleted")
            else:
                failures += 1
                click.echo(f"callboard: job {job_id} does not exist, has not ended, or is waited on", err=True)
    return 1 if failures else 0
