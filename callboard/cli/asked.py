"""What `--image`, `--schema` and `--effort` say of a chat, as fields of its data."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import click

from .errors import InputError

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_TYPES = {
    "str": "string",
    "string": "string",
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "bool": "boolean",
    "boolean": "boolean",
}
_SHORT = "for example 'label good|bad, confidence float: from 0 to 1', a .json file, or JSON"

schema_option = click.option(
    "--schema",
    metavar="FILE|FIELDS",
    help="The answer is JSON that follows this: a JSON Schema's file, or fields as in 'label, confidence float'.",
)
effort_option = click.option("--effort", type=click.Choice(EFFORTS), help="How much the model is to reason.")


def chat_fields(schema: str | None, effort: str | None) -> dict[str, Any]:
    """Return the fields that these options add to a chat's data. Raises InputError."""
    fields: dict[str, Any] = {} if schema is None else {"schema": read_schema(schema)}
    return fields if effort is None else {**fields, "effort": effort}


def with_images(prompt: str, images: tuple[str, ...]) -> dict[str, Any]:
    """Return a prompt and its images, files or https addresses, as a chat's data. Raises InputError."""
    parts = [{"type": "text", "text": prompt}, *(_image(given) for given in images)]
    return {"messages": [{"role": "user", "content": parts}]}


def read_schema(given: str) -> dict[str, Any]:
    """Return a JSON Schema: JSON, a file of it (`@` may stand before its name), or fields in short. Raises InputError."""
    text = given.strip()
    if text.startswith("{"):
        return _checked(_parsed(text, "--schema"))
    if text.startswith("@") or text.endswith(".json"):
        name = text.removeprefix("@")
        try:
            return _checked(_parsed(Path(name).read_text(encoding="utf-8-sig"), name))
        except OSError as error:
            raise InputError(f"--schema: {name} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"--schema: {name} is not UTF-8 text") from error
    return _checked(short_schema(text))


def short_schema(text: str) -> dict[str, Any]:
    """Return the schema of fields in short: `name`, `name type` or `name a|b|c`, each with `: what it is` if wanted, commas between."""
    properties: dict[str, Any] = {}
    for field in text.split(","):
        said, _, meaning = field.partition(":")
        name, _, kind = said.strip().partition(" ")
        kind = kind.strip()
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InputError(f"--schema: {field.strip()!r} is no field", _SHORT)
        if name in properties:
            raise InputError(f"--schema: field {name!r} is there twice")
        if "|" in kind:
            properties[name] = {"enum": [value.strip() for value in kind.split("|")]}
        elif kind in ("", *_TYPES):
            properties[name] = {"type": _TYPES[kind or "str"]}
        else:
            raise InputError(f"--schema: {kind!r} is no type (known: str, int, float, bool, and a|b|c)", _SHORT)
        if meaning.strip():
            properties[name]["description"] = meaning.strip()
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: malformed JSON: {error.msg} at line {error.lineno} column {error.colno}", _SHORT
        ) from error


def _checked(schema: Any) -> dict[str, Any]:
    from callboard.actors.runner.chat_data import InvalidDataError
    from callboard.actors.runner.structured import checker

    if not isinstance(schema, dict):
        raise InputError("--schema: a JSON Schema is an object", _SHORT)
    try:
        checker(json.dumps(schema, sort_keys=True))
    except InvalidDataError as error:
        raise InputError(f"--{error}") from None
    return schema


def _image(given: str) -> dict[str, Any]:
    if given.startswith("https://"):
        return {"type": "image", "url": given}
    if given.startswith("http://"):
        raise InputError(f"--image: {given} is no https address; providers fetch no other")
    try:
        data = Path(given).read_bytes()
    except OSError as error:
        raise InputError(f"--image: {given} cannot be read: {error.strerror}") from error
    kind = next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise InputError(f"--image: {given} is neither PNG, JPEG, GIF nor WebP")
    image = {"type": "image", "data": base64.b64encode(data).decode("ascii"), "media_type": kind}

    from callboard.actors.providers.parts import part_from_json

    try:
        part_from_json(image)
    except ValueError as error:
        raise InputError(f"--image: {given}{error}") from None
    return image
