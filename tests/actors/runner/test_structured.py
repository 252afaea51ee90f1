"""Answers that must follow a schema: what is taken for the answer, what is checked, and what a generator of effects asks."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.providers.model import Completion, Finish, Message
from callboard.actors.runner.chat import InvalidDataError
from callboard.actors.runner.effects import CallFailedError, CallModel
from callboard.actors.runner.structured import answer_to, checker, json_values, read_answer

NUMBER = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}, "why": {"type": "string"}}, "required": ["n"]}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"n": 1}', [{"n": 1}]),
        (" [1, 2]\n", [[1, 2]]),
        ('"text"', ["text"]),
        ('```json\n{"n": 1}\n```', [{"n": 1}]),
        ('Here you are:\n```\n{"n": 1}\n```\nAnything else?', [{"n": 1}]),
        ('Sure! {"n": 1} is the answer.', [{"n": 1}]),
        ('{"n": 1} or {"n": 2}', [{"n": 1}, {"n": 2}]),
        ('```json\n{"n": 1}\n```\nor\n```json\n{"n": 2}\n```', [{"n": 1}, {"n": 2}]),
        ("no JSON", []),
        ('{"n": NaN}', []),
        ('{"n": 1', []),
        ("{" * 5000, []),
        ("[" * 100_000, []),
        ("", []),
    ],
)
def test_what_is_taken_for_the_answer(text, found):
    assert json_values(text) == found


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
    st.sampled_from(["{}", "```json\n{}\n```", "Well:\n\n```\n{}\n```"]),
)
def test_json_is_read_back_from_what_models_put_around_it(value, around):
    assert json_values(around.replace("{}", json.dumps(value))) == [value]


def test_what_is_wrong_is_said_with_its_place():
    check = checker(json.dumps(NUMBER))
    assert check({"n": 1}) is None
    assert check({"n": 0}) == "$.n: 0 is less than the minimum of 1"
    assert check({}) == "$: 'n' is a required property"
    assert read_answer('{"n": 1, "why": null}', NUMBER, check) == ({"n": 1}, None)
    assert read_answer('{"n": 1} {"n": 1}', NUMBER, check) == (None, "it holds more than one JSON value")


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "thing"}, "schema.type: is not a JSON Schema"),
        (
            {"properties": {"x": {"$ref": "https://elsewhere.test/s"}}},
            "schema: \\$ref 'https://elsewhere.test/s' leads out",
        ),
        ({"properties": {"x": {"$ref": "file:///etc/passwd"}}}, "leads out of it"),
    ],
)
def test_what_is_no_schema_is_refused_before_a_call(schema, told):
    with pytest.raises(InvalidDataError, match=f"data.*{told}"):
        next(answer_to(CallModel(step="chat", messages=(), schema=schema), where="data."))


def test_a_reference_that_leads_nowhere_is_said():
    with pytest.raises(InvalidDataError, match="leads nowhere"):
        checker('{"properties": {"x": {"$ref": "#/$defs/none"}}}')({"x": 1})


def test_without_the_extra_the_job_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    checker.cache_clear()
    with pytest.raises(InvalidDataError, match=r"pip install 'callboard\[schema\]'"):
        next(answer_to(CallModel(step="chat", messages=(), schema=NUMBER)))


def test_no_schema_is_one_call():
    asked = answer_to(call := CallModel(step="chat", messages=()))
    assert next(asked) is call
    with pytest.raises(StopIteration) as end:
        asked.send(completion := Completion(text="x", finish=Finish.STOP))
    assert end.value.value is completion


def play(call, texts, **options):
    """The calls made for these answers, and the last answer."""
    asked = answer_to(call, **options)
    made = [next(asked)]
    for text in texts:
        try:
            made.append(asked.send(Completion(text=text, finish=Finish.STOP)))
        except StopIteration as end:
            return made, end.value
    raise AssertionError("not over")


def test_every_asking_again_carries_the_answer_and_what_is_wrong():
    call = CallModel(step="s", messages=(Message("user", "q"),), schema=NUMBER)
    made, last = play(call, ['{"n": 0}', "nothing", '{"n": 3}'])
    assert last.data == {"n": 3}
    assert [one.step for one in made] == ["s", "s/again-1", "s/again-2"]
    assert [message.role for message in made[2].messages] == ["user", "assistant", "user", "assistant", "user"]
    assert "less than the minimum" in made[1].messages[-1].text
    assert "it is not JSON" in made[2].messages[-1].text


def test_in_a_conversation_only_the_word_on_the_answer_is_sent():
    messages = (Message("system", "S"), Message("user", "q"))
    call = CallModel(step="s", messages=messages, schema=NUMBER, in_conversation=True)
    made, _ = play(call, ["nothing", '{"n": 3}'])
    assert [message.role for message in made[1].messages] == ["system", "user"]
    assert made[1].corrects


def test_the_bound_on_asking_again_is_kept():
    call = CallModel(step="s", messages=(), schema=NUMBER)
    with pytest.raises(CallFailedError, match="after 1 attempts: it is not JSON") as failed:
        play(call, ["a"], reasks=0)
    assert failed.value.error.partial == "a"
