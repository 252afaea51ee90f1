"""The built-in job type `chat`: one model call. Needs no thread; written against the effect protocol.

`data`: `{"prompt": "…"}` or `{"messages": [{"role", "content"}, …]}`, and optionally `system`, `max_output` (tokens), `temperature`,
`top_p`, `stop`, `seed`, `extra`. The result: `{"text", "finish", "model", "usage": {…} | null, "response_id"}`.
In the text of a job that waited on others, `{results}` stands for their results: of a chat its text, of anything else JSON.
As a turn of a conversation it sends what was said before as well, and its messages and answer become part of it. `summary_of` is for the jobs
that summarise conversations.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from ...persistence.model import ClaimedJob, JobInput
from ..providers.model import Completion, Message
from ..providers.parts import Text
from .dialogue import summary_said
from .effects import CallModel, Effect, KeepSummary
from .results import RESULTS, results_text

ROLES = ("system", "user", "assistant")
_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "max_output": int,
    "temperature": (int, float),
    "top_p": (int, float),
    "stop": list,
    "seed": int,
    "extra": dict,
}


class InvalidDataError(ValueError):
    """A job's data is not what its type takes. The message names the field."""


def parse(data: Any) -> CallModel:
    """Turn a chat job's data into its call. Pure. Raises InvalidDataError, naming the field."""
    if not isinstance(data, dict):
        raise InvalidDataError(f"data: expected an object, got {type(data).__name__}")
    unknown = sorted(set(data) - {"prompt", "messages", "system", "summary_of", *_OPTIONS})
    if unknown:
        raise InvalidDataError(
            f"data.{unknown[0]}: unknown field (known: prompt, messages, system, {', '.join(_OPTIONS)})"
        )
    if ("prompt" in data) == ("messages" in data):
        raise InvalidDataError("data: give either prompt or messages")
    options: dict[str, Any] = {}
    for name, kind in _OPTIONS.items():
        value = data.get(name)
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidDataError(f"data.{name}: expected {_kind_name(kind)}, got {type(value).__name__}")
        options[name] = value
    if options.get("max_output", 1) < 1:
        raise InvalidDataError("data.max_output: expected at least 1")
    if "stop" in options:
        if not all(isinstance(word, str) for word in options["stop"]):
            raise InvalidDataError("data.stop: expected a list of strings")
        options["stop"] = tuple(options["stop"])
    return CallModel(step="chat", messages=_messages(data), **options)


def chat(job: ClaimedJob) -> Generator[Effect, Any, dict[str, Any]]:
    """Make the call, return its answer."""
    call = with_results(parse(job.data), job.inputs)
    summary_of = _summary_of(job.data)
    completion: Completion = yield call if job.history is None else _as_turn(call, job.data)
    if summary_of is not None and completion.text:
        yield KeepSummary(summary_said(*summary_of, completion))
    answer = completion.to_json()
    return {name: answer[name] for name in ("text", "finish", "model", "usage", "response_id")}


def with_results(call: CallModel, inputs: Sequence[JobInput]) -> CallModel:
    """The call with the results of what its job waited on in place of `{results}`; a job that waited on nothing means those letters."""
    if not inputs:
        return call
    text = results_text(inputs)
    return replace(call, messages=tuple(_filled(message, text) for message in call.messages))


def _filled(message: Message, results: str) -> Message:
    if isinstance(message.content, str):
        return replace(message, content=message.content.replace(RESULTS, results))
    parts = (Text(part.text.replace(RESULTS, results)) if isinstance(part, Text) else part for part in message.content)
    return replace(message, content=tuple(parts))


def _as_turn(call: CallModel, data: dict[str, Any]) -> CallModel:
    """The call as the next turn of the job's conversation. Raises InvalidDataError."""
    roles = [turn["role"] for turn in data.get("messages", ())]
    if "system" in roles:
        raise InvalidDataError(
            f"data.messages[{roles.index('system')}].role: the system text of a turn is given by data.system, or by its conversation"
        )
    if roles and roles[0] != "user":
        raise InvalidDataError("data.messages[0].role: a turn of a conversation begins with a user's message")
    return replace(call, in_conversation=True)


def _summary_of(data: dict[str, Any]) -> tuple[int, list[int]] | None:
    """What a summary is of: the conversation, and the first and last message it covers."""
    given = data.get("summary_of")
    if given is None:
        return None
    match given:
        case {"conversation": int(conversation), "covers": [int(first), int(last)]}:
            return conversation, [first, last]
    raise InvalidDataError("data.summary_of: expected a conversation's id and the first and last message covered")


def _messages(data: dict[str, Any]) -> tuple[Message, ...]:
    system = data.get("system")
    if system is not None and not isinstance(system, str):
        raise InvalidDataError(f"data.system: expected text, got {type(system).__name__}")
    first = (Message("system", system),) if system is not None else ()
    if "prompt" in data:
        if not isinstance(data["prompt"], str):
            raise InvalidDataError(f"data.prompt: expected text, got {type(data['prompt']).__name__}")
        return (*first, Message("user", data["prompt"]))
    turns = data["messages"]
    if not isinstance(turns, list) or not turns:
        raise InvalidDataError("data.messages: expected a list of at least one message")
    return (*first, *(_message(index, turn) for index, turn in enumerate(turns)))


def _message(index: int, turn: Any) -> Message:
    where = f"data.messages[{index}]"
    if not isinstance(turn, dict):
        raise InvalidDataError(f"{where}: expected an object with role and content")
    if turn.get("role") not in ROLES:
        raise InvalidDataError(f"{where}.role: expected one of {', '.join(ROLES)}, got {turn.get('role')!r}")
    if not isinstance(turn.get("content"), str):
        raise InvalidDataError(f"{where}.content: expected text")
    return Message(turn["role"], turn["content"])


def _kind_name(kind: type | tuple[type, ...]) -> str:
    return " or ".join(k.__name__ for k in kind) if isinstance(kind, tuple) else kind.__name__
