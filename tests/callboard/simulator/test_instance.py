"""What the built-in model says when it is asked for more than an extract: instances of schemas, calls of tools, vectors."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.simulator.instance import instance
from callboard.simulator.tools import Tools, asked_calls
from callboard.simulator.vectors import DIMENSIONS, embed

NODE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["name"],
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "null"}, "b": {}}, "required": ["a"]}, {"a": None}),
        ({"properties": {}}, {}),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"items": {}}, []),
        ({"type": "string"}, "x"),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": "string", "maxLength": 0}, ""),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "minimum": 4, "multipleOf": 5}, 5),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "number", "exclusiveMaximum": 0}, -1),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 7}, 7),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"oneOf": [{"type": "integer"}]}, 0),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {}}]}, {"a": 1}),
        ({"type": ["null", "string"]}, "x"),
        (NODE, {"name": "x"}),
        ({"$ref": "#/nowhere"}, None),
        ({"$ref": "#"}, None),
        (True, None),
        ("x", None),
    ],
)
def test_instances(schema, value):
    assert instance(schema) == value


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "properties",
                        "items",
                        "required",
                        "enum",
                        "anyOf",
                        "allOf",
                        "$ref",
                        "minItems",
                        "multipleOf",
                        "minimum",
                    ]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=10,
    )
)
def test_no_schema_raises(schema):
    instance(schema)


TOOLS = {"add": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, "now": None}


@pytest.mark.parametrize(
    ("text", "tools", "calls"),
    [
        ("call add", Tools(TOOLS), [("add", {"a": 0})]),
        ('call add {"a": 5} please', Tools(TOOLS), [("add", {"a": 5})]),
        ('call add {"a": 5}, then call now', Tools(TOOLS), [("add", {"a": 5}), ("now", {})]),
        ('call add {"a": 5}, then call now', Tools(TOOLS, parallel=False), [("add", {"a": 5})]),
        ("call add {broken", Tools(TOOLS), [("add", {"a": 0})]),
        ("call subtract", Tools(TOOLS), []),
        ("recall add", Tools(TOOLS), []),
        ("nothing", Tools(TOOLS), []),
        ("call add", Tools(), []),
        ("call add", Tools(TOOLS, "none"), []),
        ("nothing", Tools(TOOLS, "required"), [("add", {"a": 0})]),
        ("nothing", Tools(TOOLS, "now"), [("now", {})]),
        ("call add", Tools(TOOLS, "now"), [("now", {})]),
    ],
)
def test_calls(text, tools, calls):
    assert list(asked_calls(text, tools)) == calls


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_texts_that_share_words_are_near():
    rain, storm, bread = embed("rain and wind"), embed("Wind, rain and hail!"), embed("flour water salt")
    assert dot(rain, storm) > 0.5 > dot(rain, bread)
    assert embed("rain and wind") == rain


@given(st.text(max_size=40), st.integers(1, 80))
def test_every_vector_has_length_one(text, dimensions):
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.isclose(dot(vector, vector), 1.0)
    assert len(embed(text)) == DIMENSIONS
