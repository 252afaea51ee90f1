"""`callboard retry`: send failed or cancelled jobs back to waiting."""

import click

from .bulk import check_targets, run_where, where_options
from .options import config_options, open_queue, read_config


@click.command()
@click.argument("ids", metavar="[ID]...", type=int, nargs=-1)
@where_options
@config_options
def retry(ids: tuple[int, ...], where: str | None, yes: bool, config_path: str | None, database: str | None) -> int:
    """Send failed or cancelled jobs back to waiting, their counters at zero; steps they completed are not paid for again.

    Exit code 1 if one of the ids is neither failed nor cancelled, or does not exist.
    """
    check_targets(ids, where)
    config = read_config(config_path, database)
    from callboard.persistence.errors import JobNotFoundError

    with open_queue(config) as queue:
        if where is not None:
            return run_where(
                where,
                queue.count,
                queue.retry_where,
                yes=yes,
                verb="send back",
                done="sent back",
                only="state:failed,cancelled",
            )
        failures = 0
        for job_id in ids:
            try:
                if queue.retry(job_id):
                    click.echo(f"{job_id} sent back")
                    continue
                problem = f"job {job_id} cannot be sent back: it is {queue.row(job_id).state}"
            except JobNotFoundError as error:
                problem = str(error)
            failures += 1
            click.echo(f"callboard: {problem}", err=True)
    return 1 if failures else 0
