"""What a strict mode is sent: within the common subset, narrower than the schema by nothing but what `without_nulls` takes back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from callboard.actors.providers.strict_schema import for_the_wire, wire_schema, without_nulls

ALLOWED = {"type", "enum", "items", "properties", "required", "additionalProperties", "anyOf", "$defs", "$ref"}
WORDS = {"title", "description"}
NAMES = st.sampled_from(["a", "b", "c", "d"])
SCALARS = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 2, "pattern": "^a"},
        {"type": "integer", "minimum": 3, "description": "How many"},
        {"type": "number", "exclusiveMaximum": 2.5},
        {"type": "boolean", "default": True},
        {"type": ["string", "null"]},
        {"type": "null"},
        {"enum": ["x", "y"]},
        {"enum": ["x", None]},
        {"const": "k"},
        {"const": 1, "type": "integer"},
        {"$ref": "#/$defs/leaf"},
        {"$ref": "#/$defs/leaf", "description": "beside"},
        {"allOf": [{"$ref": "#/$defs/leaf"}], "description": "as some libraries write it"},
    ]
)


@st.composite
def objects(draw, inner):
    properties = draw(st.dictionaries(NAMES, inner, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    found = {"type": "object", "properties": properties}
    if required or draw(st.booleans()):
        found["required"] = required
    if draw(st.booleans()):
        found["additionalProperties"] = False
    return found


INNER = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        objects(inner),
        inner.map(lambda one: {"type": "array", "items": one, "maxItems": 2}),
        # Branches of different kinds, as a reader could tell them apart.
        inner.filter(lambda one: one.get("type") in ("string", "object", "array")).map(
            lambda one: {"anyOf": [one, {"type": "integer"}]}
        ),
    ),
    max_leaves=6,
)
DEFS = {"leaf": {"type": "object", "properties": {"v": {"type": "integer", "minimum": 0}, "w": {"type": "string"}}, "required": ["v"]}}  # fmt: skip
SCHEMAS = objects(INNER).map(lambda found: {**found, "$defs": DEFS})


def nodes(schema):
    yield schema
    for name in ("properties", "$defs"):
        for one in schema.get(name, {}).values():
            yield from nodes(one)
    for one in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]:
        yield from nodes(one)


@st.composite
def instances(draw, schema, root):
    """A value that the strict schema admits."""
    if "$ref" in schema:
        found = root
        for step in schema["$ref"].split("/")[1:]:
            found = found[step]
        return draw(instances(found, root))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    if "anyOf" in schema:
        return draw(instances(draw(st.sampled_from(schema["anyOf"])), root))
    kind = schema["type"]
    match draw(st.sampled_from(kind)) if isinstance(kind, list) else kind:
        case "object":
            return {name: draw(instances(one, root)) for name, one in schema["properties"].items()}
        case "array":
            return draw(st.lists(instances(schema["items"], root), max_size=2))
        case "string":
            return draw(st.text(max_size=3))
        case "integer":
            return draw(st.integers(-5, 5))
        case "number":
            return draw(st.floats(-5, 5))
        case "boolean":
            return draw(st.booleans())
    return None


def unbounded(schema):
    """The schema without what the wire has no words for."""
    if isinstance(schema, dict):
        gone = ("minLength", "pattern", "minimum", "exclusiveMaximum", "maxItems")
        return {name: unbounded(one) for name, one in schema.items() if name not in gone}
    return [unbounded(one) for one in schema] if isinstance(schema, list) else schema


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, st.data())
def test_every_schema_of_ours_can_be_said_and_says_the_same(schema, data):
    strict, is_strict = for_the_wire(schema)
    assert is_strict
    for node in nodes(strict):
        assert set(node) <= ALLOWED | WORDS
        assert "$ref" not in node or set(node) == {"$ref"}
        if node.get("type") == "object" or "properties" in node:
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
    assert for_the_wire(strict) == (strict, True), "what is in the subset comes back equal"
    answer = data.draw(instances(strict, strict))
    Draft202012Validator(strict).validate(answer)
    Draft202012Validator(unbounded(schema)).validate(without_nulls(answer, schema))


def test_bounds_are_told_in_words():
    strict = wire_schema({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 5}}})
    assert strict["properties"]["n"] == {"type": ["integer", "null"], "description": "minimum: 1, maximum: 5"}
    described = wire_schema(
        {"type": "object", "properties": {"n": {"type": "string", "format": "date", "description": "When"}}}
    )
    assert described["properties"]["n"]["description"] == 'When (format: "date")'


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"x": True}},
        {"type": "object", "properties": {"x": {"type": "object", "patternProperties": {"a": {}}}}},
        {"type": "object", "properties": {"x": {"not": {"type": "null"}}}},
        {"type": "object", "properties": {"x": {"$ref": "other.json"}}},
        {"type": "object", "properties": {"x": {"allOf": [{"type": "string"}, {"minLength": 2}]}}},
        {"type": "object", "properties": {"x": {"type": "array"}}},
        {"type": "object", "properties": {}, "required": ["y"]},
    ],
)
def test_what_the_subset_cannot_say_goes_as_it_is(schema):
    assert for_the_wire(schema) == (schema, False)


def test_old_names_and_recursion():
    schema = {
        "type": "object",
        "properties": {"next": {"$ref": "#"}, "leaf": {"$ref": "#/definitions/leaf"}},
        "required": ["leaf"],
        "definitions": {"leaf": {"oneOf": [{"type": "string"}, {"type": "null"}]}},
    }
    strict, is_strict = for_the_wire(schema)
    assert is_strict
    assert strict["properties"] == {
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        "leaf": {"$ref": "#/$defs/leaf"},
    }
    assert strict["$defs"] == {"leaf": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
    answer = {"next": {"next": None, "leaf": None}, "leaf": "x"}
    assert without_nulls(answer, schema) == {"next": {"leaf": None}, "leaf": "x"}


def test_a_null_that_the_schema_itself_admits_stays():
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "string"}}}
    assert without_nulls({"a": None, "b": None}, schema) == {"a": None}
