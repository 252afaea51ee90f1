"""The logs of conversations: what a turn is given of one, and what its completion adds.

A log is append-only: messages linked to the one before, and a head. Only the transaction that completes a turn's job appends to it, so a
turn that fails, is cancelled or loses its lease leaves no trace there, and no partial answer ever enters. A fork is another head on the same
past.

That turns follow one another is not seen to here but by the database itself (`triggers.trigger_statements`): a turn waits on an edge to
the turn before it, so that a waiting one holds no runner, and any number of processes need no lock between them.

Every function that writes is called inside the caller's write transaction.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from .engine import Connection
from .errors import ConversationNotFoundError, InvalidJobError
from .json_text import dumps, loads, storable
from .model import ConversationSettings, History, LogMessage, Said
from .sql import Prepared

_CREATE = Prepared("conversations.CREATE")
_BY_NAME = Prepared("conversations.BY_NAME")
_SET_SETTINGS = Prepared("conversations.SET_SETTINGS")
_LIST = Prepared("conversations.LIST")
_TURNS = Prepared("conversations.TURNS")
_HISTORY = Prepared("conversations.HISTORY")
_LOG = Prepared("conversations.LOG")
_MESSAGE = Prepared("conversations.MESSAGE")
_HEAD = Prepared("conversations.HEAD")
_APPEND = Prepared("conversations.APPEND")
_MOVE_HEAD = Prepared("conversations.MOVE_HEAD")
_SUMMARISE = Prepared("conversations.SUMMARISE")
_SUMMARY_DATA = Prepared("conversations.SUMMARY_DATA")

MARKS = frozenset({"trim", "summary"})
"""Roles of entries that are about the log and no part of what was said."""
_DEFAULTS = asdict(ConversationSettings())


class ConversationRow(NamedTuple):
    """A conversation as a reader sees it. `head_id` is its newest message, None while it has none. `created_at` in epoch milliseconds."""

    id: int
    name: str
    head_id: int | None
    settings: ConversationSettings
    created_at: int


class ConversationSummary(NamedTuple):
    """A conversation in a listing. `turns` completed, `live` turns not ended yet; times in epoch milliseconds."""

    id: int
    name: str
    turns: int
    live: int
    created_at: int
    updated_at: int


def checked_name(name: Any) -> str:
    """The name of a conversation. Raises InvalidJobError."""
    if not isinstance(name, str) or not 1 <= len(name) <= 200 or not storable(name):
        raise InvalidJobError("conversation", f"must be text of 1 to 200 characters, not {name!r:.200}")
    return name


def checked_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are stored: those given, each of its kind. Raises InvalidJobError, naming the setting."""
    for name, value in given.items():
        if name not in _DEFAULTS:
            raise InvalidJobError(
                f"conversation.{name}", f"is not a setting; the settings are {', '.join(sorted(_DEFAULTS))}"
            )
        problem = _fault(name, value)
        if problem:
            raise InvalidJobError(f"conversation.{name}", f"{problem}, not {value!r:.200}")
    settings = replace(ConversationSettings(), **given)
    if settings.trim_to > settings.trim_at:
        raise InvalidJobError("conversation.trim_to", f"must not be above trim_at, which is {settings.trim_at:g}")
    return given


def _fault(name: str, value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match name:
        case "system":
            return None if value is None or (isinstance(value, str) and storable(value)) else "must be text or None"
        case "context_window":
            whole = isinstance(value, int) and number
            return None if whole and value >= 100 else "must be a whole number of tokens, 100 at least"
        case "trim_at" | "trim_to":
            return None if number and 0 < value <= 1 else "must be above 0 and at most 1"
        case "on_failed":
            return None if value in ("skip", "block") else "must be 'skip' or 'block'"
    return None if isinstance(value, bool) else "must be True or False"


def read_settings(stored: str) -> ConversationSettings:
    """A row's settings. What another program wrote there and cannot be meant is passed over, as are keys of a later release."""
    found = loads(stored) if stored != "{}" else {}
    if not isinstance(found, dict):
        return ConversationSettings()
    known = {name: value for name, value in found.items() if name in _DEFAULTS and _fault(name, value) is None}
    return ConversationSettings(**known)


def ensure(c: Connection, name: str, now: int) -> None:
    """There is a conversation of this name from now on."""
    c.run(_CREATE, {"name": checked_name(name), "head_id": None, "settings": "{}", "created_at": now})


def open_conversation(c: Connection, name: str, settings: dict[str, Any], now: int) -> ConversationRow:
    """Get or create; the settings given take the place of those it had."""
    stored = checked_settings(settings)
    c.run(_CREATE, {"name": checked_name(name), "head_id": None, "settings": dumps(stored), "created_at": now})
    row = by_name(c, name)
    assert row is not None
    merged = {**_given(row.settings), **stored}
    if merged != _given(row.settings):
        checked_settings(merged)
        c.change(_SET_SETTINGS, {"wanted": row.id, "settings": dumps(merged)})
        row = row._replace(settings=ConversationSettings(**merged))
    return row


def _given(settings: ConversationSettings) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if value != _DEFAULTS[name]}


def by_name(c: Connection, name: str) -> ConversationRow | None:
    """The conversation, or None."""
    rows = c.run(_BY_NAME, {"wanted": name})
    if not rows:
        return None
    found, called, head, stored, created_at = rows[0]
    return ConversationRow(found, called, head, read_settings(stored), created_at)


def required(c: Connection, name: str) -> ConversationRow:
    """The conversation. Raises ConversationNotFoundError."""
    row = by_name(c, checked_name(name))
    if row is None:
        raise ConversationNotFoundError(f"there is no conversation {name!r}")
    return row


def listing(c: Connection, limit: int, before: int | None) -> list[ConversationSummary]:
    """Conversations, the newest first."""
    return [
        ConversationSummary(*row)
        for row in c.run(_LIST, {"limit": limit, "before": 2**63 - 1 if before is None else before})
    ]


def fork(c: Connection, source: ConversationRow, at: int | None, name: str, now: int) -> ConversationRow | None:
    """A conversation that shares the past of another up to and with the message `at` (None: all of it). None if the name is taken.

    Raises InvalidJobError if the message is not in its log.
    """
    if at is not None and all(message.id != at for message in log(c, source.id)):
        raise InvalidJobError("at", f"message {at} is not in the log of conversation {source.name!r}")
    head = source.head_id if at is None else at
    made = c.run(
        _CREATE,
        {
            "name": checked_name(name),
            "head_id": head,
            "settings": dumps(_given(source.settings)),
            "created_at": now,
        },
    )
    return ConversationRow(made[0][0], name, head, source.settings, now) if made else None


def log(c: Connection, conversation_id: int) -> list[LogMessage]:
    """The whole log, oldest first, the marks included."""
    return [_message(row) for row in c.run(_LOG, {"wanted": conversation_id})]


def history(
    c: Connection, conversation_id: int, name: str, settings: ConversationSettings, *, budget: int | None = None
) -> History:
    """The part of the log that prompts are made of: what no mark leaves out, and not much more than `budget` tokens of it.

    `budget` None: the context window.
    """
    found = [
        _message(row)
        for row in c.run(
            _HISTORY, {"wanted": conversation_id, "budget": settings.context_window if budget is None else budget}
        )
    ]
    marks = [message for message in found if message.role in MARKS and _covers_something(message)]
    summary = next((mark for mark in reversed(marks) if mark.role == "summary"), None)
    if summary is None and marks:
        kept = marks[-1].content.get("summary")
        rows = c.run(_MESSAGE, {"wanted": kept}) if isinstance(kept, int) else []
        named = _message(rows[0]) if rows else None
        summary = named if named is not None and named.role == "summary" and _covers_something(named) else None
    return History(
        conversation_id=conversation_id,
        name=name,
        settings=settings,
        messages=tuple(message for message in found if message.role not in MARKS),
        summary=summary,
    )


def _covers_something(mark: LogMessage) -> bool:
    """Whether a mark is one of ours: what another program wrote there must not stop a worker's claims."""
    content = mark.content
    if not isinstance(content, dict):
        return False
    covers = content.get("covers")
    told = mark.role != "summary" or isinstance(content.get("text"), str)
    return told and isinstance(covers, list) and len(covers) == 2 and all(isinstance(place, int) for place in covers)


def histories(c: Connection, job_ids: Iterable[int]) -> dict[int, History]:
    """What the turns among these jobs are given of their conversations."""
    return {
        job_id: history(c, conversation_id, name, read_settings(stored))
        for job_id, conversation_id, name, stored in c.run(_TURNS, {"ids": json.dumps(list(job_ids))})
    }


def extend(c: Connection, job_id: int, said: Said, now: int, *, actor: str = "store") -> None:
    """Append what a job said and move the head, in the transaction that completes the job. Nothing, if the conversation is gone."""
    rows = c.run(_HEAD, {"wanted": said.conversation_id})
    if not rows or not said.messages:
        return
    head, turn = rows[0]
    spoken = any(message.role not in MARKS for message in said.messages)
    for message in said.messages:
        head = c.run(
            _APPEND,
            {
                "conversation_id": said.conversation_id,
                "parent_id": head,
                "turn": turn + spoken,
                "role": message.role,
                "content": dumps(message.content),
                "tokens": message.tokens,
                "job_id": job_id,
                "at": now,
            },
        )[0][0]
    c.change(_MOVE_HEAD, {"wanted": said.conversation_id, "new_head": head})
    if said.summarise is None:
        return
    key = f"summary:{said.conversation_id}:{said.summary_key}"
    made = c.run(_SUMMARISE, {"summary_key": key, "job_id": job_id, "actor": actor, "now": now})
    if made:
        data = {"job_id": made[0][0], "description": "summary of a conversation", "data": dumps(said.summarise)}
        c.change(_SUMMARY_DATA, data)


def _message(row: Sequence[Any]) -> LogMessage:
    found, parent_id, turn, role, content, tokens, job_id, at = row
    return LogMessage(
        id=found,
        parent_id=parent_id,
        turn=turn,
        role=role,
        content=loads(content),
        tokens=tokens,
        job_id=job_id,
        at=at,
    )
