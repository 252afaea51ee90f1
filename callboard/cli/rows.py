"""Rows and prompts for `callboard map`: reading JSONL and CSV, filling a template, naming each row's job. Pure but for reading the source.

A bad row never spoils the others: it becomes a `BadRow` that says where and why.
"""

import csv
import hashlib
import json
import string
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import InputError

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the source. `number` counts rows from 1; `line` is where it starts in the file."""

    number: int
    line: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be run, and why. `fields` are there when the row itself could be read."""

    number: int
    line: int
    problem: str
    fields: dict[str, Any] | None = None


def read_rows(source: str, stdin: BinaryIO | None = None) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order: CSV (with a header) if its name ends so, else JSON lines; `-` is JSON lines on stdin.

    Raises InputError when the source as a whole cannot be read.
    """
    if source == STDIN:
        yield from _json_rows(stdin or sys.stdin.buffer)
        return
    path = Path(source)
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                yield from _csv_rows(text, source, "\t" if path.suffix.lower() == ".tsv" else ",")
        else:
            with path.open("rb") as lines:
                yield from _json_rows(lines)
    except FileNotFoundError:
        raise InputError(
            f"{source}: no such file", "ROWS is a .jsonl or .csv file, or - for JSON lines on stdin"
        ) from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error


def _json_rows(lines: Iterable[bytes]) -> Iterator[Row | BadRow]:
    number = 0
    for line, raw in enumerate(lines, start=1):
        if line == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901 - a byte order mark is no part of the row
        if not raw.strip():
            continue
        number += 1
        yield _json_row(number, line, raw)


def _json_row(number: int, line: int, raw: bytes) -> Row | BadRow:
    try:
        fields = json.loads(raw.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return BadRow(number, line, f"not UTF-8 text: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return BadRow(number, line, f"malformed JSON: {error.msg.removesuffix(' at')} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return BadRow(number, line, f"malformed JSON: {error or 'nested too deeply'}")
    if not isinstance(fields, dict):
        return BadRow(number, line, f"expected a JSON object, not {_json_kind(fields)}")
    return _clean(Row(number, line, fields))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _csv_rows(text: Iterable[str], source: str, delimiter: str) -> Iterator[Row | BadRow]:
    csv.field_size_limit(2**31 - 1)  # a row may hold a whole document
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{source}:1: the header is not valid CSV: {error}") from error
    if not header or not any(name.strip() for name in header):
        raise InputError(f"{source}: no header", "the first line of a CSV file names its fields")
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise InputError(f"{source}:1: field {twice[0]!r} is there twice", "give every column its own name")
    number = 0
    line = reader.line_num + 1
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield BadRow(number, line, f"malformed CSV: {error}")
            line = reader.line_num + 1
            continue
        if values:
            number += 1
            if len(values) != len(header):
                yield BadRow(number, line, f"{len(values)} values for {len(header)} fields")
            else:
                yield _clean(Row(number, line, dict(zip(header, values, strict=True))))
        line = reader.line_num + 1


def _clean(row: Row) -> Row | BadRow:
    """Refuse text that no database and no provider could take: half of a surrogate pair, from bad bytes or a bad escape."""
    try:
        json.dumps(row.fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return BadRow(
            row.number, row.line, "holds text that is not valid Unicode (a lone surrogate, or bytes that are not UTF-8)"
        )
    except RecursionError:
        return BadRow(row.number, row.line, "nested too deeply")
    return row


def _json_kind(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


class Template:
    """A prompt with `{field}` places. Names only: nothing of a row can be called or looked into. `{{` and `}}` are braces.

    Raises InputError for a template that could not be meant.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise InputError(f"--prompt: {error}", "write {{ and }} for braces that name no field") from error
        for _, field, spec, conversion in parts:
            if field is not None and (not field or spec or conversion):
                shown = "{" + field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
                raise InputError(
                    f"--prompt: {shown} is not a plain {{field}} name", "write {{ and }} for braces that name no field"
                )
        self._parts = [(literal, field) for literal, field, _, _ in parts]
        self.fields = list(dict.fromkeys(field for _, field in self._parts if field is not None))
        if not self.fields:
            raise InputError(
                "--prompt: names no field of the rows", "write the field's name in braces, as in 'Summarise: {text}'"
            )

    def fill(self, row: Row) -> str | BadRow:
        """Fill in this row. Values that are not text appear as JSON."""
        missing = [field for field in self.fields if field not in row.fields]
        if missing:
            has = ", ".join(str(name) for name in list(row.fields)[:10]) or "no field at all"
            return BadRow(row.number, row.line, f"missing field {missing[0]!r} (the row has: {has})", row.fields)
        return "".join(
            literal + ("" if field is None else _as_text(row.fields[field])) for literal, field in self._parts
        )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Naming:
    """Each row's job key: the same for the same question, so that a second run finds the first one's answers.

    Equal rows are told apart by counting, so every row has an answer of its own.
    """

    def __init__(self, prompt: str, model: str, options: dict[str, Any]) -> None:
        self._question = [prompt, model, options]
        self._seen: Counter[str] = Counter()
        self.name = f"map:{_digest(self._question)}"
        """The same for all rows that are ever asked this; what the jobs are tagged with unless the user has a tag."""

    def key(self, row: Row) -> str:
        """Return the key of the next such row."""
        same = _digest(row.fields)
        self._seen[same] += 1
        return f"map:{_digest([*self._question, row.fields, self._seen[same]])}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]
