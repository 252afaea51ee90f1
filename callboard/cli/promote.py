"""`callboard promote`: let delayed jobs run now."""

import click

from .options import config_options, open_queue, read_config


@click.command()
@click.argument("ids", metavar="ID...", type=int, nargs=-1, required=True)
@config_options
def promote(ids: tuple[int, ...], config_path: str | None, database: str | None) -> int:
    """Let delayed jobs run now. Exit code 1 if one is not delayed or does not exist."""
    config = read_config(config_path, database)
    from callboard.persistence.errors import JobNotFoundError

    failures = 0
    with open_queue(config) as queue:
        for job_id in ids:
            try:
                promoted = queue.promote(job_id)
                problem = "" if promoted else f"job {job_id} is not delayed: it is {queue.row(job_id).state}"
            except JobNotFoundError as error:
                promoted, problem = False, str(error)
            failures += not promoted
            click.echo(f"{job_id} promoted" if promoted else f"callboard: {problem}", err=not promoted)
    return 1 if failures else 0
