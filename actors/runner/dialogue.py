"""A turn of a conversation while its job is performed: what it sends of the past, and what it will add to the log if the job completes.

Plain bookkeeping over `context_window`, owned by the runner; no thread, no clock, no I/O. What it holds is lost with the attempt, as it should
be: only a completed turn has said anything.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...persistence.model import History, LogMessage, NewMessage, Said
from ..providers.estimate import TOKENS_PER_MESSAGE
from ..providers.model import CallError, Completion, ErrorClass, Message, Request, Usage
from . import context_window
from .booking import ASSUMED_OUTPUT
from .context_window import Entry
from .effects import CallFailedError

SUMMARY_SYSTEM = (
    "You keep the memory of a long conversation. Write down, for the assistant who will go on with it without having read it, what was said: "
    "facts, decisions, names, numbers, open questions and what the user wants. Be brief and leave nothing out that may matter. Answer with the "
    "summary alone."
)
SUMMARY_OUTPUT = 1024
"""The most tokens a summary may have."""


class UnsendableMessageError(ValueError):
    """The log holds a message that a request cannot carry."""


class Dialogue:
    """One conversation in the hand of one attempt. Asks are one after the other; each sees what was said before it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._past = [_entry(message) for message in history.messages]
        self._summary = None if history.summary is None else _summary(history.summary)
        self._said: list[NewMessage] = []
        self._dropped: list[Entry] = []

    def compose(self, new: Sequence[Message], max_output: int) -> tuple[Message, ...]:
        """The messages to send: as much of the past as fits, and what is new. A system message in `new` stands in for the conversation's own.

        Raises `context_window.ContextOverflowError`, or UnsendableMessageError.
        """
        settings = self._history.settings
        window = context_window.fit(
            _system_of(new, settings.system),
            self._past,
            [Entry(role=message.role, content=message.content) for message in _spoken(new)],
            budget=context_window.budget_of(settings.context_window, max_output),
            trim_at=settings.trim_at,
            trim_to=settings.trim_to,
            summary=self._summary,
        )
        if window.dropped:
            self._past = self._past[len(window.dropped) :]
            self._dropped += window.dropped
        return tuple(_message(entry) for entry in window.messages)

    def hear(self, new: Sequence[Message], sent: Sequence[Message] | None, completion: Completion) -> None:
        """An ask was answered: both are part of the conversation from here on, if the job completes. `sent` None: not known any more."""
        spoken = _spoken(new)
        tokens = _shares(spoken, sent, completion.usage)
        answer = None if completion.usage is None else completion.usage.output_visible + TOKENS_PER_MESSAGE
        added = [
            NewMessage(message.role, message.content, count) for message, count in zip(spoken, tokens, strict=True)
        ]
        added.append(NewMessage("assistant", completion.text, answer))
        self._said += added
        self._past += [Entry(role=message.role, content=message.content, tokens=message.tokens) for message in added]

    @property
    def said(self) -> Said | None:
        """What the log gains when the job completes; None if nothing was asked."""
        if not self._said:
            return None
        covered = [entry.id for entry in self._dropped if entry.id is not None]
        conversation = self._history.conversation_id
        if not covered:
            return Said(conversation_id=conversation, messages=tuple(self._said))
        summary = self._history.summary
        first = covered[0] if summary is None else int(summary.content["covers"][0])
        covers = [first, covered[-1]]
        mark = NewMessage("trim", {"covers": covers, "summary": None if summary is None else summary.id})
        return Said(
            conversation_id=conversation,
            messages=(mark, *self._said),
            summarise=self._order(covers) if self._history.settings.summarise else None,
            summary_key=f"{covers[0]}-{covers[1]}",
        )

    def _order(self, covers: list[int]) -> dict[str, Any]:
        """The data of the job that summarises what was cut: the summary before it included, so that each stands for all of the past."""
        told = [] if self._summary is None else [f"Earlier summary:\n{self._summary.content}"]
        told += [f"{entry.role}:\n{_text(entry.content)}" for entry in self._dropped if entry.id is not None]
        return {
            "system": SUMMARY_SYSTEM,
            "prompt": "\n\n".join(told),
            "max_output": SUMMARY_OUTPUT,
            "summary_of": {"conversation": self._history.conversation_id, "covers": covers},
        }


def in_conversation(dialogue: Dialogue | None, request: Request) -> Request:
    """The request with what it is to carry of the conversation. Raises CallFailedError where that cannot be: a retry would not heal it."""
    if dialogue is None:
        error = CallError(kind=ErrorClass.INVALID, message="the job is in no conversation: add it with one", sent=False)
        raise CallFailedError(error)
    try:
        messages = dialogue.compose(request.messages, request.max_output or ASSUMED_OUTPUT)
    except (context_window.ContextOverflowError, UnsendableMessageError) as problem:
        kind = ErrorClass.INVALID if isinstance(problem, UnsendableMessageError) else ErrorClass.CONTEXT
        raise CallFailedError(CallError(kind=kind, message=str(problem), sent=False)) from problem
    return replace(request, messages=messages)


def summary_said(conversation_id: int, covers: Sequence[int], completion: Completion) -> Said:
    """What the log gains when a summary is done."""
    tokens = None if completion.usage is None else completion.usage.output_visible + 4 * TOKENS_PER_MESSAGE
    content = {"covers": list(covers), "text": completion.text}
    return Said(conversation_id=conversation_id, messages=(NewMessage("summary", content, tokens),))


def _spoken(new: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(message for message in new if message.role != "system")


def _system_of(new: Sequence[Message], usual: str | None) -> str | None:
    given = [message.text for message in new if message.role == "system"]
    return "\n\n".join(given) if given else usual


def _shares(spoken: Sequence[Message], sent: Sequence[Message] | None, usage: Usage | None) -> list[int | None]:
    """The tokens of each new message: its part, by estimate, of the input that the provider counted."""
    if usage is None or sent is None or usage.input == 0:
        return [None] * len(spoken)
    ratio = usage.input / sum(context_window.estimate(message.content) for message in sent)
    return [max(1, math.ceil(context_window.estimate(message.content) * ratio)) for message in spoken]


def _entry(message: LogMessage) -> Entry:
    content = message.content
    if not isinstance(content, dict):
        return Entry(role=message.role, content=content, tokens=message.tokens, id=message.id)
    made = content.get("tool_calls")
    calls = tuple(str(call.get("id")) for call in made if isinstance(call, dict)) if isinstance(made, list) else ()
    answers = content.get("tool_call_id")
    return Entry(
        role=message.role,
        content=content.get("text", ""),
        tokens=message.tokens,
        id=message.id,
        calls=calls,
        answers=None if answers is None else str(answers),
    )


def _summary(message: LogMessage) -> Entry:
    """In the user's name and marked: it is made of what users said, and must not speak with the authority of the system."""
    first, last = message.content["covers"]
    text = f"[Summary of the conversation so far, messages {first} to {last}]\n{message.content['text']}"
    tokens = None if message.tokens is None else message.tokens + context_window.estimate(text.split("\n", 1)[0])
    return Entry(role="user", content=text, tokens=tokens, id=message.id)


def _message(entry: Entry) -> Message:
    if entry.calls or entry.answers is not None or not isinstance(entry.content, str):
        raise UnsendableMessageError(
            f"message {entry.id} of the conversation holds tool calls, results or parts, which a request cannot carry"
        )
    return Message(entry.role, entry.content)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else repr(content)
