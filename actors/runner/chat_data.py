"""The data of a `chat` job, checked: what it asks as a call of a model. Every error names the place, as `data.messages[2].content[0].type`. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..providers.model import Message, Tool
from ..providers.parts import ROLES, Image, Opaque, Part, Text, ToolCall, ToolResult, content_from_json
from .effects import CallModel

MAX_REASKS = 2
"""How often an answer that does not follow its schema is asked for again, at most, and unless the data says less."""
_OPTIONS: dict[str, type | tuple[type, ...]] = {
    "max_output": int,
    "temperature": (int, float),
    "top_p": (int, float),
    "stop": list,
    "seed": int,
    "tools": list,
    "tool_choice": str,
    "parallel_tools": bool,
    "schema": dict,
    "schema_name": str,
    "effort": str,
    "cache_key": str,
    "cache_ttl": str,
    "extra": dict,
}
_ONE_OF = {"effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max"), "cache_ttl": ("5m", "1h")}
_OTHERS = ("prompt", "messages", "system", "summary_of", "reasks")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TOOL_FIELDS: dict[str, type] = {"name": str, "description": str, "parameters": dict, "strict": bool}
_PLACES: dict[str, tuple[type[Part], ...]] = {
    "system": (Text,),
    "user": (Text, Image),
    "assistant": (Text, ToolCall, Opaque),
    "tool": (ToolResult,),
}
"""What a message of each role may hold."""


class InvalidDataError(ValueError):
    """A job's data is not what its type takes. The message names the field."""


def parse(data: Any) -> CallModel:
    """Turn a chat job's data into its call. Raises InvalidDataError, naming the field."""
    if not isinstance(data, dict):
        raise InvalidDataError(f"data: expected an object, got {type(data).__name__}")
    unknown = sorted(set(data) - {*_OTHERS, *_OPTIONS})
    if unknown:
        raise InvalidDataError(
            f"data.{unknown[0]}: unknown field (known: prompt, messages, system, {', '.join(_OPTIONS)}, reasks)"
        )
    if ("prompt" in data) == ("messages" in data):
        raise InvalidDataError("data: give either prompt or messages")
    options = options_of(data, "data.")
    reasks_of(data)
    return CallModel(step="chat", messages=_messages(data), **options)


def options_of(given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The options of a call among what is given, each of its kind; None is as not given. `where` begins the name of a field in an error."""
    options: dict[str, Any] = {}
    for name, kind in _OPTIONS.items():
        value = given.get(name)
        if value is None:
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InvalidDataError(f"{where}{name}: expected {_kind_name(kind)}, got {type(value).__name__}")
        options[name] = value
    if options.get("max_output", 1) < 1:
        raise InvalidDataError(f"{where}max_output: expected at least 1")
    for name, values in _ONE_OF.items():
        if name in options and options[name] not in values:
            raise InvalidDataError(f"{where}{name}: expected one of {', '.join(values)}, got {options[name]!r:.60}")
    if "stop" in options:
        if not all(isinstance(word, str) for word in options["stop"]):
            raise InvalidDataError(f"{where}stop: expected a list of strings")
        options["stop"] = tuple(options["stop"])
    if not _NAME.fullmatch(options.get("schema_name", "answer")):
        raise InvalidDataError(f"{where}schema_name: expected 1 to 64 letters, digits, _ or -")
    if "tools" in options:
        options["tools"] = tuple(tools_of(options["tools"], f"{where}tools"))
    choice, names = options.get("tool_choice"), [tool.name for tool in options.get("tools", ())]
    if choice is not None and choice not in ("auto", "none", "required", *names):
        known = ", ".join(["auto", "none", "required", *names])
        raise InvalidDataError(f"{where}tool_choice: expected one of {known}, got {choice!r:.100}")
    return options


def reasks_of(data: Mapping[str, Any]) -> int:
    """How often an answer that does not follow its schema is asked for again. Raises InvalidDataError."""
    reasks = data.get("reasks")
    if reasks is None:
        return MAX_REASKS
    if not isinstance(reasks, int) or isinstance(reasks, bool) or not 0 <= reasks <= MAX_REASKS:
        raise InvalidDataError(f"data.reasks: expected a whole number from 0 to {MAX_REASKS}, got {reasks!r:.60}")
    return reasks


def tools_of(given: Iterable[Any], where: str) -> list[Tool]:
    """Tools as they are, or as objects with the fields of one. Raises InvalidDataError."""
    tools: list[Tool] = []
    for index, tool in enumerate(given):
        at = f"{where}[{index}]"
        if not isinstance(tool, Tool):
            tool = _tool(tool, at)  # noqa: PLW2901 - the same tool, read
        if not _NAME.fullmatch(tool.name):
            raise InvalidDataError(f"{at}.name: expected 1 to 64 letters, digits, _ or -, got {tool.name!r:.100}")
        if any(tool.name == other.name for other in tools):
            raise InvalidDataError(f"{at}.name: {tool.name!r} is there twice")
        tools.append(tool)
    return tools


def check_pairs(messages: Iterable[Message]) -> None:
    """Every call has its result before the next turn, and every result its call; no provider takes others. Raises InvalidDataError."""
    open_calls: dict[str, str] = {}
    # A system text of its own is put before the messages of the data.
    for index, message in enumerate(message for message in messages if message.role != "system"):
        where = f"message {index} (counted without the system's)"
        if message.role != "tool" and open_calls:
            raise InvalidDataError(f"data.messages: {next(iter(open_calls.values()))} has no result before {where}")
        for result in message.tool_results:
            if open_calls.pop(result.call_id, None) is None:
                raise InvalidDataError(
                    f"data.messages: {where} has a result for {result.call_id!r}, which nothing before it calls"
                )
        open_calls |= {call.id: f"call {call.id!r} of {call.name!r}" for call in message.tool_calls}
    if open_calls:
        raise InvalidDataError(f"data.messages: {next(iter(open_calls.values()))} has no result")


def _tool(given: Any, where: str) -> Tool:
    if not isinstance(given, Mapping):
        raise InvalidDataError(f"{where}: expected an object with a name, got {type(given).__name__}")
    for name, value in given.items():
        if name not in _TOOL_FIELDS:
            raise InvalidDataError(f"{where}.{name}: unknown field (known: {', '.join(_TOOL_FIELDS)})")
        if not isinstance(value, _TOOL_FIELDS[name]):
            raise InvalidDataError(
                f"{where}.{name}: expected {_kind_name(_TOOL_FIELDS[name])}, got {type(value).__name__}"
            )
    if "name" not in given:
        raise InvalidDataError(f"{where}.name: a tool needs one")
    return Tool(**given)


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
    return (*first, *(message_of(turn, f"data.messages[{index}]") for index, turn in enumerate(turns)))


def message_of(turn: Any, where: str) -> Message:
    """A message from its JSON form. Raises InvalidDataError."""
    if not isinstance(turn, Mapping):
        raise InvalidDataError(f"{where}: expected an object with role and content")
    role = turn.get("role")
    if role not in ROLES:
        raise InvalidDataError(f"{where}.role: expected one of {', '.join(ROLES)}, got {role!r:.60}")
    try:
        content = content_from_json(turn.get("content"))
    except ValueError as error:
        told = str(error)
        raise InvalidDataError(f"{where}.content{told if told.startswith('[') else f': {told}'}") from None
    parts = (Text(content),) if isinstance(content, str) else content
    for index, part in enumerate(parts):
        if not isinstance(part, _PLACES[role]):
            at = f"{where}.content" if isinstance(content, str) else f"{where}.content[{index}].type"
            known = ", ".join(_part_name(kind) for kind in _PLACES[role])
            raise InvalidDataError(f"{at}: the role {role} holds {known}, not {_part_name(type(part))}")
    return Message(role, content)


def _part_name(kind: type[Part]) -> str:
    return {Text: "text", Image: "image", ToolCall: "tool_call", ToolResult: "tool_result", Opaque: "opaque"}[kind]


def _kind_name(kind: type | tuple[type, ...]) -> str:
    return " or ".join(k.__name__ for k in kind) if isinstance(kind, tuple) else kind.__name__
