"""An answer that must follow a JSON Schema: read, checked here, and asked for again, a bounded number of times, when it does not follow it.

A provider's strict mode is a help and no proof: bounds are not sent to it, some servers have none, and an answer may be cut short. So what
counts is checked locally. Every asking again is a step of its own: paid for, in the ledger, and never repeated after a crash.
The check needs the extra `schema` (jsonschema), which is loaded with the first schema that is used.
"""

import json
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ..providers.model import Billed, CallError, Completion, ErrorClass, Finish, Message
from ..providers.strict_schema import without_nulls
from .chat_data import MAX_REASKS, InvalidDataError
from .effects import CallFailedError, CallModel, Effect

Check = Callable[[Any], str | None]
"""Says in a sentence what is wrong with a value; None if nothing is."""

MISSING = (
    "schema: checking an answer needs the extra `schema`, which is not installed here: pip install 'callboard[schema]'"
)
NOT_FOLLOWED = "schema"
"""The `code` of the error of an answer that did not follow its schema to the last."""
_RESULTS = frozenset({Finish.REFUSAL, Finish.FILTER, Finish.PAUSE})
"""Ends that are the model's or the provider's word, not an attempt at the answer."""
_CUT = {
    Finish.LENGTH: "its output limit ended it: raise max_output",
    Finish.CONTEXT: "the model's context window was full: shorten the prompt",
}
_SENTENCE = 500
_PLACES = 200
"""How many places of a text are looked at for JSON: beyond that it is not an answer with something around it."""


def answer_to(call: CallModel, *, reasks: int = MAX_REASKS, where: str = "") -> Generator[Effect, Any, Completion]:
    """Make the call; with a schema, until the answer follows it. The completion's `data` is the answer as a value.

    A refusal, a filtered answer and calls of tools are results as they are, without `data`. Raises InvalidDataError, its message beginning
    with `where`, for what is no schema; CallFailedError (`malformed`) when the last answer does not follow it either.
    """
    if call.schema is None:
        completion: Completion = yield call
        return completion
    try:
        check = checker(json.dumps(call.schema, sort_keys=True))
    except (TypeError, ValueError, RecursionError) as problem:
        raise InvalidDataError(f"{where}{problem}") from None
    asked = call
    for number in range(1, reasks + 2):
        completion = yield asked
        if completion.finish in _RESULTS or completion.tool_calls:
            return completion
        value, problem_text = read_answer(completion.text, call.schema, check)
        if problem_text is None:
            return replace(completion, data=value)
        if completion.finish in _CUT:
            raise _failed(f"the answer is not whole: {_CUT[completion.finish]}", completion)
        asked = _again(call, asked, completion, problem_text, number)
    raise _failed(f"the answer does not follow its schema after {reasks + 1} attempts: {problem_text}", completion)


def read_answer(text: str, schema: dict[str, Any], check: Check) -> tuple[Any, str | None]:
    """The value in an answer and None, or None and what is wrong with it."""
    found = json_values(text)
    if len(found) != 1:
        return None, "it is not JSON" if not found else "it holds more than one JSON value"
    problem = check(found[0])
    if problem is None:
        return found[0], None
    # What a strict mode made of keys that may be left out.
    shorter = without_nulls(found[0], schema)
    return (shorter, None) if shorter != found[0] and check(shorter) is None else (None, problem)


def json_values(text: str) -> list[Any]:
    """The JSON value that a text is; else those in its fenced blocks; else the objects and arrays in it, the outermost ones."""
    try:
        return [_load(text)]
    except (ValueError, RecursionError):
        pass
    blocks = text.split("```")[1::2]
    found = []
    for block in blocks:
        tag, newline, rest = block.partition("\n")
        try:
            found.append(_load(rest if newline and tag.strip().isalnum() else block))
        except (ValueError, RecursionError):
            continue
    return found or _embedded(text)


def _embedded(text: str) -> list[Any]:
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    found: list[Any] = []
    place = tries = 0
    while tries < _PLACES:
        starts = [at for at in (text.find("{", place), text.find("[", place)) if at >= 0]
        if not starts:
            return found
        tries += 1
        try:
            value, place = decoder.raw_decode(text, min(starts))
            found.append(value)
        except (ValueError, RecursionError):
            place = min(starts) + 1
    return []


def _load(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@lru_cache(maxsize=16)
def checker(schema_text: str) -> Check:
    """The check of a schema, given as JSON text. Raises ValueError, its message beginning with `schema`.

    Nothing is ever fetched: a reference that leads out of the schema is refused.
    """
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError, best_match
        from jsonschema.validators import validator_for
        from jsonschema_specifications import REGISTRY
        from referencing.exceptions import Unresolvable
    except ImportError:
        raise InvalidDataError(MISSING) from None
    schema = json.loads(schema_text)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise InvalidDataError(f"schema{error.json_path[1:]}: is not a JSON Schema: {error.message:.300}") from None
    _refuse_outward(schema)
    validator = kind(schema, registry=REGISTRY)

    def check(value: Any) -> str | None:
        try:
            error = best_match(validator.iter_errors(value))
        except Unresolvable as problem:
            raise InvalidDataError(f"schema: a reference leads nowhere: {problem}") from None
        except RecursionError:
            return "it is nested too deeply"
        if error is None:
            return None
        return f"{error.json_path}: {error.message}"[:_SENTENCE]

    return check


def _refuse_outward(schema: Any) -> None:
    if isinstance(schema, dict):
        for name in ("$ref", "$dynamicRef"):
            target = schema.get(name)
            if isinstance(target, str) and not target.startswith("#"):
                raise InvalidDataError(
                    f"schema: {name} {target!r:.100} leads out of it; only # references are followed"
                )
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _refuse_outward(inner)


def _again(first: CallModel, asked: CallModel, answer: Completion, problem: str, number: int) -> CallModel:
    told = Message(
        "user",
        f"That answer is not valid: {problem}. Answer again with JSON that follows the schema, and nothing else.",
    )
    step = f"{first.step}/again-{number}"
    if first.in_conversation:
        system = tuple(message for message in first.messages if message.role == "system")
        return replace(first, step=step, messages=(*system, told), corrects=True)
    return replace(first, step=step, messages=(*asked.messages, answer.message(), told))


def _failed(message: str, completion: Completion) -> CallFailedError:
    return CallFailedError(
        CallError(
            kind=ErrorClass.MALFORMED,
            message=message,
            code=NOT_FOLLOWED,
            billed=Billed.YES,
            request_id=completion.request_id,
            partial=completion.text,
        )
    )
