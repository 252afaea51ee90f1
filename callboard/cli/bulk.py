"""`--where` of `retry`, `cancel` and `delete`: say how many jobs a search finds, ask on a terminal, and do it in steps that can be watched."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .errors import InputError

_F = TypeVar("_F", bound=Callable[..., Any])


def where_options(command: _F) -> _F:
    """`--where` and `--yes`."""
    command = click.option("--yes", is_flag=True, help="With --where: do not ask.")(command)
    return click.option("--where", metavar="QUERY", help="All jobs that this search finds, as in `callboard list`.")(
        command
    )


def check_targets(ids: tuple[int, ...], where: str | None) -> None:
    """Refuse a command that names neither jobs nor a search, or both, or a search that would find every job."""
    if ids and where is not None:
        raise InputError("give ids or --where, not both")
    if not ids and where is None:
        raise InputError("nothing to do", "give the ids of jobs, or --where QUERY")
    if where is not None and not where.strip():
        raise InputError("an empty --where would mean every job", "say at least a state, as in --where 'state:failed'")


def run_where(
    where: str,
    count: Callable[[str], int],
    move: Callable[..., int],
    *,
    yes: bool,
    verb: str,
    done: str,
    only: str,
) -> int:
    """Count, ask, do and tell. `only`: the states, as a search, that the move applies to at all. Returns the exit code."""
    found = count(f"{where} {only}")
    if not found:
        click.echo("no such jobs", err=True)
        return 0
    if not yes:
        question = f"{verb} {found:,} job{'s' if found != 1 else ''}?"
        if not sys.stdin.isatty():
            raise InputError(f"{found:,} jobs would be {done}, and there is no terminal to ask on", "add --yes")
        if not click.confirm(question, err=True):
            return 1
    watched = sys.stderr.isatty()

    def progress(moved: int, _: int) -> None:
        if watched:
            click.echo(f"\r{moved:,} of {found:,} {done}", nl=False, err=True)

    moved = move(f"{where} {only}", progress=progress)
    if watched:
        click.echo(err=True)
    click.echo(f"{moved} {done}")
    return 0
