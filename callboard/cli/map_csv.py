"""The results of `callboard map` as CSV: a row's own fields, then what was answered, then how it went."""

import csv
from collections.abc import Iterable, Iterator
from typing import IO, Any

from .text import json_line

_ENDS = ("state", "error", "tokens", "cost_usd", "job")
SUFFIXES = {".csv": ",", ".tsv": "\t"}


def columns_of(inputs: Iterable[dict[str, Any] | None], answers: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the names of the input's columns, in the order they first appear, and those of what follows: none is there twice."""
    fields = list(dict.fromkeys(name for given in inputs for name in given or ()))
    taken = set(fields)
    named = []
    for name in (*answers, *_ENDS):
        unique = name
        while unique in taken:
            unique = f"answer.{unique}"
        taken.add(unique)
        named.append(unique)
    return fields, named


def write_csv(
    records: Iterator[dict[str, Any]],
    file: IO[str],
    *,
    inputs: Iterable[dict[str, Any] | None],
    schema: dict[str, Any] | None,
    delimiter: str,
) -> None:
    """Write a header and a line for each record. What is not text or a number stands there as JSON, what is missing as nothing.

    With a schema each of its properties is a column; else the text is, as `output`.
    """
    answers = tuple((schema or {}).get("properties", ())) or ("output",)
    fields, named = columns_of(inputs, answers)
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow([*fields, *named])
    for record in records:
        given = record["input"] or {}
        told = {"output": record["output"]} if answers == ("output",) and not schema else record.get("data") or {}
        found = told if isinstance(told, dict) else {}
        writer.writerow(
            [
                *(_cell(given.get(name)) for name in fields),
                *(_cell(found.get(name)) for name in answers),
                *(_cell(record[name]) for name in _ENDS),
            ]
        )


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json_line(value)
