"""`callboard db`: the database's version and soundness."""

import click

from .options import config_options, json_option, open_queue, read_config
from .text import json_line


@click.group(invoke_without_command=True)
@click.pass_context
def db(ctx: click.Context) -> None:
    """Upgrade or check the database."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@db.command()
@config_options
def upgrade(config_path: str | None, database: str | None) -> None:
    """Bring the tables up to this release, keeping every row; create them in an empty database. Stop workers first."""
    config = read_config(config_path, database)
    from callboard.persistence.migrate import upgrade as migrate

    before, after = migrate(config.database)
    click.echo(
        f"{config.database}: " + (f"already at {after}" if before == after else f"{before or 'empty'} -> {after}")
    )


@db.command()
@click.option(
    "--repair",
    is_flag=True,
    help="Set right the kept counters that are wrong, if any; nobody can write while it counts.",
)
@json_option
@config_options
def check(repair: bool, as_json: bool, config_path: str | None, database: str | None) -> int:
    """Read the whole database and say what is wrong with it. Exit code 1 if something is (with --repair: if something still is)."""
    config = read_config(config_path, database)
    with open_queue(config) as queue:
        repaired = queue.repair() if repair else 0
        problems = queue.check()
        name = queue.name
    if as_json:
        click.echo(json_line({"database": name, "problems": problems, "repaired": repaired}))
    else:
        for problem in problems:
            click.echo(problem)
        if repaired:
            click.echo(f"callboard: {name}: {repaired} counters were set right", err=True)
        click.echo(
            f"callboard: {name}: {len(problems)} problems" if problems else f"callboard: {name}: sound", err=True
        )
    return 1 if problems else 0
