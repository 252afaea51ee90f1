"""`callboard duplicate`: post a job again that has been posted before."""

import click

from .options import config_options, open_queue, read_config


@click.command()
@click.argument("job_id", metavar="ID", type=int)
@config_options
def duplicate(job_id: int, config_path: str | None, database: str | None) -> None:
    """Post a job that is to do what this one was to do, whatever became of it; the new id is printed. Nothing it paid for is used again."""
    with open_queue(read_config(config_path, database)) as queue:
        click.echo(queue.duplicate(job_id).id)
