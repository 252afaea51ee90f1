"""Messages of more than text: what comes back from their JSON forms, and what is refused, with its place."""

import json

import pytest

from callboard.actors.providers.parts import (
    MAX_IMAGE_BASE64,
    Image,
    Message,
    Opaque,
    Text,
    ToolCall,
    ToolResult,
    content_from_json,
)

RICH = (
    Opaque(wire="gemini", data={"signature": "…"}),
    Text("Look:"),
    Image(data="aGk=", media_type="image/png"),
    Image(url="https://example.org/a.png"),
    ToolCall(id="c1", name="add", arguments={"a": [1, None]}, opaque="sig"),
    ToolCall(id="c2", name="add", raw="{not json"),
    ToolResult(call_id="c1", content="", name="add", is_error=True),
)


def test_a_message_of_every_kind_of_part_comes_back() -> None:
    message = Message("assistant", RICH)
    assert Message.from_json(json.loads(json.dumps(message.to_json()))) == message
    assert Message.from_json(Message("user", "hi").to_json()) == Message("user", "hi")


def test_text_calls_and_results_are_found_whatever_else_there_is() -> None:
    message = Message("assistant", RICH)
    assert message.text == "Look:"
    assert [call.id for call in message.tool_calls] == ["c1", "c2"]
    assert [result.call_id for result in message.tool_results] == ["c1"]
    assert Message("user", "hi").parts == (Text("hi"),)
    assert Message("user", "").parts == ()


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (3, r"\[1\]: expected an object"),
        ({"type": "sound"}, r"\[1\]\.type: expected one of text"),
        ({"type": []}, r"\[1\]\.type: expected one of text"),
        ({"type": "text"}, r"\[1\]: text is not complete"),
        ({"type": "text", "text": 3}, r"\[1\]\.text: expected str, got int"),
        ({"type": "text", "text": "a", "size": 1}, r"\[1\]\.size: is not a field of text"),
        ({"type": "tool_call", "id": "1", "name": "n", "arguments": "x"}, r"\[1\]\.arguments: expected dict"),
        ({"type": "image"}, r"\[1\]: an image has either data or url"),
        ({"type": "image", "data": "x", "url": "https://a"}, r"\[1\]: an image has either data or url"),
        ({"type": "image", "url": "file:///etc/passwd"}, r"\[1\]\.url: expected an https:// address"),
        ({"type": "image", "data": "x", "media_type": "image/svg+xml"}, r"\[1\]\.media_type: expected one of"),
        ({"type": "image", "data": "x" * (MAX_IMAGE_BASE64 + 1), "media_type": "image/png"}, r"\[1\]\.data: .* limit"),
    ],
)
def test_a_bad_part_is_named_with_its_place(part: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        content_from_json([{"type": "text", "text": "fine"}, part])


@pytest.mark.parametrize("content", [None, 3, [], {}])
def test_content_is_text_or_a_list_of_parts(content: object) -> None:
    with pytest.raises(ValueError, match="expected text, or a list of parts"):
        content_from_json(content)
