"""The smallest instance of a JSON Schema: what the built-in model says when an answer must follow one, and calls a tool with.

Only what is required is there, each value the first or least that the schema allows, so that it is the same every time. The keywords are
those of the subset that providers take (docs/providers.md) and the bounds next to them; `pattern` and `format` are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_DEPTH = 32
"""Deeper than this a schema can only be one that requires itself, which has no instance; the value is null then."""


def instance(schema: Any) -> Any:
    """Return the smallest instance of a schema. Never raises: what it cannot make sense of is null."""
    return _instance(schema, schema, 0)


def _instance(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return None
    if isinstance(schema.get("$ref"), str):
        return _instance(_found(root, schema["$ref"]), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            return _instance(schema[name][0], root, depth + 1)
    if isinstance(schema.get("allOf"), list):
        parts = [_instance(part, root, depth + 1) for part in schema["allOf"]]
        objects = [part for part in parts if isinstance(part, dict)]
        return {name: value for part in objects for name, value in part.items()} or (parts[0] if parts else None)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else None
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        return [_instance(schema.get("items"), root, depth + 1) for _ in range(_least(schema, "minItems"))]
    if kind == "string":
        return "x" * max(_least(schema, "minLength"), 1 if schema.get("maxLength") != 0 else 0)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    return False if kind == "boolean" else None


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties, required = schema.get("properties"), schema.get("required")
    properties = properties if isinstance(properties, Mapping) else {}
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    return {name: _instance(properties.get(name), root, depth + 1) for name in names}


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    low, above = _bound(schema, "minimum"), _bound(schema, "exclusiveMinimum")
    high, below = _bound(schema, "maximum"), _bound(schema, "exclusiveMaximum")
    step = _bound(schema, "multipleOf") or 1
    value: int | float = 0
    for bound, outside in ((low, False), (above, True)):
        if bound is not None and (value < bound or (outside and value <= bound)):
            value = math.ceil(bound / step) * step
            if outside and value <= bound:
                value += step
    for bound, outside in ((high, False), (below, True)):
        if bound is not None and (value > bound or (outside and value >= bound)):
            value = math.floor(bound / step) * step
            if outside and value >= bound:
                value -= step
    return int(value) if whole else value


def _bound(schema: Mapping[str, Any], name: str) -> int | float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 else None


def _least(schema: Mapping[str, Any], name: str) -> int:
    return min(max(int(_bound(schema, name) or 0), 0), 1000)


def _found(root: Any, reference: str) -> Any:
    """Return what a reference inside the document points at (`#`, `#/$defs/name`)."""
    found = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found
