"""The data of a chat job: what is taken, and which field is named in a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.model import Message, Tool
from callboard.actors.runner.chat import InvalidDataError, parse
from callboard.actors.runner.chat_data import check_pairs

HELLO = (Message("user", "Hello"),)
USER = {"role": "user", "content": "Hello"}
TEXT = {"type": "text", "text": "x"}
IMAGE = {"type": "image", "url": "https://x.test/a.png"}
CALL = {"type": "tool_call", "id": "c1", "name": "f"}
RESULT = {"type": "tool_result", "call_id": "c1", "content": "x"}
ASKS = {"role": "assistant", "content": [CALL]}
TELLS = {"role": "tool", "content": [RESULT]}


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
        ({"messages": [{"role": "user", "content": []}]}, "data.messages[0].content: expected text, or a list"),
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "x"}]}]},
            "data.messages[1].content[0].type: expected",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "url": "http://x"}]}]},
            "data.messages[0].content[0].url",
        ),
        (
            {"messages": [{"role": "user", "content": [TEXT, CALL]}]},
            "data.messages[0].content[1].type: the role user holds text, image, not tool_call",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "data.messages[0].content: the role tool holds tool_result"),
        (
            {"messages": [{"role": "system", "content": [IMAGE]}]},
            "data.messages[0].content[0].type: the role system holds text",
        ),
        ({"prompt": "a", "tools": {}}, "data.tools: expected list"),
        ({"prompt": "a", "tools": ["f"]}, "data.tools[0]: expected an object with a name"),
        ({"prompt": "a", "tools": [{}]}, "data.tools[0].name: a tool needs one"),
        ({"prompt": "a", "tools": [{"name": "a b"}]}, "data.tools[0].name: expected 1 to 64 letters"),
        ({"prompt": "a", "tools": [{"name": "f"}, {"name": "f"}]}, "data.tools[1].name: 'f' is there twice"),
        ({"prompt": "a", "tools": [{"name": "f", "parameters": []}]}, "data.tools[0].parameters: expected dict"),
        ({"prompt": "a", "tools": [{"name": "f", "type": "function"}]}, "data.tools[0].type: unknown field"),
        (
            {"prompt": "a", "tools": [{"name": "f"}], "tool_choice": "g"},
            "data.tool_choice: expected one of auto, none, required, f",
        ),
        ({"prompt": "a", "parallel_tools": 1}, "data.parallel_tools: expected bool, got int"),
        ({"prompt": "a", "schema": []}, "data.schema: expected dict"),
        ({"prompt": "a", "schema_name": "a b"}, "data.schema_name: expected 1 to 64"),
        ({"prompt": "a", "effort": "huge"}, "data.effort: expected one of none, minimal"),
        ({"prompt": "a", "cache_ttl": "2h"}, "data.cache_ttl: expected one of 5m, 1h"),
        ({"prompt": "a", "reasks": 3}, "data.reasks: expected a whole number from 0 to 2"),
        ({"prompt": "a", "reasks": True}, "data.reasks: expected a whole number"),
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


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([USER, ASKS, TELLS], None),
        ([USER, ASKS, TELLS, USER], None),
        ([USER, ASKS], "call 'c1' of 'f' has no result"),
        ([USER, ASKS, USER, TELLS], "call 'c1' of 'f' has no result before message 2"),
        (
            [USER, TELLS],
            "message 1 (counted without the system's) has a result for 'c1', which nothing before it calls",
        ),
        ([USER, ASKS, TELLS, TELLS], "has a result for 'c1', which nothing before it calls"),
    ],
)
def test_calls_and_results_go_in_pairs(messages, told):
    call = parse({"messages": messages, "system": "S"})
    if told is None:
        check_pairs(call.messages)
        return
    with pytest.raises(InvalidDataError) as refused:
        check_pairs(call.messages)
    assert told in str(refused.value)


def test_tools_are_read_with_all_they_say():
    given_tool = {"name": "f", "description": "F", "parameters": {"type": "object"}, "strict": True}
    assert parse({"prompt": "a", "tools": [given_tool]}).tools == (Tool(**given_tool),)
