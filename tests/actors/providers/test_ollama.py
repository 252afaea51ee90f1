import json

import pytest

from callboard.actors.providers.keys import Secret
from callboard.actors.providers.model import EmbeddingRequest, ErrorClass, Finish, Message, Request, Tool, Usage
from callboard.actors.providers.ollama import Ollama
from callboard.actors.providers.ollama_embeddings import OllamaEmbeddings
from callboard.actors.providers.parts import Image, Text, ToolCall, ToolResult
from callboard.actors.providers.settings import ProviderSettings

ADAPTER, EMBEDDER = Ollama(), OllamaEmbeddings()
NOW = 1_790_000_000_000
ADD = Tool(name="add", description="Adds.", parameters={"type": "object"})


def provider(**more):
    return ProviderSettings(name="o", wire="ollama", base_url="http://localhost:11434", **more)


def encode(key=None, settings=None, **fields):
    request = Request(**{"model": "m:7b", "messages": (Message("user", "hi"),), "stream": False, **fields})
    return ADAPTER.encode(request, key=key, settings=settings or provider())


def sent(**fields):
    return json.loads(encode(**fields).body)


def test_body_byte_for_byte():
    found = encode(
        messages=(Message("system", "Be brief."), Message("user", "2+2?")),
        max_output=64,
        temperature=0.0,
        top_p=1.0,
        stop=("END",),
        seed=1,
        stream=True,
        extra={"keep_alive": "5m", "options": {"num_ctx": 8192}},
    )
    assert (found.method, found.path) == ("POST", "/api/chat")
    assert found.body.decode() == (
        '{"model":"m:7b","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"2+2?"}],"stream":true,'
        '"options":{"num_ctx":8192,"num_predict":64,"temperature":0.0,"top_p":1.0,"stop":["END"],"seed":1},"keep_alive":"5m"}'
    )


def test_whether_to_stream_is_said_in_either_case():
    assert encode().body == b'{"model":"m:7b","messages":[{"role":"user","content":"hi"}],"stream":false}'
    assert sent(stream=True)["stream"] is True


def test_a_key_is_sent_only_if_there_is_one():
    assert ("authorization", "Bearer k") in encode(key=Secret("k")).headers
    assert "authorization" not in dict(encode().headers)


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("minimal", "low"), ("low", "low"), ("high", "high"), ("max", "high")]
)
def test_effort(effort, think):
    assert sent(effort=effort)["think"] == think


@pytest.mark.parametrize(
    "extra", [{"options": {"num_predict": 9}}, {"options": 3}, {"stream": True}, {"format": "json"}]
)
def test_extra_may_not_go_round_the_request(extra):
    assert encode(extra=extra).kind is ErrorClass.INVALID


def test_tools_and_what_can_be_said_of_their_choice():
    told = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}]
    assert sent(tools=(ADD,))["tools"] == sent(tools=(ADD,), tool_choice="auto")["tools"] == told
    assert "tools" not in sent(tools=(ADD,), tool_choice="none")
    strict = provider(on_unsupported="error")
    assert encode(tools=(ADD,), tool_choice="none", settings=strict).body
    assert encode(tools=(ADD,), tool_choice="required", settings=strict).message.startswith("tool_choice:")


def test_images_by_url_are_not_sent():
    by_url = (Message("user", (Text("What?"), Image(url="https://example.org/x.png"))),)
    assert encode(messages=by_url).message.startswith("images:")


def test_each_result_is_a_message_and_names_its_function():
    messages = (
        Message("user", (Text("What?"), Image(data="aGk=", media_type="image/png"))),
        Message("assistant", (ToolCall(id="c1", name="add", arguments={"a": 1}), ToolCall(id="c2", name="now"))),
        Message(
            "tool",
            (
                ToolResult(call_id="c1", content="4"),
                ToolResult(call_id="c2", content="broken", name="now", is_error=True),
                Text("And besides"),
            ),
        ),
    )
    assert sent(messages=messages)["messages"] == [
        {"role": "user", "content": "What?", "images": ["aGk="]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "add", "arguments": {"a": 1}}},
                {"function": {"name": "now", "arguments": {}}},
            ],
        },
        {"role": "tool", "tool_name": "add", "content": "4"},
        {"role": "tool", "tool_name": "now", "content": "Error: broken"},
        {"role": "user", "content": "And besides"},
    ]


def answer(message, **more):
    reply = {"model": "m", "created_at": "t1", "message": message, "done": True, "done_reason": "stop", **more}
    return ADAPTER.decode_body(200, {}, json.dumps(reply).encode(), at_ms=NOW)


def test_calls_without_ids_get_the_same_ones_every_time_and_others_in_another_answer():
    message = {"content": "", "tool_calls": [{"function": {"name": "a", "arguments": {}}}] * 2}
    first, again = answer(message), answer(message)
    other = answer(message, created_at="t2")
    assert first.tool_calls == again.tool_calls
    assert len({call.id for call in (*first.tool_calls, *other.tool_calls)}) == 4
    assert first.finish is Finish.TOOL


def test_a_count_that_is_missing_is_none_of_its_tokens():
    assert answer({"content": "x"}).usage is None
    assert answer({"content": "x"}, eval_count=4).usage == Usage(output_visible=4)


def embed(**fields):
    return EMBEDDER.encode(
        EmbeddingRequest(**{"model": "e", "inputs": ("a", "b"), **fields}), key=None, settings=provider()
    )


def test_embeddings_are_never_cut_off_without_a_word():
    found = embed(dimensions=8)
    assert found.path == "/api/embed"
    assert json.loads(found.body) == {"model": "e", "input": ["a", "b"], "truncate": False, "dimensions": 8}
    assert json.loads(embed(extra={"truncate": True}).body)["truncate"] is True
    assert embed(inputs=("x",) * 513).sent is False


def test_vectors_and_their_tokens():
    raw = json.dumps({"model": "e", "embeddings": [[1, 0.5], [0, 1]], "prompt_eval_count": 3}).encode()
    found = EMBEDDER.decode_body(200, {}, raw, at_ms=NOW, inputs=2)
    assert [list(vector) for vector in found.vectors] == [[1.0, 0.5], [0.0, 1.0]]
    assert (found.usage, found.model) == (Usage(input_uncached=3), "e")
    assert EMBEDDER.decode_body(200, {}, raw, at_ms=NOW, inputs=3).kind is ErrorClass.MALFORMED
    assert EMBEDDER.decode_body(200, {}, b'{"error": "oh"}', at_ms=NOW, inputs=2).kind is ErrorClass.SERVER
    too_long = b'{"error": "the input length exceeds the context length"}'
    assert EMBEDDER.decode_body(400, {}, too_long, at_ms=NOW, inputs=2).kind is ErrorClass.CONTEXT
