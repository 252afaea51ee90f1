"""The language of searches: `state:failed type:chat data.customer:42 cost:>0.1 created:<2h -tag:test "rate limit"`, read into conditions. Pure.

Terms are separated by spaces and all must hold; `-` before a term negates it. A term is `field:value`, or a word (in quotes if it has spaces)
that is looked for in the description and the reason. Values: `a,b` any of them, `>x >=x <x <=x`, `a..b` both included, `*` anything at all,
`text*` by its beginning; quotes take away every special meaning. What the conditions become is in `persistence.statements.search`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn

from .errors import InvalidQueryError
from .lifecycle import JobState
from .new_job import PRIORITIES

NANO = 1_000_000_000
_INT64 = 2**63 - 1

_START = re.compile(r"(?P<minus>-?)(?:(?P<field>[A-Za-z_]\w*)(?P<path>(?:[.\[][^\s:\"]*)?):)?")
_OPERATOR = re.compile(r">=|<=|>|<")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BARE = re.compile(r'[^\s,"]+')
_WORD = re.compile(r'[^\s"]+')
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TO_THE_MINUTE = re.compile(r"^.{10}.\d\d:?\d\d(?![:\d])")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_STEP = re.compile(r'\.([^.\[\]"]+)|\[(\d{1,9})\]')


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing a job must (or, `negated`, must not) be. `path`: the JSON path, for `data`.

    `test`: "any" (it is set), "is" (one of `values`), "starts" (with `values[0]`), "has" (contains `values[0]`), or "range", from `values[0]`
    to `values[1]`, both included, None where it is open, and strictly between where `strict`. Times in epoch milliseconds, cost in
    nano-dollars. A value for `data` is None, a bool, an int or a float, text, or `Either`.
    """

    field: str
    test: str
    values: tuple[Any, ...] = ()
    negated: bool = False
    path: str | None = None
    strict: tuple[bool, bool] = (False, False)


class Either(NamedTuple):
    """A value for `data` that was written without quotes and reads as JSON: it matches that, and text that is written so."""

    value: Any
    text: str


class _Value(NamedTuple):
    text: str
    quoted: bool
    at: int
    length: int


TEXT_FIELDS = ("type", "queue", "model", "tag", "key", "group", "conversation")
WHOLE_FIELDS = ("id", "priority", "attempt", "failures", "losses", "parent", "tokens")
TIME_FIELDS = ("created", "started", "finished")
CONTAINED_FIELDS = ("reason", "error", "description")
FIELDS = ("state", *TEXT_FIELDS, *WHOLE_FIELDS, *TIME_FIELDS, "cost", "held", "data", *CONTAINED_FIELDS)
"""What may stand before a colon."""


def parse(query: str, now: int) -> tuple[Condition, ...]:
    """The conditions of a search; none for an empty one. `now` (epoch milliseconds) is what ages are counted from.

    Raises InvalidQueryError, which shows the place.
    """
    return tuple(_Parser(query, now).terms())


class _Parser:
    def __init__(self, query: str, now: int) -> None:
        self.query = query
        self.now = now
        self.at = 0

    def terms(self) -> Iterator[Condition]:
        while self._skip_spaces():
            begun = self.at
            start = _START.match(self.query, self.at)
            assert start is not None  # it matches the empty string
            negated = bool(start["minus"])
            if start["field"] is None:
                self.at = start.end()
                yield self._word(negated, begun)
            else:
                yield self._field_term(start, negated)

    def _skip_spaces(self) -> bool:
        while self.at < len(self.query) and self.query[self.at].isspace():
            self.at += 1
        return self.at < len(self.query)

    def _word(self, negated: bool, begun: int) -> Condition:
        value = self._quoted() or self._match(_WORD, begun)
        if not value.text:
            self._fail("there is nothing to look for", begun, self.at - begun)
        return Condition("text", "has", (value.text,), negated)

    def _field_term(self, start: "re.Match[str]", negated: bool) -> Condition:
        name = start["field"].lower()
        where, length = start.start("field"), len(start["field"])
        self.at = start.end()
        if name not in FIELDS:
            self._unknown("field", name, FIELDS, where, length, "; quote text that has a colon")
        path = None
        if name == "data":
            path = _json_path(start["path"]) if start["path"] else None
            if path is None:
                self._fail(
                    "data needs a path, as in data.customer.id or data.items[0]",
                    where,
                    max(start.end() - 1 - where, 1),
                )
        elif start["path"]:
            self._fail(f"{name} has no parts: only data has, as in data.customer", where, start.end() - 1 - where)
        operator = _OPERATOR.match(self.query, self.at)
        if operator is not None:
            self.at = operator.end()
        values = self._values(name, where)
        found = self._condition(name, operator[0] if operator else None, values)
        return Condition(name, found.test, found.values, negated, path, found.strict)

    def _values(self, name: str, where: int) -> list[_Value]:
        values = []
        while True:
            if self.at >= len(self.query) or self.query[self.at].isspace():
                self._fail(f"{name} needs a value", where, self.at - where)
            values.append(self._quoted() or self._match(_BARE, where))
            if self.at >= len(self.query) or self.query[self.at].isspace():
                return values
            if self.query[self.at] != ",":
                self._fail("a space or a comma is missing here", self.at, 1)
            self.at += 1

    def _quoted(self) -> _Value | None:
        if self.at >= len(self.query) or self.query[self.at] != '"':
            return None
        found = _QUOTED.match(self.query, self.at)
        if found is None:
            self._fail("this quote is never closed", self.at, 1)
        self.at = found.end()
        return _Value(re.sub(r"\\(.)", r"\1", found[1]), True, found.start(), found.end() - found.start())

    def _match(self, pattern: "re.Pattern[str]", where: int) -> _Value:
        found = pattern.match(self.query, self.at)
        if found is None:
            self._fail("a value is missing here", where, max(self.at - where, 1))
        self.at = found.end()
        return _Value(found[0], False, found.start(), found.end() - found.start())

    # --- values

    def _condition(self, name: str, operator: str | None, values: list[_Value]) -> Condition:
        first = values[0]
        if operator is None and len(values) == 1 and first.text == "*" and not first.quoted:
            return Condition(name, "any")
        if operator is not None and len(values) > 1:
            self._fail(f"{operator} takes one value", values[1].at, values[1].length)
        if name == "held":
            return self._held(operator, values)
        if name in TIME_FIELDS:
            return self._time(name, operator, values)
        if name in CONTAINED_FIELDS:
            self._refuse_order(name, operator, first)
            if len(values) > 1:
                self._fail(f"{name} takes one text: put it in quotes if it has a comma", values[1].at, values[1].length)
            return Condition(name, "has", (first.text,))
        if name == "state" or name in TEXT_FIELDS:
            self._refuse_order(name, operator, first)
            if len(values) == 1 and not first.quoted and first.text.endswith("*") and name != "state":
                return Condition(name, "starts", (first.text[:-1],))
            return Condition(name, "is", tuple(self._state(v) if name == "state" else v.text for v in values))
        read = {"cost": self._dollars, "data": self._json}.get(name) or self._whole_of(name)
        return self._ordered(name, operator, values, read)

    def _ordered(
        self, name: str, operator: str | None, values: list[_Value], read: Callable[[_Value], Any]
    ) -> Condition:
        """Comparison, range or equality of something that has an order."""
        first = values[0]
        parts = None if first.quoted or operator else first.text.split("..")
        if parts is not None and len(parts) == 2 and len(values) == 1 and any(parts):
            second_at = first.at + len(parts[0]) + 2
            low = read(_Value(parts[0], False, first.at, len(parts[0]))) if parts[0] else None
            high = read(_Value(parts[1], False, second_at, len(parts[1]))) if parts[1] else None
            return self._range(name, first, low, high)
        if operator is None:
            return Condition(name, "is", tuple(read(value) for value in values))
        value = read(first)
        low, high = (value, None) if operator[0] == ">" else (None, value)
        strict = len(operator) == 1
        found = self._range(name, first, low, high)
        return Condition(name, "range", found.values, strict=(strict, strict))

    def _range(self, name: str, value: _Value, low: Any, high: Any) -> Condition:
        if name == "data":
            low, high = (end.value if isinstance(end, Either) else end for end in (low, high))
            kinds = {_kind(end) for end in (low, high) if end is not None}
            if kinds == {"other"} or len(kinds) != 1:
                self._fail("only numbers, or texts, have an order", value.at, value.length)
        return Condition(name, "range", (low, high))

    def _held(self, operator: str | None, values: list[_Value]) -> Condition:
        self._refuse_order("held", operator, values[0])
        if values[0].text in ("true", "yes", "false", "no") and not values[0].quoted and len(values) == 1:
            return Condition("held", "any" if values[0].text in ("true", "yes") else "none")
        return Condition("held", "is", tuple(value.text for value in values))

    def _time(self, name: str, operator: str | None, values: list[_Value]) -> Condition:
        """A moment by a date or by its age. Everything becomes a range of milliseconds, both ends included."""
        first = values[0]
        if len(values) > 1:
            self._fail(
                f"{name} takes one time, or a range as in 2026-11-01..2026-11-03", values[1].at, values[1].length
            )
        if operator is None and ".." in first.text:
            left, _, right = first.text.partition("..")
            spans = [
                self._span(_Value(text, False, at, len(text))) if text else None
                for text, at in ((left, first.at), (right, first.at + len(left) + 2))
            ]
            if spans == [None, None]:
                self._fail(f"{name} needs a value", first.at, first.length)
            if all(span is None or span[0] == span[1] for span in spans):
                spans.reverse()  # of two ages the greater is the earlier
            begun, ended = spans
            return Condition(name, "range", (begun and begun[0], ended and ended[1]))
        begin, end = self._span(first)
        age = begin == end
        if operator is None:
            if age:
                self._fail(
                    f"say {name}:<{first.text} (younger) or {name}:>{first.text} (older)", first.at, first.length
                )
            return Condition(name, "range", (begin, end))
        if age:
            operator = operator.translate(str.maketrans("<>", "><"))
        match operator:
            case "<":
                return Condition(name, "range", (None, begin - 1))
            case "<=":
                return Condition(name, "range", (None, end))
            case ">":
                return Condition(name, "range", (end + 1, None))
        return Condition(name, "range", (begin, None))

    def _span(self, value: _Value) -> tuple[int, int]:
        """First and last millisecond of what is written: a day, a minute, a second; the same twice for an age."""
        age = _DURATION.fullmatch(value.text)
        if age is not None:
            at = max(self.now - round(float(age[1]) * _UNITS[age[2]]), -_INT64)
            return at, at
        try:
            moment = datetime.fromisoformat(value.text)
        except ValueError:
            self._fail(
                f"{value.text!r} is no time: write an age as 30s, 2h or 3d, or a date as 2026-11-01 or 2026-11-01T08:30 (UTC)",
                value.at,
                value.length,
            )
        length = (
            timedelta(days=1)
            if len(value.text) <= 10
            else timedelta(minutes=1)
            if _TO_THE_MINUTE.search(value.text)
            else timedelta(seconds=1)
        )
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        begin = round(moment.timestamp() * 1000)
        return begin, begin + round(length.total_seconds() * 1000) - 1

    def _state(self, value: _Value) -> JobState:
        try:
            return JobState(value.text.lower())
        except ValueError:
            self._unknown("state", value.text, tuple(map(str, JobState)), value.at, value.length)

    def _whole_of(self, name: str) -> Callable[[_Value], int]:
        def read(value: _Value) -> int:
            if name == "priority" and value.text in PRIORITIES:
                return PRIORITIES[value.text]
            if re.fullmatch(r"[-+]?\d{1,18}", value.text) is None:
                self._fail(f"{name} needs a whole number, not {value.text!r}", value.at, value.length)
            return int(value.text)

        return read

    def _dollars(self, value: _Value) -> int:
        text = value.text.removeprefix("$")
        if _NUMBER.fullmatch(text) is None or not abs(float(text)) < _INT64 / NANO:
            self._fail(f"cost needs an amount in dollars, not {value.text!r}", value.at, value.length)
        return round(float(text) * NANO)

    def _json(self, value: _Value) -> Any:
        text = value.text
        if value.quoted:
            return text
        if text in ("true", "false", "null"):
            return Either({"true": True, "false": False, "null": None}[text], text)
        if _NUMBER.fullmatch(text) is not None:
            number: int | float = int(text) if re.fullmatch(r"[-+]?\d+", text) and len(text) < 19 else float(text)
            return Either(number, text)
        return text

    # --- what is wrong

    def _refuse_order(self, name: str, operator: str | None, value: _Value) -> None:
        if operator is not None:
            self._fail(
                f"{name} has no order, so {operator} says nothing",
                value.at - len(operator),
                value.length + len(operator),
            )

    def _unknown(
        self, what: str, name: str, known: tuple[str, ...], at: int, length: int, otherwise: str = ""
    ) -> NoReturn:
        import difflib

        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}{otherwise}"
        self._fail(f"there is no {what} {name!r}{hint}", at, length)

    def _fail(self, problem: str, at: int, length: int) -> NoReturn:
        raise InvalidQueryError(self.query, at, length, problem)


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "other"
    return "text" if isinstance(value, str) else "number"


def _json_path(written: str) -> str | None:
    """`.customer.id` or `.items[0]` as SQLite's JSON path; None if it is not one."""
    path, at = "$", 0
    while at < len(written):
        step = _STEP.match(written, at)
        if step is None:
            return None
        path += f'."{step[1]}"' if step[1] is not None else f"[{step[2]}]"
        at = step.end()
    return path
