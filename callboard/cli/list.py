"""`callboard list`: jobs, newest first."""

import click

from .options import STATES, config_options, json_option, open_queue, read_config
from .text import count, duration, json_line, one_line


@click.command("list")
@click.argument("query", required=False)
@click.option("--state", type=click.Choice(STATES))
@click.option("--type", "job_type", help="Of this type only.")
@click.option("--tag", help="With this tag only.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
@config_options
def list_jobs(
    query: str | None,
    state: str | None,
    job_type: str | None,
    tag: str | None,
    limit: int,
    as_json: bool,
    config_path: str | None,
    database: str | None,
) -> None:
    """List jobs, newest first; those that QUERY describes, if one is given. With --json: one object a line.

    A query is terms that must all hold: 'state:failed type:chat data.customer:42 cost:>0.1 created:<2h -tag:test "rate limit"' (docs/cli.md).
    """
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        if query is None:
            rows = queue.list(state=state, type=job_type, tag=tag, limit=limit)
        else:
            rows = queue.search(_with_options(query, state, job_type, tag), limit=limit)
            if rows.scanned and len(rows) < limit:
                click.echo("no index serves this search: every job was looked at", err=True)
    from .records import note, now_ms, row_json, took

    if as_json:
        for row in rows:
            click.echo(json_line(row_json(row)))
        return
    if not rows:
        click.echo("no such jobs", err=True)
        return
    from .display import print_table, state_cell

    now = now_ms()
    print_table(
        [
            ("id", "right"),
            ("state", "left"),
            ("%", "right"),
            ("type", "left"),
            ("model", "left"),
            ("tries", "right"),
            ("age", "right"),
            ("took", "right"),
            ("note", "left"),
        ],
        [
            [
                row.id,
                state_cell(row.state),
                row.progress,
                row.type,
                one_line(row.model or "-", 28),
                row.attempt,
                duration((now - row.created_at) / 1000),
                took(row, now),
                one_line(note(row, now), 200),
            ]
            for row in rows
        ],
        wide=8,
    )
    if len(rows) == limit:
        click.echo(f"the newest {count(limit)}; --limit shows more", err=True)


def _with_options(query: str, state: str | None, job_type: str | None, tag: str | None) -> str:
    options = {"state": state, "type": job_type, "tag": tag}
    terms = [f"{name}:{_quoted(value)}" for name, value in options.items() if value is not None]
    return " ".join([query, *terms])


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
