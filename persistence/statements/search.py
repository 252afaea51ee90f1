"""Searches as SQL. Put together at run time from what `persistence.search` has read, so hosts load SQLAlchemy for them, and only then.

Every value is a bound parameter. The one exception is a state, which is one of our own words by then and stands in the text because SQLite
uses a partial index only where its condition is repeated literally.
"""

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, delete, func, not_, or_, select

from ..lifecycle import TERMINAL_STATES
from ..model import USAGE_COLUMNS
from ..schema import calls, conversations, edges, job_data, job_results, jobs
from ..search import Condition, Either
from .build import NO_OFFSET, as_text, lit, one_of, up_to
from .host_store import ROW_COLUMNS

Condition_ = ColumnElement[Any]

_COLUMNS: dict[str, ColumnElement[Any]] = {
    "state": jobs.c.state,
    "type": jobs.c.type,
    "queue": jobs.c.queue,
    "model": jobs.c.model,
    "tag": jobs.c.tag,
    "key": jobs.c.key,
    "group": jobs.c.group_key,
    "id": jobs.c.id,
    "priority": jobs.c.priority,
    "attempt": jobs.c.attempt,
    "failures": jobs.c.failures,
    "losses": jobs.c.losses,
    "parent": jobs.c.parent_id,
    "created": jobs.c.created_at,
    "started": jobs.c.started_at,
    "finished": jobs.c.finished_at,
    "held": jobs.c.held_by,
    "reason": jobs.c.reason,
    "error": job_results.c.error,
    "description": job_data.c.description,
    "cost": select(func.sum(calls.c.cost)).where(calls.c.job_id == jobs.c.id).scalar_subquery(),
    "tokens": select(
        func.sum(sum((func.coalesce(calls.c[name], lit(0)) for name in USAGE_COLUMNS[1:]), func.coalesce(calls.c[USAGE_COLUMNS[0]], lit(0))))
    )
    .where(calls.c.job_id == jobs.c.id)
    .scalar_subquery(),
}  # fmt: skip

_live = jobs.alias("live")
_ids = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
DELETE = delete(jobs).where(
    jobs.c.id.in_(_ids),
    jobs.c.state.in_(one_of(TERMINAL_STATES)),
    # What a job that has not ended waits on is still to be read by it.
    not_(
        select(lit(1))
        .select_from(edges.join(_live, _live.c.id == edges.c.job_id))
        .where(edges.c.depends_on == jobs.c.id, _live.c.state.not_in(one_of(TERMINAL_STATES)))
        .exists()
    ),
)


def rows_sql(conditions: tuple[Condition, ...], *, before: bool) -> tuple[str, dict[str, Any]]:
    """The jobs that meet all of it, newest first, and its parameters; `limit` is to be given, and `before`, an id, where that is wanted."""
    made = _Search()
    statement = made.select(conditions, *ROW_COLUMNS)
    if before:
        statement = statement.where(jobs.c.id < bindparam("before"))
    statement = statement.order_by(jobs.c.id.desc()).limit(up_to("limit")).offset(NO_OFFSET)
    return as_text(statement), made.parameters


def ids_sql(conditions: tuple[Condition, ...], *, among: bool) -> tuple[str, dict[str, Any]]:
    """The ids that meet all of it: the next `limit` below `before`, newest first, or `among` those of the JSON list `ids`."""
    made = _Search()
    statement = made.select(conditions, jobs.c.id)
    if among:
        statement = statement.where(jobs.c.id.in_(_ids))
    else:
        statement = statement.where(jobs.c.id < bindparam("before")).limit(up_to("limit")).offset(NO_OFFSET)
    return as_text(statement.order_by(jobs.c.id.desc())), made.parameters


def count_sql(conditions: tuple[Condition, ...]) -> tuple[str, dict[str, Any]]:
    """How many jobs meet all of it."""
    made = _Search()
    return as_text(made.select(conditions, func.count())), made.parameters


class _Search:
    """One statement in the making, and the values bound in it."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}

    def select(self, conditions: tuple[Condition, ...], *columns: Any) -> Select[Any]:
        asked = {condition.field for condition in conditions}
        source: Any = jobs
        if asked & {"data", "description", "text"}:
            source = source.outerjoin(job_data, job_data.c.job_id == jobs.c.id)
        if "error" in asked:
            source = source.outerjoin(job_results, job_results.c.job_id == jobs.c.id)
        statement = select(*columns).select_from(source)
        for condition in conditions:
            meets = self._test(condition)
            # What is not set meets no test, and so meets every negated one.
            statement = statement.where(func.coalesce(meets, lit(0)) == lit(0) if condition.negated else meets)
        return statement

    def _bound(self, value: Any) -> Condition_:
        name = f"v{len(self.parameters)}"
        self.parameters[name] = value
        return bindparam(name)

    def _test(self, condition: Condition) -> Condition_:
        match condition.field:
            case "state" if condition.test == "is":
                return _any(jobs.c.state == lit(str(state)) for state in condition.values)
            case "text":
                return or_(
                    self._has(job_data.c.description, condition.values[0]),
                    self._has(jobs.c.reason, condition.values[0]),
                )
            case "data":
                return self._data(condition)
            case "conversation":
                if condition.test == "any":
                    return jobs.c.conversation_id.is_not(None)
                named = select(conversations.c.id).where(self._plain(conversations.c.name, condition))
                return jobs.c.conversation_id.in_(named)
        return self._plain(_COLUMNS[condition.field], condition)

    def _plain(self, column: ColumnElement[Any], condition: Condition) -> Condition_:
        first = condition.values[0] if condition.values else None
        match condition.test:
            case "any":
                return column.is_not(None)
            case "none":
                return column.is_(None)
            case "has":
                return self._has(column, first)
            case "starts":
                # As a range, so that an index serves. No text that can be stored sorts behind the last code point.
                return and_(column >= self._bound(first), column < self._bound(f"{first}\U0010ffff"))
            case "range":
                return self._range(column, condition)
        return _any(column == self._bound(value) for value in condition.values)

    def _has(self, column: ColumnElement[Any], wanted: Any) -> Condition_:
        return func.instr(func.lower(column), func.lower(self._bound(wanted))) > lit(0)

    def _range(self, column: ColumnElement[Any], condition: Condition) -> Condition_:
        low, high = condition.values
        ends = []
        if low is not None:
            ends.append(column > self._bound(low) if condition.strict[0] else column >= self._bound(low))
        if high is not None:
            ends.append(column < self._bound(high) if condition.strict[1] else column <= self._bound(high))
        return and_(*ends)

    def _data(self, condition: Condition) -> Condition_:
        path = self._bound(condition.path)
        value = func.json_extract(job_data.c.data, path)
        kind = func.json_type(job_data.c.data, path)
        number = kind.in_([lit("integer"), lit("real")])
        if condition.test == "any":
            return kind.is_not(None)
        if condition.test == "range":
            sample = next(end for end in condition.values if end is not None)
            return and_(kind == lit("text") if isinstance(sample, str) else number, self._range(value, condition))
        tests = []
        for wanted in condition.values:
            literal = wanted.value if isinstance(wanted, Either) else wanted
            if literal is None or isinstance(literal, bool):
                tests.append(kind == lit({None: "null", True: "true", False: "false"}[literal]))
            elif not isinstance(literal, str):
                tests.append(and_(value == self._bound(literal), number))
            if isinstance(wanted, str | Either):
                as_written = wanted.text if isinstance(wanted, Either) else wanted
                tests.append(and_(value == self._bound(as_written), kind == lit("text")))
        return _any(tests)


def _any(tests: Any) -> Condition_:
    return or_(*tests)
