"""The data of an embed job, how its texts are divided over calls, and how the answers come together."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.model import Embeddings, Usage
from callboard.actors.runner.chat import InvalidDataError
from callboard.actors.runner.embed import joined, numbers, parse, spans


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "data: expected an object, got list"),
        ({}, "data: give either input or inputs"),
        ({"input": "a", "inputs": ["a"]}, "data: give either input or inputs"),
        ({"input": "a", "model": "m"}, "data.model: unknown field"),
        ({"input": 5}, "data.input: expected text, got int"),
        ({"input": ""}, "data.input: is empty"),
        ({"inputs": "a"}, "data.inputs: expected a list"),
        ({"inputs": []}, "data.inputs: expected a list of at least one"),
        ({"inputs": ["a", None]}, "data.inputs[1]: expected text, got NoneType"),
        ({"inputs": ["a", ""]}, "data.inputs[1]: is empty"),
        ({"input": "a", "dimensions": 0}, "data.dimensions: expected a whole number"),
        ({"input": "a", "dimensions": True}, "data.dimensions: expected a whole number"),
        ({"input": "a", "extra": []}, "data.extra: expected dict"),
    ],
)
def test_a_refusal_names_the_field(data, told):
    with pytest.raises(InvalidDataError) as refused:
        parse(data)
    assert str(refused.value).startswith(told)


@given(st.lists(st.text(min_size=1, max_size=30), max_size=40), st.integers(1, 10), st.integers(1, 40))
def test_texts_are_divided_in_order_within_both_bounds(inputs, most, tokens):
    found = list(spans(inputs, most, tokens))
    assert [place for first, last in found for place in range(first, last)] == list(range(len(inputs)))
    for first, last in found:
        assert 1 <= last - first <= most
        size = sum(-(-len(text.encode("utf-8", "replace")) // 3) for text in inputs[first:last])
        assert size <= tokens or last - first == 1


def test_parts_come_together_and_usage_is_known_if_all_of_it_is():
    def part(*values, usage):
        return Embeddings(vectors=tuple(array("f", [value]) for value in values), usage=usage, model="m")

    both = joined([part(1.0, 2.0, usage=Usage(input_uncached=3)), part(3.0, usage=Usage(input_uncached=4))])
    assert [vector[0] for vector in both.vectors] == [1.0, 2.0, 3.0]
    assert both.usage == Usage(input_uncached=7)
    assert joined([both, part(4.0, usage=None)]).usage is None


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_numbers_are_short_and_exact(values):
    vector = array("f", values)
    assert array("f", numbers(vector)) == vector
    assert numbers(array("f", [0.1, 1 / 3])) == [0.1, 0.333333343]
