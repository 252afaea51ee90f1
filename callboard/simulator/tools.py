"""When the built-in model calls a tool: when it is asked to in so many words, or when the request leaves it no choice.

`call NAME {"a": 1}` in the last user message, once or more, asks for a tool that the request offers; without the object the arguments are
the smallest instance of the tool's schema. An answer to a tool's result never calls again, so that a loop of calls ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .instance import instance

_ASKED = re.compile(r"\bcall ([A-Za-z_][\w.-]*)[ \t]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Tools:
    """What a request offers: schemas of arguments by name, in their order, and how free the model is.

    `choice` is auto, none, required, or the name of the one tool to call. `parallel` False: one call at the most.
    """

    schemas: Mapping[str, Any] = field(default_factory=dict)
    choice: str = "auto"
    parallel: bool = True


def asked_calls(text: str, tools: Tools) -> tuple[tuple[str, Any], ...]:
    """Return the calls that the text asks for, as (name, arguments)."""
    if not tools.schemas or tools.choice == "none":
        return ()
    forced = tools.choice if tools.choice in tools.schemas else None
    calls: list[tuple[str, Any]] = []
    for found in _ASKED.finditer(text):
        name = found[1]
        if name in tools.schemas and forced in (None, name):
            calls.append((name, _arguments(text, found.end(), tools.schemas[name])))
    if not calls and tools.choice != "auto":
        name = forced or next(iter(tools.schemas))
        calls = [(name, _object(instance(tools.schemas[name])))]
    return tuple(calls if tools.parallel else calls[:1])


def _arguments(text: str, at: int, schema: Any) -> Any:
    if text[at : at + 1] == "{":
        try:
            return _DECODER.raw_decode(text, at)[0]
        except (ValueError, RecursionError):
            pass
    return _object(instance(schema))


def _object(value: Any) -> Any:
    return value if isinstance(value, dict) else {}
