"""`callboard queues`, `pause` and `resume`: queues as a whole."""

import click

from .options import config_options, json_option, open_queue, read_config
from .text import count, duration, json_line


@click.command()
@json_option
@config_options
def queues(as_json: bool, config_path: str | None, database: str | None) -> None:
    """List the queues, how many of their jobs are in each state, and which are paused. With --json: one object a line."""
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        found = queue.queues()
    from .records import now_ms
    from .text import iso

    if as_json:
        for status in found:
            jobs = {str(state): jobs for state, jobs in status.jobs.items()}
            click.echo(json_line({"queue": status.name, "paused_at": iso(status.paused_at), "jobs": jobs}))
        return
    if not found:
        click.echo("no queue has jobs", err=True)
        return
    from .display import print_table, state_cell

    now = now_ms()
    print_table(
        [("queue", "left"), *((state_cell(state).plain, "right") for state in found[0].jobs), ("", "left")],
        [
            [
                status.name,
                *(count(jobs) for jobs in status.jobs.values()),
                "" if status.paused_at is None else f"paused for {duration((now - status.paused_at) / 1000)}",
            ]
            for status in found
        ],
    )


@click.command()
@click.argument("name")
@config_options
def pause(name: str, config_path: str | None, database: str | None) -> None:
    """Let no more jobs of a queue be started, by any worker; those that run go on."""
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        changed = queue.pause(name)
    click.echo(f"{name} paused" if changed else f"{name} was paused already")


@click.command()
@click.argument("name")
@config_options
def resume(name: str, config_path: str | None, database: str | None) -> None:
    """Let jobs of a paused queue be started again."""
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        changed = queue.resume(name)
    click.echo(f"{name} resumed" if changed else f"{name} was not paused")
