"""`callboard batches`: requests of several jobs that go out together, and how far each batch is."""

from typing import TYPE_CHECKING, Any

import click

from .options import config_options, json_option, open_queue, read_config
from .text import count, duration, json_line

if TYPE_CHECKING:
    from callboard.persistence.batches import BatchInfo, RequestInfo


@click.command()
@click.option("--all", "every", is_flag=True, help="Also those that are over.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@json_option
@config_options
def batches(every: bool, limit: int, as_json: bool, config_path: str | None, database: str | None) -> None:
    """List provider batches and embedding groups that are under way. With --json: one object a line.

    A batch is looked after by a job of its own: `callboard show JOB` has its timeline, `callboard promote JOB` lets it leave or be looked at
    now, and pausing the queue @batches lets no batch leave.
    """
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        found = queue.batches(every=every, limit=limit)
    if as_json:
        for batch in found:
            click.echo(json_line(batch_json(batch)))
        return
    if not found:
        click.echo("no batch is under way" if not every else "there was no batch yet", err=True)
        return
    _print(found)


def batch_json(batch: "BatchInfo") -> dict[str, Any]:
    """A batch as one JSON object; times in ISO 8601."""
    from .text import iso

    return {
        "batch": batch.id,
        "job": batch.job_id,
        "kind": batch.kind,
        "provider": batch.provider,
        "endpoint": batch.endpoint,
        "state": batch.state,
        "job_state": batch.job_state,
        "requests": batch.requests,
        "members": batch.members,
        "provider_id": batch.batch_id,
        "created_at": iso(batch.created_at),
        "submitted_at": iso(batch.submitted_at),
        "ended_at": iso(batch.ended_at),
        "next_at": iso(batch.next_at),
        "polls": batch.polls,
        "reason": batch.reason,
        "error": batch.error,
    }


def request_json(request: "RequestInfo") -> dict[str, Any]:
    """One request of a job that went with others, or waits to."""
    return {
        "step": request.step,
        "state": request.state,
        "batch": request.batch,
        "job": request.job_id,
        "kind": request.kind,
        "provider": request.provider,
        "batch_state": request.batch_state,
        "provider_id": request.batch_id,
        "error": request.error,
    }


def _print(found: "list[BatchInfo]") -> None:
    from .display import print_table
    from .records import now_ms
    from .text import one_line

    now = now_ms()
    print_table(
        [
            ("batch", "right"),
            ("job", "right"),
            ("kind", "left"),
            ("provider", "left"),
            ("state", "left"),
            ("requests", "right"),
            ("done", "right"),
            ("age", "right"),
            ("next look", "right"),
            ("", "left"),
        ],
        [
            [
                batch.id,
                batch.job_id,
                batch.kind,
                batch.provider,
                batch.state,
                count(batch.requests),
                count(batch.members.get("done", 0)),
                duration((now - batch.created_at) / 1000),
                "" if batch.next_at is None else f"in {duration(max(0, batch.next_at - now) / 1000)}",
                one_line(batch.reason or batch.batch_id or "", 100),
            ]
            for batch in found
        ],
        wide=9,
    )
