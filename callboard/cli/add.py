"""`callboard add`: post one job."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from callboard.config import Config
from callboard.config_checks import check_model

from .asked import chat_fields, effort_option, schema_option, with_images
from .errors import InputError
from .options import config_options, open_queue, read_config

PRIORITIES = ("user", "analysis", "background")


@click.command()
@click.argument("job_type", metavar="TYPE")
@click.option(
    "--data",
    metavar="JSON|@FILE|-",
    help='Its data: JSON, a file of it, or stdin. For chat: {"prompt": "..."}.',
)
@click.option("--prompt", metavar="TEXT", help="Its prompt, as data.prompt; alone or beside --data.")
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="FILE|URL",
    help="A picture beside the prompt: PNG, JPEG, GIF or WebP; may be given several times.",
)
@schema_option
@effort_option
@click.option("--conversation", metavar="NAME", help="Let it be the next turn of this conversation.")
@click.option("--model", help="An alias, or provider:model. Default: the worker's default model.")
@click.option(
    "--priority", default="0", metavar="N|NAME", help="Higher runs first; user is 100, analysis 50, background 0."
)
@click.option("--key", help="At most one job ever has this key: adding it again finds that job.")
@click.option("--unique", metavar="NAME", help="At most one live job has this name: while there is one, find that.")
@click.option(
    "--debounce",
    type=(str, float),
    metavar="NAME SECONDS",
    help="Replace the delayed job of this name and push its time back; else a new one, delayed.",
)
@click.option(
    "--throttle",
    type=(str, float),
    metavar="NAME SECONDS",
    help="Within this time after a job of this name was added, find that one.",
)
@click.option("--delay", type=click.FloatRange(0), metavar="SECONDS", help="Not before this long from now.")
@click.option("--queue", default="default", show_default=True, help="The queue it is in.")
@click.option("--group", help="Jobs of one group take turns with those of others.")
@click.option("--group-limit", type=click.IntRange(1), metavar="N", help="No more than N of its group are run at once.")
@click.option("--requires", multiple=True, metavar="TAG", help="What a runner must have; may be given several times.")
@click.option("--tag", help="What listings and usage can be grouped by.")
@click.option("--max-output", type=click.IntRange(1), help="Tokens of its answer, at most, as data.max_output.")
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    metavar="DOLLARS",
    help="What it and all that it creates may cost; it fails before a call that might cost more.",
)
@click.option(
    "--cache",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Take an answer to exactly the same that is no older; 0: none, whatever is configured.",
)
@click.option(
    "--batch", is_flag=True, help="Let its calls go by the provider's batch API: half the price, within a day."
)
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="With --batch: what is not there so long from now is asked for by itself.",
)
@click.option("--wait", is_flag=True, help="Wait for it to end and print its answer.")
@click.option("--stream", is_flag=True, help="Print its answer as it is produced.")
@click.option(
    "--unchecked",
    is_flag=True,
    help="Post it even if this configuration knows no such type or model: the worker's may.",
)
@config_options
def add(
    job_type: str,
    data: str | None,
    prompt: str | None,
    images: tuple[str, ...],
    schema: str | None,
    effort: str | None,
    model: str | None,
    priority: str,
    max_output: int | None,
    budget: float | None,
    cache: float | None,
    batch: bool,
    deadline: float | None,
    wait: bool,
    stream: bool,
    unchecked: bool,
    config_path: str | None,
    database: str | None,
    **fields: Any,
) -> int:
    """Post a job; its id is printed on stdout (with --wait or --stream: its answer, the id on stderr)."""
    config = read_config(config_path, database)
    if not unchecked:
        check_posting(config, job_type, model)
    asked = (
        chat_fields(schema, effort) if max_output is None else {**chat_fields(schema, effort), "max_output": max_output}
    )
    body = _body(data, prompt, images, asked)
    if deadline is not None and not batch:
        raise InputError("--deadline: goes with --batch")
    with open_queue(config, create=True) as board:
        options: dict[str, Any] = {"budget": budget, "cache": cache}
        if batch:
            options["latency"] = "batch"
            options["deadline"] = None if deadline is None else board.clock() + round(deadline * 1000)
        fields["options"] = {name: value for name, value in options.items() if value is not None}
        job = board.add(job_type, body, model=model, priority=parse_priority(priority), **fields)
        if not (wait or stream):
            click.echo(job.id)
            return 0
        from .follow import answer_text, follow_job, wait_for

        click.echo(f"callboard: job {job.id}", err=True)
        if stream:
            return follow_job(job)
        wait_for(job)
        job.refresh()
        if job.state == "completed":
            click.echo(answer_text(job.result))
            return 0
        click.echo(f"callboard: job {job.id} {job.state}: {job.row().reason or 'no reason was recorded'}", err=True)
        return 1


def _body(data: str | None, prompt: str | None, images: tuple[str, ...], fields: dict[str, Any]) -> Any:
    if images and prompt is None:
        raise InputError("--image: give the --prompt that it goes with")
    if prompt is None and data is None:
        raise InputError("give --data or --prompt", "for example --prompt 'Hello'")
    body = {} if data is None else parse_data(data)
    if prompt is None and not fields:
        return body
    if not isinstance(body, dict):
        raise InputError("--prompt, --schema, --effort, --max-output: the data beside them must be a JSON object")
    if prompt is None:
        return {**body, **fields}
    asked = with_images(prompt, images) if images else {"prompt": prompt}
    return {**body, **asked, **fields}


def parse_data(given: str) -> Any:
    """Read the data of a job: JSON, `@file`, or `-` for stdin. Raises InputError."""
    where, text = "--data", given
    try:
        if given == "-":
            where = "stdin"
            text = sys.stdin.buffer.read().decode()
        elif given.startswith("@"):
            where = given[1:]
            text = Path(where).read_text(encoding="utf-8-sig")
        return json.loads(text)
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: malformed JSON: {error.msg} at line {error.lineno} column {error.colno}",
            'for example --data \'{"prompt": "Hello"}\'',
        ) from error


def parse_priority(given: str) -> int | str:
    """Read a priority: a whole number or a name. Raises InputError."""
    if given in PRIORITIES:
        return given
    try:
        return int(given)
    except ValueError:
        raise InputError(
            f"--priority: expected a whole number or one of {', '.join(PRIORITIES)}, not {given!r}"
        ) from None


def check_posting(config: Config, job_type: str, model: str | None) -> None:
    """Refuse a type or model that this configuration does not know. Raises InputError or ConfigError."""
    known = ["chat", "embed", *config.handlers]
    if job_type not in known:
        raise InputError(
            f"TYPE: no handler is configured for {job_type!r} (known: {', '.join(known)})",
            "add it under [handlers], or say --unchecked if another configuration's worker performs it",
        )
    if model is not None:
        check_model(config, model, "--model")
