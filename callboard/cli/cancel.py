"""`callboard cancel`: end jobs that have not ended, also running ones, from any process."""

import click

from .bulk import check_targets, run_where, where_options
from .options import config_options, open_queue, read_config


@click.command()
@click.argument("ids", metavar="[ID]...", type=int, nargs=-1)
@click.option("--tree", is_flag=True, help="With all they created, and all that only they and that wait on.")
@where_options
@config_options
def cancel(
    ids: tuple[int, ...], tree: bool, where: str | None, yes: bool, config_path: str | None, database: str | None
) -> int:
    """Cancel jobs; a running call is aborted within a moment. Exit code 1 if one had already ended or does not exist."""
    check_targets(ids, where)
    if tree and where is not None:
        raise click.UsageError("--tree takes ids, not --where")
    config = read_config(config_path, database)
    from callboard.persistence.errors import JobNotFoundError

    failures = 0
    with open_queue(config) as queue:
        if where is not None:
            return run_where(
                where,
                queue.count,
                queue.cancel_where,
                yes=yes,
                verb="cancel",
                done="cancelled",
                only="-state:completed,failed,cancelled",
            )
        for job_id in ids:
            try:
                job = queue.get(job_id)
            except JobNotFoundError as error:
                failures += 1
                click.echo(f"callboard: {error}", err=True)
                continue
            if tree and (count := queue.cancel_tree(job_id)):
                click.echo(f"{job_id} cancelled with its tree: {count} jobs")
            elif not tree and job.cancel():
                click.echo(f"{job_id} cancelled")
            else:
                failures += 1
                click.echo(f"callboard: job {job_id} had already ended: {job.refresh().state}", err=True)
    return 1 if failures else 0
