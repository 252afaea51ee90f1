"""What of a conversation is sent: the newest turns that fit, cut where a cut does no harm. Pure.

- Never more than the budget: the context window less the answer and 2 % for what estimates get wrong.
- The system text stays. So does the newest summary of what was left out, while it fits.
- A cut is made only before a user's turn, and never between a tool's call and its result: a provider refuses a prompt that tears them apart.
  A result without its call, or a call without its result, is left out.
- The prompt begins with a user's message, and neighbours of one role are joined, as some providers demand.
- Hysteresis: nothing is cut until `trim_at` of the budget is full, and then down to `trim_to`. Every cut changes how the prompt begins, and so
  throws away the provider's cache of it; between two cuts a prompt begins exactly as the one before it.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..providers.estimate import BYTES_PER_TOKEN, IMAGE_TOKENS, TOKENS_PER_MESSAGE
from ..providers.parts import Image, Opaque, Text, ToolCall, ToolResult, part_to_json

SAFETY = 0.02
"""The share of the context window that is kept free."""


class ContextOverflowError(ValueError):
    """What must be sent does not fit, even with nothing of the past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message as it is weighed. `content` is text, or its parts. `tokens` None: not known, and estimated.

    `id` is its place in the log, None for one that is not in it. `calls`: the ids of the tool calls it makes; `answers`: the ids of the calls
    whose results it holds.
    """

    role: str
    content: Any
    tokens: int | None = None
    id: int | None = None
    calls: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Its tokens, measured or estimated."""
        return self.tokens if self.tokens is not None and self.tokens > 0 else estimate(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What to send. `dropped` is what was cut by this very trim, `size` the tokens of all messages."""

    messages: tuple[Entry, ...]
    dropped: tuple[Entry, ...] = ()
    size: int = 0


def estimate(content: Any) -> int:
    """A safe guess of the tokens of one message, its framing included. A picture counts as the most that a provider makes of one."""
    if not isinstance(content, tuple):
        return _tokens_of(content if isinstance(content, str) else repr(content)) + TOKENS_PER_MESSAGE
    size = TOKENS_PER_MESSAGE
    for part in content:
        match part:
            case Text(text):
                size += _tokens_of(text)
            case Image():
                size += IMAGE_TOKENS
            case _:
                size += _tokens_of(json.dumps(part_to_json(part), ensure_ascii=False, default=str))
    return size


def _tokens_of(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def budget_of(context_window: int, max_output: int) -> int:
    """The tokens that a prompt may have. Zero or less: none fits."""
    return context_window - max_output - math.ceil(context_window * SAFETY)


def fit(
    system: str | None,
    past: Sequence[Entry],
    new: Sequence[Entry],
    *,
    budget: int,
    trim_at: float = 0.85,
    trim_to: float = 0.6,
    summary: Entry | None = None,
) -> Window:
    """Choose what to send: the system text, the summary, the newest turns of the past, and what is new, which always is sent.

    `past` is what no earlier trim has cut. Raises ContextOverflowError, with the sizes.
    """
    head = [Entry(role="system", content=system)] if system is not None else []
    leading = [summary] if summary is not None else []
    units = _units([*past, *new])
    sizes = [sum(entry.size for entry in unit) for unit in units]
    total = sum(sizes) + sum(entry.size for entry in [*head, *leading])
    kept_from = 0
    if total > trim_at * budget:
        fixed = _first_new(units, len(new))
        while kept_from < fixed and total > trim_to * budget:
            total -= sizes[kept_from]
            kept_from += 1
    if total > budget and leading:
        total -= leading.pop().size
    if total > budget:
        raise ContextOverflowError(
            f"the message and the system text take {total} tokens, but the prompt may have {max(0, budget)}: "
            "shorten them, or raise the conversation's context_window"
        )
    kept = _whole([entry for unit in units[kept_from:] for entry in unit])
    messages = _joined([*head, *_from_user([*leading, *kept])])
    return Window(
        messages=messages,
        dropped=tuple(entry for unit in units[:kept_from] for entry in unit),
        size=sum(entry.size for entry in messages),
    )


def _first_new(units: Sequence[Sequence[Entry]], fresh: int) -> int:
    """The first unit with something new in it, when the last `fresh` messages are."""
    first = len(units)
    while fresh > 0:
        first -= 1
        fresh -= len(units[first])
    return first


def _units(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Cut before every user's turn, unless a tool's call is still without its result there."""
    units: list[list[Entry]] = []
    waiting: set[str] = set()
    answered = {call for entry in entries for call in entry.answers}
    for entry in entries:
        begins = entry.role == "user" and not waiting and (not units or units[-1][-1].role != "user")
        if begins or not units:
            units.append([])
        units[-1].append(entry)
        waiting.update(call for call in entry.calls if call in answered)
        waiting.difference_update(entry.answers)
    return units


def _whole(entries: Iterable[Entry]) -> list[Entry]:
    """Without results whose call is not before them, calls that have no result after them, and messages that say nothing."""
    found = list(entries)
    later: set[str] = set()
    answered: list[frozenset[str]] = []
    for entry in reversed(found):
        answered.append(frozenset(later))
        later.update(entry.answers)
    answered.reverse()
    open_calls: set[str] = set()
    whole = []
    for entry, results in zip(found, answered, strict=True):
        answers = tuple(dict.fromkeys(call for call in entry.answers if call in open_calls))
        open_calls.difference_update(answers)
        calls = tuple(call for call in entry.calls if call in results)
        open_calls.update(calls)
        kept = entry
        if calls != entry.calls or answers != entry.answers:
            kept = replace(entry, calls=calls, answers=answers, content=_only(entry.content, calls, answers))
        if calls or answers or (kept.content not in ("", (), []) and (not entry.answers or kept.role != "tool")):
            whole.append(kept)
    return whole


def _only(content: Any, calls: tuple[str, ...], answers: tuple[str, ...]) -> Any:
    """The content with these calls and results alone. What the provider wants back with the calls goes with the first that is left out."""
    if not isinstance(content, tuple):
        return content
    asked = [part.id for part in content if isinstance(part, ToolCall)]
    torn = asked != list(calls)
    told: list[Any] = []
    open_answers = set(answers)
    for part in content:
        match part:
            case ToolCall(id=call):
                if call in calls:
                    told.append(part)
            case ToolResult(call_id=call):
                if call in open_answers:
                    open_answers.discard(call)
                    told.append(part)
            case Opaque():
                if not torn:
                    told.append(part)
            case _:
                told.append(part)
    return tuple(told)


def _from_user(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Without what comes before the first user's message, together with the results that belong to it."""
    first = next((place for place, entry in enumerate(entries) if entry.role == "user"), len(entries))
    return _whole(entries[first:])


def _joined(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Neighbours of one role as one message, results apart."""
    joined: list[Entry] = []
    for entry in entries:
        before = joined[-1] if joined else None
        if before is None or before.role != entry.role or entry.role == "tool" or entry.answers:
            joined.append(entry)
            continue
        joined[-1] = Entry(
            role=entry.role,
            content=_both(before.content, entry.content),
            tokens=before.size + entry.size,
            id=entry.id,
            calls=before.calls + entry.calls,
        )
    return tuple(joined)


def _both(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return (*_parts(first), *_parts(second))


def _parts(content: Any) -> tuple[Any, ...]:
    if isinstance(content, tuple):
        return content
    return (Text(content),) if content else ()
