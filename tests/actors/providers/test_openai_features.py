"""Tools, images, schemas and hints in OpenAI's two formats, byte for byte; and what is dropped or refused by configuration."""

import json

import pytest

from callboard.actors.providers.model import CallError, ErrorClass, Finish, Message, Request, Tool
from callboard.actors.providers.openai_chat import OpenAIChat
from callboard.actors.providers.openai_responses import OpenAIResponses
from callboard.actors.providers.parts import Image, Opaque, Text, ToolCall, ToolResult
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.providers.sse import SSEDecoder

CHAT, RESPONSES = OpenAIChat(), OpenAIResponses()
NOW = 1_790_000_000_000
HELLO = (Message("user", "2+2?"),)
ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "number"}}})
SCHEMA = {"type": "object", "properties": {"v": {"type": "integer"}}, "required": ["v"], "additionalProperties": False}
LOOSE = {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}
PICTURE = Image(data="aGk=", media_type="image/png")
LINK = Image(url="https://example.org/cat.png")


def settings(wire="openai-chat", **more):
    return ProviderSettings(name="openai", wire=wire, base_url="https://api.openai.com/v1", **more)


def chat(request, **more):
    sent = CHAT.encode(request, key=None, settings=settings(**more))
    return sent if isinstance(sent, CallError) else json.loads(sent.body)


def responses(request, **more):
    sent = RESPONSES.encode(request, key=None, settings=settings("openai-responses", **more))
    return sent if isinstance(sent, CallError) else json.loads(sent.body)


def asking(messages=HELLO, **fields):
    return Request(model="gpt-x", messages=messages, stream=False, **fields)


def stream(adapter, *data):
    decoder, lines = adapter.stream_decoder({}, at_ms=NOW), SSEDecoder()
    raw = "".join(f"data: {item if isinstance(item, str) else json.dumps(item)}\n\n" for item in data)
    pieces = [piece for event in lines.feed(raw.encode()) for piece in decoder.feed(event)]
    return pieces, decoder, decoder.finish(eof=True)


# Chat Completions: what is sent.


def test_chat_tools():
    body = chat(asking(tools=(ADD, Tool(name="now", strict=True)), tool_choice="add", parallel_tools=False))
    assert body["tools"] == [
        {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": ADD.parameters}},
        {
            "type": "function",
            "function": {
                "name": "now",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
                "strict": True,
            },
        },
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["parallel_tool_calls"] is False


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_tool_choices_by_word(choice):
    request = asking(tools=(ADD,), tool_choice=choice)
    assert chat(request)["tool_choice"] == responses(request)["tool_choice"] == choice


def test_without_tools_nothing_is_said_of_their_choice():
    request = asking(tool_choice="required", parallel_tools=True)
    assert chat(request).keys() == {"model", "messages"}
    assert responses(request).keys() == {"model", "input", "store"}


CONVERSATION = (
    Message("system", "Be brief."),
    Message("user", (Text("What is it?"), PICTURE, LINK)),
    Message(
        "assistant",
        (
            Opaque(wire="openai-responses", data={"type": "reasoning", "id": "rs_1", "encrypted_content": "s1"}),
            Text("Well."),
            ToolCall(
                id="c1",
                name="add",
                arguments={"a": "ü"},
                opaque={"wire": "openai-responses", "items": [{"type": "reasoning", "id": "rs_2"}]},
            ),
            ToolCall(id="c2", name="now", raw="{broken", opaque="of another wire"),
        ),
    ),
    Message("tool", (ToolResult(call_id="c1", content="4"), ToolResult(call_id="c2", content="no", is_error=True))),
    Message("system", "Be kind."),
    Message("user", "So?"),
)


def test_a_chat_conversation():
    assert chat(asking(CONVERSATION))["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Well.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":"ü"}'}},
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{broken"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: no"},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "So?"},
    ]


def test_a_turn_of_calls_alone_has_no_content():
    turn = Message("assistant", (ToolCall(id="c", name="f"),))
    sent = chat(asking((*HELLO, turn, Message("tool", (ToolResult(call_id="c", content=""),)))))["messages"]
    assert sent[1]["content"] is None
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert sent[2] == {"role": "tool", "tool_call_id": "c", "content": ""}


def test_results_stand_before_what_the_user_says_with_them():
    mixed = Message("user", (Text("And?"), ToolResult(call_id="c", content="4")))
    assert [message["role"] for message in chat(asking((*HELLO, mixed)))["messages"]] == ["user", "tool", "user"]


def test_chat_schema_effort_and_cache():
    body = chat(asking(schema=SCHEMA, schema_name="sum", effort="low", cache_key="k", cache_ttl="1h"))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True},
    }
    assert (body["reasoning_effort"], body["prompt_cache_key"]) == ("low", "k")
    assert "cache_ttl" not in json.dumps(body)
    loose = chat(asking(schema=LOOSE))["response_format"]["json_schema"]
    assert (loose["schema"], loose["strict"]) == (LOOSE, False)


# Chat Completions: what comes back.


def delta(finish=None, **fields):
    return {"id": "r", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def piece(index=None, call_id=None, name=None, arguments=None):
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    told = {key: value for key, value in (("index", index), ("id", call_id)) if value is not None}
    return delta(tool_calls=[{**told, "type": "function", "function": function}])


TWO = [("a", "f", {"x": 1}), ("b", "g", {})]


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "f", ""), piece(1, "b", "g", ""), piece(0, arguments='{"x"'), piece(0, arguments=":1}")],
        [piece(0, "a", "f", '{"x":1}'), piece(1, "b", "g", "{}")],
        [piece(None, "a", "f", '{"x"'), piece(None, arguments=":1}"), piece(None, "b", "g", "")],
        [piece(0, "a", "f", '{"x":1}'), piece(0, "b", "g", "{}")],
        [piece(0, "a", "f", '{"x"'), piece(0, "a", "f", ":1}"), piece(0, "b", "g", "")],
        [piece(0, "a", "f", {"x": 1}), piece(1, "b", "g", {})],
        [
            delta(
                tool_calls=[
                    {"index": 1, "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
                    {"index": 7, "id": "b", "function": {"name": "g"}},
                ]
            )
        ],
    ],
    ids=["mixed", "whole", "no index", "one index", "id repeated", "objects", "one chunk"],
)
def test_calls_in_all_the_ways_they_come(pieces):
    _, decoder, found = stream(CHAT, *pieces, delta("tool_calls"), "[DONE]")
    assert [(call.id, call.name, call.arguments) for call in found.tool_calls] == TWO
    assert found.finish is Finish.TOOL
    assert decoder.progress == len(pieces) + 1


def test_calls_without_ids_get_some_that_no_other_answer_has():
    def asked(response_id):
        first = {**piece(0, None, "f", "{}"), "id": response_id}
        return stream(CHAT, first, piece(1, None, "g", "{}"), delta("stop"))[2]

    one, same, other = asked("r1"), asked("r1"), asked("r2")
    ids = [call.id for call in one.tool_calls]
    assert len(set(ids)) == 2
    assert ids == [call.id for call in same.tool_calls]
    assert not set(ids) & {call.id for call in other.tool_calls}
    assert all(len(call_id) <= 40 for call_id in ids)
    assert one.finish is Finish.TOOL  # some servers say "stop" after calls


@pytest.mark.parametrize("text", ["{broken", "[1]", '"x"', "1", "nul"])
def test_arguments_that_are_no_object_are_kept_as_they_came(text):
    found = stream(CHAT, piece(0, "a", "f", text), delta("tool_calls"))[2]
    assert (found.tool_calls[0].arguments, found.tool_calls[0].raw) == ({}, text)
    again = chat(asking((*HELLO, found.message(), Message("tool", (ToolResult(call_id="a", content="?"),)))))
    assert again["messages"][1]["tool_calls"][0]["function"]["arguments"] == text


def test_a_call_that_was_cut_by_the_limit():
    found = stream(CHAT, piece(0, "a", "f", '{"x":'), delta("length"))[2]
    assert (found.finish, found.tool_calls[0].raw) == (Finish.LENGTH, '{"x":')


# Responses.


def test_a_responses_conversation():
    body = responses(asking(CONVERSATION))
    assert body["instructions"] == "Be brief."
    assert body["input"] == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": "data:image/png;base64,aGk="},
                {"type": "input_image", "image_url": "https://example.org/cat.png"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "s1"},
        {"role": "assistant", "content": "Well."},
        {"type": "reasoning", "id": "rs_2"},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":"ü"}'},
        {"type": "function_call", "call_id": "c2", "name": "now", "arguments": "{broken"},
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
        {"type": "function_call_output", "call_id": "c2", "output": "Error: no"},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "So?"},
    ]
    assert body["include"] == ["reasoning.encrypted_content"]  # its model reasons, as its past shows
    assert body["store"] is False


def test_responses_fields():
    body = responses(
        asking(
            tools=(ADD,),
            tool_choice="add",
            parallel_tools=True,
            schema=SCHEMA,
            effort="high",
            cache_key="k",
            max_output=9,
            temperature=0.5,
            stop=("x",),
            seed=1,
        )
    )
    assert body == {
        "model": "gpt-x",
        "input": [{"role": "user", "content": "2+2?"}],
        "tools": [
            {
                "type": "function",
                "name": "add",
                "description": "Adds.",
                "parameters": ADD.parameters,
                "strict": False,
            }
        ],
        "tool_choice": {"type": "function", "name": "add"},
        "parallel_tool_calls": True,
        "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}},
        "reasoning": {"effort": "high"},
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
        "max_output_tokens": 9,
        "temperature": 0.5,
        "store": False,
    }
    assert responses(asking(effort="none")).keys() == {"model", "input", "reasoning", "store"}
    streamed = RESPONSES.encode(Request(model="m", messages=HELLO), key=None, settings=settings("openai-responses"))
    assert (streamed.path, json.loads(streamed.body)["stream"]) == ("/responses", True)


def test_include_of_the_asker_is_kept():
    body = responses(asking(effort="low", extra={"include": ["message.output_text.logprobs"], "truncation": "auto"}))
    assert body["include"] == ["message.output_text.logprobs", "reasoning.encrypted_content"]
    assert body["truncation"] == "auto"


def test_background_is_stored_and_streamed():
    request = Request(model="m", messages=HELLO)
    body = responses(request, background=True)
    assert (body["background"], body["store"], body["stream"]) == (True, True, True)
    assert "background" not in responses(asking(), background=True)  # only what is streamed can be followed
    with pytest.raises(ValueError, match="background needs wire openai-responses"):
        settings(background=True)


OWNED = ["model", "input", "instructions", "stream", "max_output_tokens", "tools"]


@pytest.mark.parametrize("name", [*OWNED, "previous_response_id", "conversation", "background", "store"])
def test_responses_fields_that_the_request_decides(name):
    found = responses(asking(extra={name: 1}))
    assert (found.kind, found.sent) == (ErrorClass.INVALID, False)
    assert found.message.startswith(f"extra.{name}")


def test_a_field_is_set_in_one_place():
    assert chat(asking(extra={"response_format": {"type": "json_object"}}))["response_format"]["type"] == "json_object"
    for found in (
        chat(asking(schema=SCHEMA, extra={"response_format": {}})),
        chat(asking(extra={"tools": []})),
        responses(asking(schema=SCHEMA, extra={"text": {}})),
    ):
        assert (found.kind, found.sent) == (ErrorClass.INVALID, False)


def ended(output, **more):
    return {"id": "r", "object": "response", "status": "completed", "model": "m", "output": output, **more}


def read(response):
    return RESPONSES.decode_body(200, {"x-request-id": "q"}, json.dumps(response).encode(), at_ms=NOW)


def message_item(text, **part):
    return {"type": "message", "content": [part or {"type": "output_text", "text": text}]}


def test_reasoning_goes_back_before_what_it_led_to():
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    sealed = [{"type": "reasoning", "id": f"rs_{n}", "summary": [], "encrypted_content": f"s{n}"} for n in range(3)]
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    answer = read(
        ended([sealed[0], message_item("Well."), sealed[1], call, sealed[2], search, {**call, "call_id": "c2"}])
    )
    assert answer.finish is Finish.TOOL
    items = responses(asking((*HELLO, answer.message())))["input"][1:]
    told = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    assert items == [
        sealed[0],
        {"role": "assistant", "content": "Well."},
        sealed[1],
        told,
        sealed[2],
        search,
        {**told, "call_id": "c2"},
    ]
    assert answer.message() == Message.from_json(json.loads(json.dumps(answer.message().to_json())))


@pytest.mark.parametrize(
    ("response", "finish", "raw"),
    [
        (ended([message_item("4")]), Finish.STOP, "completed"),
        (ended([message_item("", type="refusal", refusal="No.")]), Finish.REFUSAL, "completed"),
        (
            ended([], status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Finish.LENGTH,
            "max_output_tokens",
        ),
        (
            ended([], status="incomplete", incomplete_details={"reason": "content_filter"}),
            Finish.FILTER,
            "content_filter",
        ),
        (ended([], status="incomplete", incomplete_details=None), Finish.UNKNOWN, "incomplete"),
    ],
)
def test_how_a_response_ends(response, finish, raw):
    found = read(response)
    assert (found.finish, found.raw_finish, found.request_id) == (finish, raw, "q")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "server_error", "message": "Oh"}, ErrorClass.SERVER),
        ({"code": "rate_limit_exceeded", "message": "Slow"}, ErrorClass.RATE),
        ({"code": "invalid_prompt", "message": "No"}, ErrorClass.INVALID),
        (None, ErrorClass.SERVER),
    ],
)
def test_a_failure_inside_a_200(error, kind):
    found = read(ended([], status="failed", error=error))
    assert (found.kind, found.http) == (kind, None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [("cancelled", ErrorClass.TRUNCATED), ("queued", ErrorClass.TRUNCATED), ("in_progress", ErrorClass.TRUNCATED)],
)
def test_one_that_is_not_over_is_no_answer(status, kind):
    assert read(ended([], status=status)).kind is kind


def test_usage_of_a_response_in_disjoint_buckets():
    usage = {
        "input_tokens": 40,
        "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 6},
        "total_tokens": 52,
    }
    found = read(ended([message_item("4")], usage=usage)).usage
    assert (found.input_uncached, found.cache_read, found.cache_write) == (25, 10, 5)
    assert (found.output_visible, found.output_reasoning, found.total) == (6, 6, 52)
    assert read(ended([message_item("4")], usage=None)).usage is None


def test_a_server_that_streams_nothing_but_the_end():
    last = {"type": "response.completed", "response": ended([message_item("4")])}
    pieces, decoder, found = stream(RESPONSES, last)
    assert (pieces, decoder.text, found.text, decoder.progress) == (["4"], "4", "4", 1)


def test_done_is_not_the_end_of_a_response():
    text = {"type": "response.output_text.delta", "output_index": 0, "delta": "4"}
    pieces, decoder, found = stream(RESPONSES, text, "[DONE]")
    assert (pieces, decoder.terminal, found.kind) == (["4"], False, ErrorClass.TRUNCATED)


def test_events_that_were_seen_are_passed_over():
    def said(number, piece):
        return {"type": "response.output_text.delta", "sequence_number": number, "output_index": 0, "delta": piece}

    pieces, decoder, _ = stream(RESPONSES, said(0, "a"), said(1, "b"), said(1, "b"), said(0, "a"), said(2, "c"))
    assert (pieces, decoder.position) == (["a", "b", "c"], 2)


# What is not supported.


def test_images_of_a_provider_without_them():
    both = Request(model="m", messages=(Message("user", (Text("hi"), PICTURE)),), stream=False)
    assert chat(both, unsupported=frozenset({"images"}))["messages"] == [{"role": "user", "content": "hi"}]
    alone = Request(model="m", messages=(Message("user", (PICTURE,)),))
    found = chat(alone, unsupported=frozenset({"images"}))
    assert (found.kind, found.sent) == (ErrorClass.INVALID, False)


def test_tools_take_their_choice_with_them():
    request = asking(tools=(ADD,), tool_choice="add", parallel_tools=False)
    assert chat(request, unsupported=frozenset({"tools"})).keys() == {"model", "messages"}
    assert "tools" in chat(request, unsupported=frozenset({"tool_choice", "parallel_tools"}))
    assert chat(request, unsupported=frozenset({"tool_choice", "parallel_tools"})).keys() == {
        "model",
        "messages",
        "tools",
    }


def test_what_a_model_refuses_is_in_no_fingerprint():
    plain, marked = asking(temperature=0.5), asking(temperature=0.5, unsupported=frozenset({"temperature"}))
    assert plain.fingerprint() == marked.fingerprint()
    assert "unsupported" not in marked.to_json()
    assert "temperature" not in chat(marked)
    assert "temperature" not in responses(marked)
    refused = chat(marked, on_unsupported="error")
    assert refused.message.startswith("temperature:")
