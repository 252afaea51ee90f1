"""What `callboard map` leaves behind: the results file, a table to look at, and a summary."""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import click

from .board import Outcome
from .display import console, print_table, state_cell
from .follow import answer_text
from .map_csv import SUFFIXES, write_csv
from .rows import BadRow
from .text import count, dollars, duration, json_line, money, one_line

if TYPE_CHECKING:
    from .map_run import MapRun

_SHOWN_ROWS = 10
_SHOWN_BAD = 20
_BATCH = 500


def print_bad_rows(bad: list[BadRow]) -> None:
    """Name the rows that will not run, on stderr."""
    for row in bad[:_SHOWN_BAD]:
        click.echo(f"callboard: row {row.number} (line {row.line}): {row.problem}", err=True)
    if len(bad) > _SHOWN_BAD:
        click.echo(f"callboard: … and {len(bad) - _SHOWN_BAD:,} more rows that cannot be run", err=True)


def results(run: "MapRun") -> Iterator[dict[str, Any]]:
    """One record per row, in the rows' order."""
    place = 0
    for start in range(0, len(run.plan), _BATCH):
        part = run.plan[start : start + _BATCH]
        good = sum(not isinstance(entry, BadRow) for entry in part)
        ids = run.ids[place : place + good]
        outcomes = run.board.outcomes(ids)
        remaining = iter(ids)
        place += good
        for entry in part:
            if isinstance(entry, BadRow):
                yield _shaped(
                    run,
                    {
                        "row": entry.number,
                        "input": entry.fields,
                        "output": None,
                        "state": "bad_row",
                        "error": f"line {entry.line}: {entry.problem}",
                        "tokens": None,
                        "cost_usd": None,
                        "job": None,
                    },
                    None,
                )
            else:
                outcome = outcomes[next(remaining)]
                yield _shaped(run, _record(entry[0].number, entry[0].fields, outcome), outcome.result)


def _shaped(run: "MapRun", record: dict[str, Any], result: Any) -> dict[str, Any]:
    """The record, with the answer as a value where a schema says what it is like."""
    if run.schema is None:
        return record
    return {**record, "data": result.get("data") if isinstance(result, dict) else None}


def _record(number: int, fields: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    return {
        "row": number,
        "input": fields,
        "output": answer_text(outcome.result) if outcome.state == "completed" else None,
        "state": outcome.state,
        "error": None if outcome.state == "completed" else _problem(outcome),
        "tokens": outcome.tokens,
        "cost_usd": dollars(outcome.cost),
        "job": outcome.job_id,
    }


def _problem(outcome: Outcome) -> str | None:
    if outcome.error is not None and outcome.error.get("message"):
        return str(outcome.error["message"])
    return outcome.reason


def write_results(run: "MapRun") -> None:
    """Write the results: a file appears whole or not at all. Without --output they go to stdout, unless that is a terminal."""
    if run.output is None:
        if not sys.stdout.isatty():
            _write(run, sys.stdout)
            sys.stdout.flush()
        return
    temporary = run.output.with_name(f".{run.output.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="replace", newline="") as file:
            _write(run, file, SUFFIXES.get(run.output.suffix.lower()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(run.output)
    except OSError as error:
        click.echo(
            f"callboard: {run.output} cannot be written: {error.strerror}; the answers are safe on the board", err=True
        )
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _write(run: "MapRun", file: IO[str], delimiter: str | None = None) -> None:
    if delimiter is not None:
        inputs = (entry.fields if isinstance(entry, BadRow) else entry[0].fields for entry in run.plan)
        write_csv(results(run), file, inputs=inputs, schema=run.schema, delimiter=delimiter)
        return
    for record in results(run):
        file.write(json_line(record) + "\n")


def print_summary(
    run: "MapRun", *, seconds: float, calls: int, tokens: int, cost: int | None, unfinished: bool
) -> None:
    """Show the first rows and what to do next. On stdout, unless the results went there."""
    stream = sys.stderr if run.output is None and not sys.stdout.isatty() else sys.stdout
    shown = []
    for record in results(run):
        shown.append(record)
        if len(shown) == _SHOWN_ROWS:
            break
    print_table(
        [("row", "right"), ("state", "left"), ("tokens", "right"), ("input", "left"), ("output", "left")],
        [
            [
                record["row"],
                state_cell(record["state"]),
                count(record["tokens"]),
                one_line(_first_text(record["input"]), 24),
                one_line(record["output"] or record["error"] or "", 300),
            ]
            for record in shown
        ],
        wide=4,
        stream=stream,
    )
    out = console(stream)
    states = Counter(run.states.values())
    if run.bad:
        states["bad rows"] = len(run.bad)
    counted = ", ".join(f"{count(number)} {state}" for state, number in states.most_common())
    out.print(f"\n{count(len(run.plan))} rows: {counted}")
    out.print(
        f"this run: {duration(seconds)}, {count(calls)} calls, {count(tokens)} tokens, cost {money(cost) if calls else '$0.00'}"
        + (f"; {count(run.already)} answers were there already" if run.already else "")
    )
    if run.output is not None:
        out.print(f"results:  {run.output}")
    elif stream is sys.stdout:
        out.print("results:  nowhere yet; the same command with -o FILE writes them, at no further cost")
    out.print(f"database: {run.board.name}")
    first = next((job_id for job_id, state in run.states.items() if state == "failed"), run.ids[0] if run.ids else None)
    if states["failed"] or states["cancelled"]:
        out.print(f"retry:    {run.again} --retry-failed")
    if unfinished:
        out.print(f"resume:   {run.again}")
    if first is not None:
        out.print(f"try next: callboard show {first}{run.commands}")
        out.print(f"          callboard list --tag {shlex.quote(run.tag)}{run.commands}")
        out.print(f"          callboard stats{run.commands}")


def _first_text(fields: dict[str, Any] | None) -> str:
    value = next(iter(fields.values()), "") if fields else ""
    return value if isinstance(value, str) else json_line(value)
