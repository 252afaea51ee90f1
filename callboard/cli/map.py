"""`callboard map`: one prompt over every row of a file, resumable.

Each row is a job with a key made of the question, so asking again finds the answer that was paid for.
"""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import click

from callboard.config_checks import check_model

from .asked import chat_fields, effort_option, schema_option
from .errors import InputError
from .options import config_options, read_config
from .rows import STDIN, BadRow, Naming, Row, Template, read_rows


@click.command("map")
@click.argument("source", metavar="ROWS")
@click.option(
    "--prompt", required=True, help="The prompt, with {field} where a row's field goes; {{ and }} are braces."
)
@click.option(
    "--model", help="An alias, or provider:model. Default: default_model, which is the simulator's unless configured."
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Write the results there in the rows' order: JSON lines, or CSV if its name ends so. - is stdout.",
)
@click.option("--max-output", type=click.IntRange(1), help="Tokens of one answer, at most.")
@schema_option
@effort_option
@click.option("--batch", is_flag=True, help="Have it done by the provider's batch API: half the price, within a day.")
@click.option(
    "--tag",
    help="What all its jobs are tagged with, as in `add`. Default: one that this prompt, model and options always have.",
)
@click.option("--limit", type=click.IntRange(1), help="Only the first so many rows.")
@click.option("--runners", type=click.IntRange(1, 1000), help="At most this many calls at once.")
@click.option(
    "--max-cost",
    type=click.FloatRange(0),
    metavar="DOLLARS",
    help="Stop before all runs of this cost more. Hard: every worker keeps to it.",
)
@click.option("--yes", is_flag=True, help="Do not ask, even where it costs money.")
@click.option("--no-worker", is_flag=True, help="Start no worker: one is running on this database.")
@click.option("--retry-failed", is_flag=True, help="Try rows again that failed or were cancelled in an earlier run.")
@config_options
def map_rows(
    source: str,
    prompt: str,
    model: str | None,
    output: str | None,
    max_output: int | None,
    schema: str | None,
    effort: str | None,
    batch: bool,
    tag: str | None,
    limit: int | None,
    runners: int | None,
    max_cost: float | None,
    yes: bool,
    no_worker: bool,
    retry_failed: bool,
    config_path: str | None,
    database: str | None,
) -> int:
    """Run one prompt over every row of ROWS: a .jsonl or .csv file, or - for JSON lines on stdin.

    Stopped at any point and started again with the same arguments, it resumes: no row is lost, none is asked twice, and no answer that was
    received is paid for again. Exit code 1 if rows failed or could not be read; they are named, the others run.
    """
    config = read_config(config_path, database, {"runners.max": runners})
    asked = model or config.default_model
    if asked is None:
        raise InputError("--model: none given, and no default_model is configured")
    check_model(config, asked, "--model")
    template = Template(prompt)
    destination = _destination(output, source)
    options = {**({} if max_output is None else {"max_output": max_output}), **chat_fields(schema, effort)}
    naming = Naming(prompt, asked, options)
    tag = naming.name if tag is None else _checked(tag)
    plan = make_plan(source, template, naming, options, asked, limit, tag=tag, batch=batch)

    from .map_money import agree
    from .map_run import MapRun

    # SIGTERM ends it as Ctrl-C does: the worker is stopped in order and what is there is written.
    signal.signal(signal.SIGTERM, _interrupt)
    again = " ".join(_quoted(argument) for argument in ["callboard", *(click.get_current_context().obj or ())])
    with MapRun(
        config,
        plan,
        naming.name,
        tag,
        output=destination,
        again=again,
        commands=_where(config_path, database),
        schema=options.get("schema"),
    ) as run:
        if not agree(run, asked, max_cost=max_cost, yes=yes):
            return 1
        return run.perform(own_worker=not no_worker, retry_failed=retry_failed)


def make_plan(
    source: str,
    template: Template,
    naming: Naming,
    options: dict[str, Any],
    model: str,
    limit: int | None,
    *,
    tag: str,
    batch: bool = False,
) -> list[tuple[Row, dict[str, Any]] | BadRow]:
    """Read every row and make the job it stands for; a row that cannot be run stays in its place, with the reason."""
    from callboard.persistence.errors import InvalidJobError
    from callboard.persistence.new_job import as_new_job, rows_of

    plan: list[tuple[Row, dict[str, Any]] | BadRow] = []
    for row in read_rows(source):
        if limit is not None and row.number > limit:
            break
        if isinstance(row, BadRow):
            plan.append(row)
            continue
        prompt = template.fill(row)
        if isinstance(prompt, BadRow):
            plan.append(prompt)
            continue
        job = {
            "type": "chat",
            "data": {"prompt": prompt, **options},
            "model": model,
            "key": naming.key(row),
            "tag": tag,
            **({"options": {"latency": "batch"}} if batch else {}),
        }
        try:
            rows_of(as_new_job(job), 0)
        except InvalidJobError as error:
            plan.append(BadRow(row.number, row.line, str(error), row.fields))
        else:
            plan.append((row, job))
    if not plan:
        raise InputError(f"{source}: there are no rows")
    return plan


def _checked(tag: str) -> str:
    """Refuse a tag that no job can have, before each row is refused for it."""
    from callboard.persistence.errors import InvalidJobError
    from callboard.persistence.new_job import as_new_job, rows_of

    try:
        rows_of(as_new_job({"type": "chat", "tag": tag}), 0)
    except InvalidJobError as error:
        raise InputError(f"--{error}") from error
    return tag


def _destination(output: str | None, source: str) -> Path | None:
    """Decide where results go before anything is spent: a file, or None for stdout (or nowhere, on a terminal)."""
    if output is None or output == STDIN:
        return None
    path = Path(output)
    if source != STDIN and path.exists() and Path(source).exists() and path.samefile(source):
        raise InputError(f"--output: {output} is the file of the rows")
    if path.is_dir():
        raise InputError(f"--output: {output} is a directory")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--output: the directory {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise InputError(f"--output: the directory {folder} cannot be written")
    return path


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _where(config_path: str | None, database: str | None) -> str:
    """Repeat the options that the next commands need to find the same board."""
    given = [("--config", config_path), ("--database", database)]
    return "".join(f" {name} {_quoted(value)}" for name, value in given if value)


def _quoted(argument: str) -> str:
    import shlex

    return shlex.quote(argument)
