"""Functions that a model may ask for, and the rounds of asking, calling and answering. No thread, no I/O of its own.

A round is one call of the model; every function it asks for is called once in the life of the job, its result kept as a step. So a crash repeats
neither: the rounds come back from the ledger, the results from their steps.
"""

import inspect
import json
import types
import typing
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Union

from ..providers.keys import redact
from ..providers.model import CallError, Completion, ErrorClass, Message, Tool
from ..providers.parts import ToolCall, ToolResult
from .chat_data import tools_of
from .effects import CallFailedError, CallModel, Effect
from .structured import answer_to

Function = Callable[..., Any]
Tools = Mapping[str, Function | tuple[Tool, Function]]
"""Name → function; or a `Tool` beside it, where what its signature says is not enough."""

MAX_ROUNDS = 8
MAX_RESULT = 200_000
"""Characters of a result that the model is told; the rest would be a context of its own."""
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


@dataclass(frozen=True, slots=True)
class CallFunction:
    """What whoever drives the rounds is to do: call a function once in the life of the job, under the name of a step. Results in its value."""

    step: str
    function: Function
    arguments: dict[str, Any]


def rounds(
    call: CallModel, tools: Tools, *, max_rounds: int, reasks: int
) -> Generator[Effect | CallFunction, Any, Completion]:
    """Ask, call what is asked for, tell, and so on until the model answers without asking for more.

    An unknown function, arguments that are no object, and a function that raises are told to the model as failures. Raises CallFailedError
    when it still asks after `max_rounds` calls.
    """
    known = {
        name: given if isinstance(given, tuple) else (tool_of(name, given), given) for name, given in tools.items()
    }
    call = replace(call, tools=tuple(tools_of([tool for tool, _ in known.values()], "tools")))
    system = tuple(message for message in call.messages if message.role == "system")
    asked = call
    for number in range(1, max_rounds + 1):
        step = f"{call.step}/{number}"
        completion = yield from answer_to(replace(asked, step=step), reasks=reasks)
        if not completion.tool_calls:
            return completion
        results = []
        for place, wanted in enumerate(completion.tool_calls, 1):
            results.append((yield from _result(wanted, known, f"{step}:{place}-{wanted.name}")))
        told = Message("tool", tuple(results))
        if call.in_conversation:
            asked = replace(asked, messages=(*system, told))
        else:
            asked = replace(asked, messages=(*asked.messages, completion.message(), told))
        if asked.tool_choice not in (None, "auto", "none"):
            asked = replace(asked, tool_choice="auto")  # once it was made to call, it may come to an end
    raise CallFailedError(
        CallError(
            kind=ErrorClass.INVALID,
            code="tool_rounds",
            message=f"the model still asks for functions after {max_rounds} calls: raise max_rounds, or tell it when to stop",
            sent=False,
        )
    )


def _result(
    wanted: ToolCall, known: Mapping[str, tuple[Tool, Function]], step: str
) -> Generator[CallFunction, Any, ToolResult]:
    problem = None
    if wanted.name not in known:
        problem = f"there is no function {wanted.name!r:.100}; the functions are {', '.join(known)}"
    elif wanted.raw is not None:
        problem = "the arguments are not a JSON object"
    if problem is not None:
        return ToolResult(call_id=wanted.id, name=wanted.name, content=problem, is_error=True)
    kept = yield CallFunction(step, known[wanted.name][1], wanted.arguments)
    failed = "error" in kept
    content = kept["error"] if failed else as_told(kept["value"])
    return ToolResult(call_id=wanted.id, name=wanted.name, content=content, is_error=failed)


def outcome_of(value: Any) -> dict[str, Any]:
    """What is kept of a function that returned."""
    return {"value": value}


def failure_of(error: Exception) -> dict[str, Any]:
    """What is kept of a function that raised: its type and its redacted message, which the model is told."""
    return {"error": f"{type(error).__name__}: {redact(str(error))}"[:2000]}


def as_told(value: Any) -> str:
    """A function's result as the model is told it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_RESULT else f"{text[:MAX_RESULT]}\n[cut: {len(text)} characters]"


def tool_of(name: str, function: Function) -> Tool:
    """A function as a tool: its docstring says what it is for, its signature what it takes.

    Types it knows: str, int, float, bool, None, list, dict, Literal and unions of these. Raises TypeError for others, and for
    parameters without a type: give a `Tool` beside the function then.
    """
    hints = typing.get_type_hints(function)
    properties: dict[str, Any] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"tool {name!r}: parameter {parameter.name!r} cannot be given by name")
        if parameter.name not in hints:
            raise TypeError(
                f"tool {name!r}: parameter {parameter.name!r} has no type; give it one, or a Tool beside the function"
            )
        try:
            properties[parameter.name] = _schema_of(hints[parameter.name])
        except TypeError as error:
            raise TypeError(f"tool {name!r}: parameter {parameter.name!r}: {error}") from None
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return Tool(name=name, description=inspect.getdoc(function) or "", parameters=schema)


def _schema_of(hint: Any) -> dict[str, Any]:
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if hint in (list, dict):
        return {"type": "array" if hint is list else "object"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema_of(one) for one in inner]}
    if origin is list:
        return {"type": "array", "items": _schema_of(inner[0])}
    if origin is dict and inner[0] is str:
        return {"type": "object", "additionalProperties": _schema_of(inner[1])}
    raise TypeError(f"{hint!r} has no JSON form that is known here; give a Tool beside the function")
