"""The built-in job type `chat`: one answer of a model. Needs no thread; written against the effect protocol.

`data`: `{"prompt": "…"}` or `{"messages": [{"role", "content"}, …]}`, where `content` is text or a list of parts (text, image, tool_call,
tool_result, opaque); and optionally `system`, `max_output` (tokens), `temperature`, `top_p`, `stop`, `seed`, `tools`, `tool_choice`,
`parallel_tools`, `schema`, `schema_name`, `reasks`, `effort`, `cache_key`, `cache_ttl`, `extra`.

The result: `{"text", "finish", "model", "usage": {…} | null, "response_id"}`, and where there are any `tool_calls`, `opaque` (what the provider
wants back with them) and `data`, the answer as it follows the schema.
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
from .chat_data import InvalidDataError as InvalidDataError  # noqa: PLC0414 - its home for those who catch it
from .chat_data import check_pairs, reasks_of
from .chat_data import parse as parse  # noqa: PLC0414
from .dialogue import summary_said
from .effects import CallModel, Effect, KeepSummary
from .results import RESULTS, results_text
from .structured import answer_to

_RESULT = ("text", "finish", "model", "usage", "response_id")
_WHERE_PRESENT = ("tool_calls", "opaque", "data")


def chat(job: ClaimedJob) -> Generator[Effect, Any, dict[str, Any]]:
    """Make the call, return its answer."""
    call = with_results(parse(job.data), job.inputs)
    summary_of = _summary_of(job.data)
    if job.history is None:
        check_pairs(call.messages)
    else:
        call = _as_turn(call, job.data)
    completion: Completion = yield from answer_to(call, reasks=reasks_of(job.data), where="data.")
    if summary_of is not None and completion.text:
        yield KeepSummary(summary_said(*summary_of, completion))
    return result_of(completion)


def result_of(completion: Completion) -> dict[str, Any]:
    """A completion as the result of a job."""
    answer = completion.to_json()
    told = {name: answer[name] for name in _RESULT}
    return {**told, **{name: answer[name] for name in _WHERE_PRESENT if name in answer}}


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
    if roles and roles[0] not in ("user", "tool"):
        raise InvalidDataError(
            "data.messages[0].role: a turn of a conversation begins with a user's message, or the results of the calls before it"
        )
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
