"""Functions as tools: what their signatures say, and what the model is told of them."""

from typing import Any, Literal

import pytest

from callboard.actors.providers.model import Completion, Finish
from callboard.actors.providers.parts import ToolCall, ToolResult
from callboard.actors.runner.effects import CallModel
from callboard.actors.runner.tools import MAX_RESULT, CallFunction, as_told, failure_of, outcome_of, rounds, tool_of


def search(query: str, limit: int = 5, kind: Literal["a", "b"] | None = None, words: list[str] | None = None) -> str:
    """Search the archive.

    Slowly.
    """
    return f"{query}{limit}{kind}{words}"


def test_a_signature_becomes_a_schema():
    tool = tool_of("search", search)
    assert (tool.name, tool.description) == ("search", "Search the archive.\n\nSlowly.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer"},
            "kind": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]},
            "words": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        },
        "additionalProperties": False,
        "required": ["query"],
    }


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: x, "parameter 'x' has no type"),
        (lambda *x: x, "'x' cannot be given by name"),
        (search, "parameter 'query'"),
    ],
)
def test_what_has_no_schema_is_said(function, told, monkeypatch):
    if function is search:
        monkeypatch.setitem(search.__annotations__, "query", Any)
    with pytest.raises(TypeError, match=told):
        tool_of("f", function)


def test_results_are_text_or_json_and_bounded():
    assert as_told("text") == "text"
    assert as_told({"é": [1, None]}) == '{"é": [1, null]}'
    assert as_told("x" * (MAX_RESULT + 1)).endswith(f"[cut: {MAX_RESULT + 1} characters]")


def test_a_failure_is_told_without_keys():
    assert failure_of(ValueError("bad sk-abcdefghijklmnopqrstuvwxyz0123456789"))["error"].startswith("ValueError: bad ")
    assert "abcdefghijklmnop" not in failure_of(ValueError("bad sk-abcdefghijklmnopqrstuvwxyz0123456789"))["error"]


def play(call, answers, tools):
    """The calls of the model, and the last answer; functions are called as they are asked for."""
    going = rounds(call, tools, max_rounds=8, reasks=0)
    made, wanted = [], next(going)
    for answer in answers:
        made.append(wanted)
        try:
            wanted = going.send(answer)
            while isinstance(wanted, CallFunction):
                wanted = going.send(outcome_of(wanted.function(**wanted.arguments)))
        except StopIteration as end:
            return made, end.value
    raise AssertionError("not over")


def test_arguments_that_are_no_object_are_told_and_nothing_is_called():
    called = []
    bad = ToolCall(id="c1", name="f", raw="{not json")
    answers = [
        Completion(text="", finish=Finish.TOOL, tool_calls=(bad,)),
        Completion(text="sorry", finish=Finish.STOP),
    ]
    made, last = play(CallModel(step="s", messages=()), answers, {"f": lambda: called.append(1)})
    assert (last.text, called) == ("sorry", [])
    told = ToolResult(call_id="c1", name="f", content="the arguments are not a JSON object", is_error=True)
    assert made[1].messages[-1].tool_results == (told,)


def test_a_model_that_was_made_to_call_may_answer_afterwards():
    answers = [
        Completion(text="", finish=Finish.TOOL, tool_calls=(ToolCall(id="c1", name="f"),)),
        Completion(text="done", finish=Finish.STOP),
    ]
    call = CallModel(step="s", messages=(), tool_choice="required")
    made, _ = play(call, answers, {"f": lambda: "x"})
    assert [one.tool_choice for one in made] == ["required", "auto"]
    assert [one.step for one in made] == ["s/1", "s/2"]
