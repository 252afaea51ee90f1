"""A turn of a conversation while its job is performed: what it sends of the past, and what it will add to the log if the job completes.

Plain bookkeeping over `context_window`, owned by the runner; no thread, no clock, no I/O. What it holds is lost with the attempt, as it should
be: only a completed turn has said anything.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...persistence.model import History, LogMessage, NewMessage, Said
from ..providers.estimate import TOKENS_PER_MESSAGE
from ..providers.model import AnyRequest, CallError, Completion, ErrorClass, Message, Request, Usage
from ..providers.parts import Image, Text, ToolCall, ToolResult, content_from_json, content_to_json
from . import context_window
from .charges import ASSUMED_OUTPUT
from .context_window import Entry
from .effects import CallFailedError, CallModel, Embed

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
        self._sent = 0
        self._shortened: set[str] = set()

    def compose(self, new: Sequence[Message], max_output: int, *, shorter: bool = False) -> tuple[Message, ...]:
        """The messages to send: as much of the past as fits, and what is new. A system message in `new` stands in for the conversation's own.

        `shorter`: at most half of what was sent last, for a provider that finds that too long. Raises `context_window.ContextOverflowError`,
        or UnsendableMessageError.
        """
        settings = self._history.settings
        budget = context_window.budget_of(settings.context_window, max_output)
        if shorter:
            budget = min(budget, self._sent // 2)
        window = context_window.fit(
            _system_of(new, settings.system),
            self._past,
            [_weighed(NewMessage(message.role, message.content)) for message in _spoken(new)],
            budget=budget,
            trim_at=settings.trim_at,
            trim_to=settings.trim_to,
            summary=self._summary,
        )
        self._sent = window.size
        if window.dropped:
            self._past = self._past[len(window.dropped) :]
            self._dropped += window.dropped
        return tuple(_message(entry) for entry in window.messages)

    def may_shorten(self, step: str) -> bool:
        """Whether this ask was not yet made shorter; it counts as made so from here on."""
        if step in self._shortened:
            return False
        self._shortened.add(step)
        return True

    def hear(
        self,
        new: Sequence[Message],
        sent: Sequence[Message] | None,
        completion: Completion,
        *,
        corrects: bool = False,
    ) -> None:
        """An ask was answered: both are part of the conversation from here on, if the job completes. `sent` None: not known any more.

        `corrects`: the answer takes the place of the one before, and what asked for it is not kept.
        """
        message = completion.message()
        answer = NewMessage("assistant", message.content, _answer_tokens(completion))
        if corrects and self._said:
            added = [answer]
            del self._said[-1]
            del self._past[-1]
        else:
            spoken = _spoken(new)
            tokens = _shares(spoken, sent, completion.usage)
            added = [NewMessage(one.role, one.content, count) for one, count in zip(spoken, tokens, strict=True)]
            added.append(answer)
        self._said += [one._replace(content=content_to_json(one.content)) for one in added]
        self._past += [_weighed(one) for one in added]

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
        told += [f"{entry.role}:\n{in_words(entry.content)}" for entry in self._dropped if entry.id is not None]
        return {
            "system": SUMMARY_SYSTEM,
            "prompt": "\n\n".join(told),
            "max_output": SUMMARY_OUTPUT,
            "summary_of": {"conversation": self._history.conversation_id, "covers": covers},
        }


def in_conversation(dialogue: Dialogue | None, request: Request, *, shorter: bool = False) -> Request:
    """The request with what it is to carry of the conversation; `shorter` than what was last sent.

    Raises CallFailedError where that cannot be: a retry would not heal it.
    """
    if dialogue is None:
        error = CallError(kind=ErrorClass.INVALID, message="the job is in no conversation: add it with one", sent=False)
        raise CallFailedError(error)
    try:
        messages = dialogue.compose(request.messages, request.max_output or ASSUMED_OUTPUT, shorter=shorter)
    except (context_window.ContextOverflowError, UnsendableMessageError) as problem:
        kind = ErrorClass.INVALID if isinstance(problem, UnsendableMessageError) else ErrorClass.CONTEXT
        raise CallFailedError(CallError(kind=kind, message=str(problem), sent=False)) from problem
    return replace(request, messages=messages)


def shortened(
    dialogue: Dialogue | None, effect: CallModel | Embed, request: AnyRequest, error: CallError
) -> Request | None:
    """The ask again with much less of the past, once, after a provider has found it too long; None if that is not what to do."""
    if error.kind is not ErrorClass.CONTEXT or dialogue is None:
        return None
    if not isinstance(effect, CallModel) or not effect.in_conversation or not isinstance(request, Request):
        return None
    if not dialogue.may_shorten(effect.step):
        return None
    try:
        return in_conversation(dialogue, replace(request, messages=effect.messages), shorter=True)
    except CallFailedError:
        return None


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


def _answer_tokens(completion: Completion) -> int | None:
    """What the answer takes in the prompts that follow: what was shown of it, and its reasoning where that is sent back."""
    usage = completion.usage
    if usage is None:
        return None
    return (usage.output if completion.opaque else usage.output_visible) + TOKENS_PER_MESSAGE


def _weighed(message: NewMessage, number: int | None = None) -> Entry:
    """A message as it is weighed: with the calls it makes and those it answers."""
    parts = message.content if isinstance(message.content, tuple) else ()
    return Entry(
        role=message.role,
        content=message.content,
        tokens=message.tokens,
        id=number,
        calls=tuple(part.id for part in parts if isinstance(part, ToolCall)),
        answers=tuple(part.call_id for part in parts if isinstance(part, ToolResult)),
    )


def _entry(message: LogMessage) -> Entry:
    """What the log holds. What other programs wrote there and is no message stays as it is, and is refused when it would be sent."""
    try:
        content = content_from_json(message.content)
    except ValueError:
        content = message.content
    return _weighed(NewMessage(message.role, content, message.tokens), message.id)


def _summary(message: LogMessage) -> Entry:
    """In the user's name and marked: it is made of what users said, and must not speak with the authority of the system."""
    first, last = message.content["covers"]
    text = f"[Summary of the conversation so far, messages {first} to {last}]\n{message.content['text']}"
    tokens = None if message.tokens is None else message.tokens + context_window.estimate(text.split("\n", 1)[0])
    return Entry(role="user", content=text, tokens=tokens, id=message.id)


def _message(entry: Entry) -> Message:
    if not isinstance(entry.content, str | tuple):
        raise UnsendableMessageError(
            f"message {entry.id} of the conversation is neither text nor a list of parts, which a request cannot carry"
        )
    return Message(entry.role, entry.content)


def in_words(content: Any) -> str:
    """A message in words, for the one who sums it up, and for people."""
    if not isinstance(content, tuple):
        return content if isinstance(content, str) else repr(content)
    told = []
    for part in content:
        match part:
            case Text(text):
                told.append(text)
            case Image():
                told.append("[an image]")
            case ToolCall(name=name):
                told.append(f"[calls {name} with {part.raw or json.dumps(part.arguments, ensure_ascii=False)}]")
            case ToolResult(content=result):
                told.append(f"[{'error' if part.is_error else 'result'}: {result}]")
    return "\n".join(told)
