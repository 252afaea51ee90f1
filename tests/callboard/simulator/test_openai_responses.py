import json
import time

import pytest

from callboard.simulator.background import KEPT

PROMPT = "Cats sleep all the day long, and in the night they sit on the wall and sing to the moon."
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {"type": "object", "properties": {"v": {"type": "integer"}}, "required": ["v"], "additionalProperties": False}
PATH = "/v1/responses"


@pytest.fixture
def responses(simulate):
    def start(**settings):
        simulator, client = simulate(**settings)

        def ask(path=PATH, method="POST", key="key-1", **body):
            if path == PATH and method == "POST":
                body = {"model": "m-1", "input": PROMPT, **body}
            sent = {"json": body} if method == "POST" else {}
            return client.http.request(method, path, headers={"authorization": f"Bearer {key}"}, **sent)

        return simulator, ask

    return start


def data_of(reply, read_events):
    found = read_events(reply.content)
    assert all(name == data["type"] for name, data in found)
    return [data for _, data in found]


def test_a_reply_has_every_field_of_the_format(responses):
    simulator, ask = responses()
    reply = ask()
    body = reply.json()
    assert (body["id"], body["object"], body["status"], body["error"]) == ("resp_sim_1", "response", "completed", None)
    assert body["output"] == [
        {
            "type": "message",
            "id": "msg_sim_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": PROMPT, "annotations": []}],
        }
    ]
    usage = body["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    assert reply.headers["x-request-id"] == "req_sim_1"
    entry = simulator.journal()[0]
    assert (entry["wire"], entry["path"], entry["model"], entry["outcome"]) == ("openai", PATH, "m-1", "completed")


def test_a_stream_is_numbered_and_ends_with_its_body(responses, read_events):
    _, ask = responses()
    whole = ask(reasoning={"effort": "low"}).json()
    found = data_of(ask(stream=True, reasoning={"effort": "low"}), read_events)
    assert [data["sequence_number"] for data in found] == list(range(len(found)))
    kinds = [data["type"] for data in found]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "".join(data["delta"] for data in found if data["type"] == "response.output_text.delta") == PROMPT
    last = found[-1]["response"]
    assert last["usage"] == whole["usage"]
    assert last["usage"]["output_tokens_details"]["reasoning_tokens"] == 16
    assert [item["type"] for item in last["output"]] == ["reasoning", "message"]
    assert [data["item"] for data in found if data["type"] == "response.output_item.done"] == last["output"]


def test_calls_and_what_follows_them(responses, read_events):
    _, ask = responses()
    asked = {"input": 'call add {"a": 1} and call add', "tools": [ADD]}
    found = data_of(ask(stream=True, **asked), read_events)
    calls = found[-1]["response"]["output"]
    assert [(call["type"], call["name"], call["arguments"]) for call in calls] == [
        ("function_call", "add", '{"a":1}'),
        ("function_call", "add", "{}"),
    ]
    for index, call in enumerate(calls):
        deltas = [d["delta"] for d in found if d["type"].endswith("arguments.delta") and d["output_index"] == index]
        assert "".join(deltas) == call["arguments"]
    outputs = [{"type": "function_call_output", "call_id": call["call_id"], "output": "It is 2."} for call in calls]
    after = ask(input=[{"role": "user", "content": asked["input"]}, *calls, *outputs], tools=[ADD]).json()
    assert after["output"][0]["content"][0]["text"] == "It is 2."


def test_a_schema_is_followed_and_images_are_counted(responses):
    _, ask = responses()
    body = ask(text={"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}}).json()
    assert json.loads(body["output"][0]["content"][0]["text"]) == {"v": 0}
    plain = ask(input=[{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]).json()
    image = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}
    more = ask(input=[{"role": "user", "content": [{"type": "input_text", "text": "x"}, image]}]).json()
    assert more["usage"]["input_tokens"] == plain["usage"]["input_tokens"] + 256


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": None}, "'input'"),
        ({"input": []}, "'input'"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "No tool call found"),
        ({"stop": ["x"]}, "Unknown parameter: 'stop'"),
        ({"messages": []}, "Unknown parameter: 'messages'"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"background": True, "store": False}, "store"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "only allowed when 'tools'"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "name": "x"}}, "Tool choice"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}}},
            "additionalProperties",
        ),
        ({"model": None}, "model"),
    ],
    ids=str,
)
def test_what_the_provider_refuses(responses, body, said):
    _, ask = responses()
    reply = ask(**body)
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]


def test_a_limit_is_shared_with_chat(responses):
    simulator, ask = responses(rpm=2)
    assert ask().headers["x-ratelimit-remaining-requests"] == "1"
    chat = {"model": "m-1", "messages": [{"role": "user", "content": "x"}]}
    assert ask("/v1/chat/completions", **chat).headers["x-ratelimit-remaining-requests"] == "0"
    assert ask().status_code == 429
    assert simulator.stats()["rejected"] == 1


# In the background.


def test_a_background_response_is_there_for_whoever_asks(responses, read_events):
    _, ask = responses()
    first = data_of(ask(background=True, stream=True), read_events)
    again = data_of(ask(PATH + "/resp_sim_1?stream=true", "GET"), read_events)
    assert again == first
    rest = data_of(ask(PATH + "/resp_sim_1?stream=true&starting_after=3", "GET"), read_events)
    assert rest == first[4:]
    assert ask(PATH + "/resp_sim_1", "GET").json() == first[-1]["response"]
    assert data_of(ask(PATH + "/resp_sim_1?stream=true&starting_after=999", "GET"), read_events) == []


def test_it_goes_on_when_its_client_leaves(responses, read_events):
    simulator, ask = responses(tokens_per_second=100)
    simulator.faults({"fault": {"kind": "cut", "n": 0}, "times": 1})
    with pytest.raises(Exception, match="peer closed"):
        ask(background=True, stream=True)
    assert ask(PATH + "/resp_sim_1", "GET").json()["status"] == "in_progress"
    began = time.monotonic()
    rest = data_of(ask(PATH + "/resp_sim_1?stream=true", "GET"), read_events)
    assert 0.05 < time.monotonic() - began < 2  # at its own pace
    assert rest[-1]["response"]["output"][0]["content"][0]["text"] == PROMPT
    assert ask(PATH + "/resp_sim_1", "GET").json()["status"] == "completed"


def test_without_a_stream_it_is_queued_and_cannot_be_followed(responses):
    _, ask = responses()
    body = ask(background=True).json()
    assert (body["status"], body["output"]) == ("queued", [])
    assert ask(PATH + f"/{body['id']}", "GET").json()["status"] == "completed"
    refused = ask(PATH + f"/{body['id']}?stream=true", "GET")
    assert (refused.status_code, "stream=true" in refused.text) == (400, True)


def test_cancelled_and_deleted(responses, read_events):
    simulator, ask = responses(tokens_per_second=1)
    simulator.faults({"fault": {"kind": "cut", "n": 0}, "times": 1})
    with pytest.raises(Exception, match="peer closed"):
        ask(background=True, stream=True)
    assert ask(PATH + "/resp_sim_1/cancel").json()["status"] == "cancelled"
    assert ask(PATH + "/resp_sim_1/cancel").json()["status"] == "cancelled"
    kinds = [data["type"] for data in data_of(ask(PATH + "/resp_sim_1?stream=true", "GET"), read_events)]
    assert kinds[0] == "response.created"
    assert not any("completed" in kind for kind in kinds)
    assert ask(PATH + "/resp_sim_1", "DELETE").json()["deleted"] is True
    assert ask(PATH + "/resp_sim_1", "GET").status_code == 404
    assert ask(PATH + "/resp_sim_1", "PUT").status_code == 404


def test_a_response_is_its_keys_own(responses):
    _, ask = responses(keys=("key-1", "key-2"))
    ask(background=True)
    assert ask(PATH + "/resp_sim_1", "GET", key="key-2").status_code == 404
    assert ask(PATH + "/resp_sim_1", "GET", key="key-3").status_code == 401
    assert ask(PATH + "/resp_sim_1", "GET").status_code == 200


def test_what_was_not_begun_in_the_background_is_not_kept(responses):
    simulator, ask = responses()
    ask(store=True)
    assert ask(PATH + "/resp_sim_1", "GET").status_code == 404
    simulator.faults({"fault": {"kind": "status", "status": 500}, "times": 1})
    ask(background=True)
    assert ask(PATH + "/resp_sim_2", "GET").status_code == 404
    assert KEPT >= 1000


def test_a_fault_meets_whoever_follows(responses, read_events):
    simulator, ask = responses()
    ask(background=True, stream=True)
    simulator.faults({"match": {"contains": "Cats"}, "fault": {"kind": "no_terminal", "n": 2}, "times": 1})
    found = data_of(ask(PATH + "/resp_sim_1?stream=true&starting_after=4", "GET"), read_events)
    assert [data["sequence_number"] for data in found] == [5, 6]
    assert simulator.journal()[-1]["outcome"] == "fault:no_terminal"
