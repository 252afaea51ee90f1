"""Functions as tools: what their signatures say, and what the model is told of them."""

from typing import Any, Literal

import pytest

from callboard.actors.runner.tools import MAX_RESULT, as_told, failure_of, tool_of


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
