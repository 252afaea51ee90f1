"""`callboard conversation`: what was said, and branching off from it."""

from dataclasses import asdict
from typing import Any

import click

from .options import config_options, json_option, open_queue, read_config
from .text import count, iso, json_line, moment, one_line, plain


@click.group(invoke_without_command=True)
@click.pass_context
def conversation(ctx: click.Context) -> None:
    """Conversations: turns that run one at a time, each sent with what was said before."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@conversation.command("list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
@config_options
def list_conversations(limit: int, as_json: bool, config_path: str | None, database: str | None) -> None:
    """List conversations, the newest first. With --json: one object a line."""
    config = read_config(config_path, database)
    with open_queue(config) as board:
        found = board.conversations(limit=limit)
    if as_json:
        for row in found:
            told = {**row._asdict(), "created_at": iso(row.created_at), "updated_at": iso(row.updated_at)}
            click.echo(json_line(told))
        return
    if not found:
        click.echo("no conversations", err=True)
        return
    from .display import print_table

    print_table(
        [("name", "left"), ("turns", "right"), ("live", "right"), ("last said", "left"), ("begun", "left")],
        [
            [one_line(row.name, 60), count(row.turns), count(row.live), moment(row.updated_at), moment(row.created_at)]
            for row in found
        ],
        wide=0,
    )


@conversation.command()
@click.argument("name")
@json_option
@config_options
def show(name: str, as_json: bool, config_path: str | None, database: str | None) -> None:
    """Print what was said, oldest first, each message with its id. With --json: one object a line."""
    config = read_config(config_path, database)
    with open_queue(config) as board:
        found = board.conversation(name, create=False).messages()
    for message in found:
        if as_json:
            click.echo(json_line({**asdict(message), "at": iso(message.at)}))
            continue
        content = message.content
        text = content if isinstance(content, str) else _told(content)
        if message.role == "summary":
            first, last = content["covers"]
            text = f"(of messages {first} to {last}) {content['text']}"
        by = "" if message.job_id is None else f", job {message.job_id}"
        click.echo(
            f"[{message.id}] {plain(message.role)}, turn {message.turn}{by}, {moment(message.at)}\n{plain(text)}\n"
        )


def _told(content: Any) -> str:
    """A message of parts in words; what another program wrote there and is none, as JSON."""
    from callboard.actors.providers.parts import content_from_json
    from callboard.actors.runner.dialogue import in_words

    try:
        return in_words(content_from_json(content))
    except ValueError:
        return json_line(content)


@conversation.command()
@click.argument("name")
@click.argument("new_name", metavar="NEW_NAME")
@click.option("--at", type=int, metavar="ID", help="The last message they share. Default: all there is now.")
@config_options
def fork(name: str, new_name: str, at: int | None, config_path: str | None, database: str | None) -> None:
    """Make a conversation that shares the past of another; its id is printed."""
    config = read_config(config_path, database)
    with open_queue(config) as board:
        click.echo(board.conversation(name, create=False).fork(at, name=new_name).id)
