"""What a turn sends of its conversation and adds to its log, where messages are more than text."""

import pytest

from callboard.actors.providers.estimate import IMAGE_TOKENS
from callboard.actors.providers.model import CallError, Completion, ErrorClass, Finish, Message, Request, Usage
from callboard.actors.providers.parts import Image, Opaque, Text, ToolCall, ToolResult
from callboard.actors.runner.context_window import ContextOverflowError
from callboard.actors.runner.dialogue import Dialogue, UnsendableMessageError, in_conversation, shortened
from callboard.actors.runner.effects import CallModel
from callboard.persistence.model import ConversationSettings, History, LogMessage

CALL = ToolCall(id="c1", name="look", arguments={"x": 1})
ANSWER = Completion(
    text="Let me see.", finish=Finish.TOOL, tool_calls=(CALL,), opaque=(Opaque(wire="w", data="sealed"),),
    usage=Usage(input_uncached=20, output_visible=6, output_reasoning=9),
)  # fmt: skip
ASK = (Message("user", "Look."),)
RESULT = (Message("tool", (ToolResult(call_id="c1", content="a cat", name="look"),)),)


def dialogue(*logged, **settings):
    log = [
        LogMessage(id=n, parent_id=None, turn=1, role=role, content=content, tokens=None, job_id=None, at=0)
        for n, (role, content) in enumerate(logged, 1)
    ]
    return Dialogue(
        History(conversation_id=1, name="c", settings=ConversationSettings(**settings), messages=tuple(log))
    )


def test_what_was_said_goes_through_the_log_unchanged():
    first = dialogue()
    sent = first.compose(ASK, 100)
    first.hear(ASK, sent, ANSWER)
    said = first.said
    again = dialogue(*((message.role, message.content) for message in said.messages))
    assert again.compose(RESULT, 100) == (*ASK, ANSWER.message(), *RESULT)
    assert said.messages[1].tokens == 6 + 9 + 4, "reasoning that is sent back is a part of the next prompt"


def test_an_answer_that_corrects_takes_the_place_of_the_one_before():
    talk = dialogue()
    talk.hear(ASK, talk.compose(ASK, 100), Completion(text="wrong", finish=Finish.STOP))
    word = (Message("user", "That is wrong."),)
    sent = talk.compose(word, 100)
    assert [message.text for message in sent] == ["Look.", "wrong", "That is wrong."]
    talk.hear(word, sent, Completion(text="right", finish=Finish.STOP), corrects=True)
    assert [message.content for message in talk.said.messages] == ["Look.", "right"]
    assert [message.text for message in talk.compose(ASK, 100)] == ["Look.", "right", "Look."]


def test_a_call_without_its_result_is_left_out_with_what_is_sealed_beside_it():
    talk = dialogue()
    talk.hear(ASK, None, ANSWER)
    _, answer, _ = talk.compose((Message("user", "Never mind."),), 100)
    assert answer.content == (Text("Let me see."),)


def test_of_two_calls_the_one_with_a_result_stays():
    other = ToolCall(id="c2", name="look")
    talk = dialogue()
    talk.hear(ASK, None, Completion(text="", finish=Finish.TOOL, tool_calls=(CALL, other)))
    _, answer, result = talk.compose(RESULT, 100)
    assert (answer.content, result) == ((CALL,), RESULT[0])


def test_pictures_count_when_there_is_no_room():
    image = Image(data="aGk=", media_type="image/png")
    asked = (Message("user", (Text("See"), image)),)
    with pytest.raises(ContextOverflowError):
        dialogue(context_window=IMAGE_TOKENS).compose(asked, 100)
    talk = dialogue(context_window=3 * IMAGE_TOKENS)
    for _ in range(2):
        talk.hear(asked, None, Completion(text="ok", finish=Finish.STOP))
    assert len(talk.compose(asked, 100)) == 1, "two pictures before it do not fit beside the third within 60 %"
    assert talk.said.messages[0].content[1] == {"type": "image", "data": "aGk=", "media_type": "image/png"}


def test_neighbours_are_joined_whatever_they_hold():
    image = Image(url="https://x.test/a.png")
    talk = dialogue(("user", "One."))
    assert talk.compose((Message("user", (image,)),), 100) == (Message("user", (Text("One."), image)),)


@pytest.mark.parametrize("content", [5, {"text": "x"}, [{"type": "thing"}]])
def test_what_is_no_message_is_named_when_it_would_be_sent(content):
    with pytest.raises(UnsendableMessageError, match="message 2 of the conversation"):
        dialogue(("user", "q"), ("assistant", content), ("user", "r")).compose(ASK, 100)


def test_a_summary_is_made_of_words():
    image = {"type": "image", "url": "https://x.test/a.png"}
    talk = dialogue(
        ("user", [{"type": "text", "text": "See " + "far " * 100}, image]),
        ("assistant", [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {"x": 1}}]),
        ("tool", [{"type": "tool_result", "call_id": "c1", "content": "a cat"}]),
        ("assistant", "A cat."),
        context_window=2000, summarise=True,
    )  # fmt: skip
    talk.hear(ASK, talk.compose(ASK, 100), Completion(text="ok", finish=Finish.STOP))
    prompt = talk.said.summarise["prompt"]
    for told in ("far", "[an image]", '[calls look with {"x": 1}]', "[result: a cat]", "A cat."):
        assert told in prompt
    assert "https" not in prompt


def test_a_prompt_is_shortened_once_and_by_half():
    talk = dialogue(*(("user" if n % 2 else "assistant", f"message {n} of many words") for n in range(1, 21)))
    effect = CallModel(step="s", messages=ASK, in_conversation=True)
    too_long = CallError(kind=ErrorClass.CONTEXT, message="too long")
    request = in_conversation(talk, Request(model="m", messages=ASK))
    assert len(request.messages) == 21
    assert shortened(talk, effect, request, CallError(kind=ErrorClass.SERVER, message="?")) is None
    assert shortened(None, effect, request, too_long) is None
    shorter = shortened(talk, effect, request, too_long)
    assert 1 < len(shorter.messages) <= 10
    assert shorter.messages[-1] == ASK[0]
    assert shortened(talk, effect, shorter, too_long) is None


def test_what_has_no_past_cannot_be_shortened():
    talk = dialogue()
    request = in_conversation(talk, Request(model="m", messages=ASK))
    effect = CallModel(step="s", messages=ASK, in_conversation=True)
    assert shortened(talk, effect, request, CallError(kind=ErrorClass.CONTEXT, message="too long")) is None
