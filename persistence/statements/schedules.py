"""What recurs. SQLAlchemy Core, compiled ahead of time into `sql_text`; the functions are in `persistence.schedules`."""

from sqlalchemy import bindparam, case, delete, select, text, update
from sqlalchemy.dialects.sqlite import insert

from ..schema import schedules
from .build import NO_OFFSET, NULL, up_to

_COLUMNS = tuple(
    schedules.c[name]
    for name in (
        "name",
        "cron",
        "every_ms",
        "timezone",
        "catch_up",
        "job",
        "next_at",
        "last_at",
        "paused_at",
        "problem",
        "created_at",
    )
)
LIST = select(*_COLUMNS).order_by(schedules.c.name)
ONE = select(*_COLUMNS).where(schedules.c.name == bindparam("name"))
DUE = (
    select(*_COLUMNS)
    .where(schedules.c.paused_at.is_(None), schedules.c.next_at <= bindparam("now"))
    .order_by(schedules.c.next_at)
    .limit(up_to("limit"))
    .offset(NO_OFFSET)
)
RUNNING = select(*_COLUMNS).where(schedules.c.paused_at.is_(None))

_new = insert(schedules).values(
    {
        name: bindparam(name)
        for name in ("name", "cron", "every_ms", "timezone", "catch_up", "job", "next_at", "created_at")
    }
)
# A host says its schedules at every start: only a new rhythm begins anew.
_same_rhythm = text(
    "llm_schedules.cron IS excluded.cron AND llm_schedules.every_ms IS excluded.every_ms AND llm_schedules.timezone = excluded.timezone"
)
PUT = _new.on_conflict_do_update(
    index_elements=["name"],
    set_={
        **{name: _new.excluded[name] for name in ("cron", "every_ms", "timezone", "catch_up", "job")},
        "next_at": case((_same_rhythm, schedules.c.next_at), else_=_new.excluded.next_at),
        "paused_at": case((schedules.c.problem.is_(None), schedules.c.paused_at), else_=NULL),
        "problem": NULL,
    },
)
REMOVE = delete(schedules).where(schedules.c.name == bindparam("wanted"))
PAUSE = (
    update(schedules)
    .where(schedules.c.name == bindparam("wanted"))
    .values(paused_at=bindparam("now"), problem=bindparam("problem"))
)
RESUME = (
    update(schedules)
    .where(schedules.c.name == bindparam("wanted"))
    .values(paused_at=NULL, problem=NULL, next_at=bindparam("next"))
)
FIRED = (
    update(schedules)
    .where(schedules.c.name == bindparam("wanted"))
    .values(next_at=bindparam("next"), last_at=bindparam("fired"))
)
REARM = (
    update(schedules)
    .where(schedules.c.name == bindparam("wanted"), schedules.c.next_at > bindparam("next"))
    .values(next_at=bindparam("next"))
)
