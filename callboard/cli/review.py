"""`callboard review`: jobs that wait for a person, because nobody knows whether a call of theirs was done and billed."""

from typing import TYPE_CHECKING

import click

from .errors import InputError
from .options import config_options, json_option, open_queue, read_config
from .text import duration, json_line, one_line

if TYPE_CHECKING:
    from callboard.persistence.job_queue import JobQueue


@click.command()
@click.option(
    "--retry",
    "retried",
    type=int,
    multiple=True,
    metavar="ID",
    help="Make the call again, at the risk of paying twice.",
)
@click.option("--fail", "dismissed", type=int, multiple=True, metavar="ID", help="Leave the job failed.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
@config_options
def review(
    retried: tuple[int, ...],
    dismissed: tuple[int, ...],
    limit: int,
    as_json: bool,
    config_path: str | None,
    database: str | None,
) -> int:
    """List the jobs parked with an unknown outcome and the calls in question, or decide on them.

    Exit code 1 if a job named by --retry or --fail is not parked.
    """
    if both := set(retried) & set(dismissed):
        raise InputError(f"job {min(both)} is named by --retry and by --fail")
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        if not retried and not dismissed:
            return _show(queue, limit, as_json=as_json)
        from callboard.persistence.errors import JobNotFoundError

        failures = 0
        for job_id, decide, done in [
            *((job_id, queue.retry_parked, "sent back") for job_id in retried),
            *((job_id, queue.dismiss, "left failed") for job_id in dismissed),
        ]:
            try:
                decided = decide(job_id)
                problem = f"job {job_id} is not parked"
            except JobNotFoundError as error:
                decided, problem = False, str(error)
            failures += not decided
            click.echo(f"{job_id} {done}" if decided else f"callboard: {problem}", err=not decided)
    return 1 if failures else 0


def _show(queue: "JobQueue", limit: int, *, as_json: bool) -> int:
    from .records import call_json, now_ms, row_json

    parked = queue.parked(limit)
    unknown = {row.id: [call for call in queue.calls(row.id) if call.state == "unknown"] for row in parked}
    if as_json:
        for row in parked:
            click.echo(json_line({**row_json(row), "unknown_calls": [call_json(call) for call in unknown[row.id]]}))
        return 0
    if not parked:
        click.echo("nothing to review", err=True)
        return 0
    from .display import print_table

    now = now_ms()
    print_table(
        [("id", "right"), ("type", "left"), ("model", "left"), ("step", "left"), ("sent", "right"), ("reason", "left")],
        [
            [
                row.id,
                row.type,
                one_line(call.model if call else row.model or "-", 28),
                one_line(call.step if call else "-", 20),
                f"{duration((now - call.sent_at) / 1000)} ago" if call else "-",
                one_line(row.reason or "", 200),
            ]
            for row in parked
            for call in unknown[row.id] or (None,)
        ],
        wide=5,
    )
    click.echo("decide with --retry ID (may pay twice) or --fail ID", err=True)
    return 0
