"""The data of a chat job: what is taken, and which field is named in a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.model import Message
from callboard.actors.runner.chat import InvalidDataError, parse

HELLO = (Message("user", "Hello"),)


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        ({"prompt": "Hello"}, HELLO),
        ({"prompt": ""}, (Message("user", ""),)),
        ({"prompt": "Hello", "system": "Be brief"}, (Message("system", "Be brief"), *HELLO)),
        ({"messages": [{"role": "user", "content": "Hello"}]}, HELLO),
        (
            {"system": "S", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            (Message("system", "S"), Message("user", "a"), Message("assistant", "b")),
        ),
    ],
)
def test_a_prompt_or_messages_make_a_call(data, messages):
    call = parse(data)
    assert (call.step, call.messages, call.model) == ("chat", messages, None)


def test_the_options_are_passed_on():
    given_options = {"max_output": 5, "temperature": 0, "top_p": 0.5, "stop": ["a", "b"], "seed": 1, "extra": {"x": 1}}
    call = parse({"prompt": "Hello", **given_options})
    assert (call.max_output, call.temperature, call.top_p, call.stop, call.seed) == (5, 0, 0.5, ("a", "b"), 1)
    assert call.extra == {"x": 1}
    assert parse({"prompt": "Hello", "seed": None, "system": None}).seed is None


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("text", "data: expected an object, got str"),
        (None, "data: expected an object"),
        ({}, "data: give either prompt or messages"),
        ({"prompt": "a", "messages": []}, "data: give either prompt or messages"),
        ({"prompt": "a", "modle": "x"}, "data.modle: unknown field"),
        ({"prompt": 5}, "data.prompt: expected text, got int"),
        ({"prompt": None}, "data.prompt: expected text"),
        ({"prompt": "a", "system": []}, "data.system: expected text"),
        ({"messages": []}, "data.messages: expected a list of at least one"),
        ({"messages": {}}, "data.messages: expected a list"),
        ({"messages": ["a"]}, "data.messages[0]: expected an object"),
        ({"messages": [{"role": "bot", "content": ""}]}, "data.messages[0].role: expected one of system, user"),
        ({"messages": [{"role": [], "content": ""}]}, "data.messages[0].role"),
        ({"messages": [{"role": "user"}]}, "data.messages[0].content: expected text"),
        ({"prompt": "a", "max_output": "5"}, "data.max_output: expected int, got str"),
        ({"prompt": "a", "max_output": 0}, "data.max_output: expected at least 1"),
        ({"prompt": "a", "max_output": True}, "data.max_output: expected int, got bool"),
        ({"prompt": "a", "temperature": "hot"}, "data.temperature: expected int or float"),
        ({"prompt": "a", "stop": "word"}, "data.stop: expected list"),
        ({"prompt": "a", "stop": [1]}, "data.stop: expected a list of strings"),
        ({"prompt": "a", "extra": []}, "data.extra: expected dict"),
    ],
)
def test_a_refusal_names_the_field(data, told):
    with pytest.raises(InvalidDataError) as refused:
        parse(data)
    assert str(refused.value).startswith(told)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["prompt", "messages", "role", "content", "stop", "seed", "system", "extra"]), inner
        )
    ),
    max_leaves=8,
)


@given(anything)
def test_whatever_it_is_given_it_takes_it_or_names_the_fault(data):
    refused, call = None, None
    try:
        call = parse(data)
    except InvalidDataError as error:
        refused = str(error)
    assert refused is None or refused.startswith("data")
    assert call is None or all(isinstance(message.content, str) for message in call.messages)
