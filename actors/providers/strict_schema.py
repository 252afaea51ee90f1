"""The part of JSON Schema that every provider's strict mode takes, and how to say a schema in it. Pure.

Common to all: objects that are closed and have all their keys, arrays, strings, numbers, integers, booleans, null, `enum`, `anyOf` and `$defs`
(reference: A.11). What cannot be said there (bounds, patterns, formats) goes into the description, where the model reads it, and is checked
afterwards by whoever asked. A key that may be left out is asked for and may be null; `without_nulls` takes such nulls out of the answer.
"""

import json
from typing import Any

_KEPT = ("type", "enum", "items", "properties", "anyOf", "$defs", "title", "description")
_TOLD = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "uniqueItems",
)
"""What is told to the model in words, because the wire has no word for it."""
_SILENT = ("$schema", "$id", "$comment", "$anchor", "default", "examples", "deprecated", "readOnly", "writeOnly")
"""What says nothing about the answer."""
_NEVER = frozenset(
    {"", "not", "if", "then", "else", "patternProperties", "prefixItems", "contains", "dependentSchemas"}
)
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_OLD, _NEW = "#/definitions/", "#/$defs/"


class _NotStrictError(Exception):
    """The schema says something that the strict subset cannot."""


def for_the_wire(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the schema as a strict mode takes it, and True; or as it is, and False, where the subset has no words for it.

    Every answer that the strict form admits is, after `without_nulls`, one that the schema admits but for its bounds, patterns and formats.
    A schema that is in the subset already comes back equal.
    """
    try:
        strict = _strict(schema)
    except (_NotStrictError, RecursionError):
        return schema, False
    return (strict, True) if strict.get("type") == "object" else (schema, False)


def wire_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema alone of `for_the_wire`, for formats that have no word for strictness."""
    return for_the_wire(schema)[0]


def without_nulls(value: Any, schema: Any) -> Any:
    """Return an answer without the nulls that stand for a key left out: those of keys that are optional and may not be null."""
    return _without(value, schema, schema)


def _strict(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise _NotStrictError
    if "$ref" in schema:
        return _reference(schema)
    if "allOf" in schema:
        return _merged(schema)
    known = {*_KEPT, *_TOLD, *_SILENT, "required", "additionalProperties", "const", "oneOf", "definitions"}
    if set(schema) - known or _NEVER & set(schema):
        raise _NotStrictError
    found: dict[str, Any] = {name: schema[name] for name in ("title", "description") if name in schema}
    _tell(schema, found)
    for name in ("$defs", "definitions"):
        if name in schema:
            found.setdefault("$defs", {}).update({key: _strict(one) for key, one in schema[name].items()})
    branches = schema.get("anyOf", schema.get("oneOf"))
    if branches is not None:
        found["anyOf"] = [_strict(branch) for branch in branches]
        return found
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        found["enum"] = list(values)
        if "type" in schema:
            found["type"] = schema["type"]
        return found
    _shape(schema, found)
    return found


def _shape(schema: dict[str, Any], found: dict[str, Any]) -> None:
    kind = schema.get("type", "object" if "properties" in schema else None)
    kinds = kind if isinstance(kind, list) else [kind]
    if not kinds or not set(kinds) <= _TYPES:
        raise _NotStrictError
    found["type"] = kind
    if "array" in kinds:
        found["items"] = _strict(schema.get("items"))
    if "object" in kinds:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or schema.get("additionalProperties", False) not in (False, True):
            raise _NotStrictError  # any keys at all, which closing it would forbid
        if schema.get("additionalProperties") is True:
            raise _NotStrictError
        required = schema.get("required", [])
        if not set(required) <= set(properties):
            raise _NotStrictError
        found["properties"] = {
            name: _strict(one) if name in required else _or_null(_strict(one)) for name, one in properties.items()
        }
        found["required"] = list(properties)
        found["additionalProperties"] = False


def _reference(schema: dict[str, Any]) -> dict[str, Any]:
    target = schema["$ref"]
    if not isinstance(target, str) or not (target == "#" or target.startswith((_OLD, _NEW))):
        raise _NotStrictError
    # Alone: providers refuse what stands beside a reference.
    told: dict[str, Any] = {"$ref": _NEW + target.removeprefix(_OLD) if target.startswith(_OLD) else target}
    for name in ("$defs", "definitions"):
        if name in schema:
            raise _NotStrictError
    return told


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """`allOf` of a single schema, which is how some libraries put a description beside a reference."""
    parts = schema["allOf"]
    beside = {name: value for name, value in schema.items() if name != "allOf"}
    if not isinstance(parts, list) or len(parts) != 1 or set(beside) - {"title", "description", *_SILENT}:
        raise _NotStrictError
    inner = _strict(parts[0])
    return inner if "$ref" in inner else {**{k: v for k, v in beside.items() if k not in _SILENT}, **inner}


def _tell(schema: dict[str, Any], found: dict[str, Any]) -> None:
    words = [f"{name}: {json.dumps(schema[name], ensure_ascii=False)}" for name in _TOLD if name in schema]
    if words:
        before = found.get("description")
        found["description"] = f"{before} ({', '.join(words)})" if before else ", ".join(words)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if _says_null(schema):
        return schema
    if "enum" in schema:
        kind = schema.get("type")
        also = {} if kind is None else {"type": [*(kind if isinstance(kind, list) else [kind]), "null"]}
        return {**schema, "enum": [*schema["enum"], None], **also}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    kind = schema["type"]
    return {**schema, "type": [*(kind if isinstance(kind, list) else [kind]), "null"]}


def _says_null(schema: dict[str, Any]) -> bool:
    """Whether a strict schema admits null in its own words, references not followed."""
    if "anyOf" in schema:
        return any(_says_null(branch) for branch in schema["anyOf"])
    if "enum" in schema:
        return None in schema["enum"]
    kind = schema.get("type")
    return kind == "null" or (isinstance(kind, list) and "null" in kind)


def _takes_null(schema: Any, root: Any) -> bool:
    """Whether null may stand there. A reference is followed as far as it can be without going round."""
    for _ in range(32):
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        schema = _target(schema["$ref"], root)
    if not isinstance(schema, dict):
        return schema is not False
    if "const" in schema:
        return schema["const"] is None
    if "enum" in schema and None not in schema["enum"]:
        return False
    branches = schema.get("anyOf", schema.get("oneOf"))
    if branches is not None and not any(_takes_null(branch, root) for branch in branches):
        return False
    if not all(_takes_null(part, root) for part in schema.get("allOf", ())):
        return False
    kind = schema.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)


def _target(reference: Any, root: Any) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return {}
    found = root
    for step in filter(None, reference.removeprefix("#").split("/")):
        key = step.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, dict) else None
    return {} if found is None else found


def _without(value: Any, schema: Any, root: Any) -> Any:
    schema = _resolved(value, schema, root)
    if isinstance(value, list):
        items = schema.get("items")
        return [_without(one, items, root) for one in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return value
    required = schema.get("required", ())
    return {
        name: _without(one, properties.get(name), root)
        for name, one in value.items()
        if one is not None or name in required or name not in properties or _takes_null(properties[name], root)
    }


def _resolved(value: Any, schema: Any, root: Any) -> dict[str, Any]:
    """The schema that speaks about this value: references followed, and of several branches the first whose keys fit."""
    for _ in range(32):
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            schema = _target(schema["$ref"], root)
            continue
        branches = schema.get("anyOf", schema.get("oneOf"))
        if branches is None and len(schema.get("allOf", ())) == 1:
            branches = schema["allOf"]
        if branches is None:
            return schema
        schema = next((branch for branch in branches if _fits(value, branch, root)), None)
    return {}


def _fits(value: Any, schema: Any, root: Any, depth: int = 0) -> bool:
    """Whether a value has the outward shape that a schema speaks of: its kind, its keys, its constants."""
    if depth > 32 or not isinstance(schema, dict):
        return schema is not False
    if "$ref" in schema:
        return _fits(value, _target(schema["$ref"], root), root, depth + 1)
    branches = schema.get("anyOf", schema.get("oneOf"))
    if branches is not None:
        return any(_fits(value, branch, root, depth + 1) for branch in branches)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return value in values
    kind = schema.get("type")
    if kind is not None and _kind_of(value) not in (kind if isinstance(kind, list) else [kind]):
        return kind == "number" and _kind_of(value) == "integer"
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return True
    if set(value) - set(properties) or set(schema.get("required", ())) - set(value):
        return False
    return all(one is None or _fits(one, properties[name], root, depth + 1) for name, one in value.items())


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"
