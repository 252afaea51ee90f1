import pytest

TEXT_OUT = "Actors keep jobs in a database. Jobs cost money and actors spend it."


def test_a_reply_has_every_field_of_the_format(simulate):
    _, client = simulate()
    reply = client.call("anthropic")
    body = reply.json()
    assert reply.headers["request-id"] == "req_sim_1"
    assert (body["type"], body["role"], body["model"]) == ("message", "assistant", "m-1")
    assert body["content"] == [{"type": "text", "text": TEXT_OUT}]
    assert (body["stop_reason"], body["stop_sequence"]) == ("end_turn", None)
    assert (body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (39, 17)
    assert body["usage"]["cache_read_input_tokens"] == 0


def test_a_stream_has_its_events_in_order_and_cumulative_usage(simulate, read_events):
    _, client = simulate()
    found = read_events(client.call("anthropic", stream=True).content)
    names = [name for name, _ in found]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert all(data["type"] == name for name, data in found)
    assert "".join(data["delta"]["text"] for name, data in found if name == "content_block_delta") == TEXT_OUT
    start, end = found[0][1]["message"], found[-2][1]
    assert (start["content"], start["stop_reason"]) == ([], None)
    assert (start["usage"]["input_tokens"], start["usage"]["output_tokens"]) == (39, 1)
    assert (end["delta"]["stop_reason"], end["usage"]["output_tokens"]) == ("end_turn", 17)


def test_how_a_text_ends_is_said(simulate):
    _, client = simulate()
    cut = client.call("anthropic", max_tokens=2).json()
    assert (cut["content"][0]["text"], cut["stop_reason"]) == ("Actors", "max_tokens")
    stopped = client.call("anthropic", stop_sequences=["jobs"]).json()
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "jobs")
    warmed = client.call("anthropic", max_tokens=0).json()
    assert (warmed["content"], warmed["usage"]["output_tokens"]) == ([], 0)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": None}, "model: Field required"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool"}]}, "messages.0.role"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop_sequences": "x"}, "stop_sequences"),
    ],
)
def test_an_invalid_request_is_refused_in_the_format(simulate, fields, said):
    _, client = simulate()
    reply = client.call("anthropic", **fields)
    body = reply.json()
    assert reply.status_code == 400
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", "invalid_request_error", "req_sim_1")
    assert body["error"]["message"].startswith(said)


def test_max_tokens_and_the_version_header_are_required(simulate):
    _, client = simulate()
    request = client.request("anthropic", max_tokens=None)
    assert client.http.send(request).json()["error"]["message"] == "max_tokens: Field required"
    request = client.request("anthropic")
    del request.headers["anthropic-version"]
    reply = client.http.send(request)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_the_new_version_refuses_sampling_parameters(simulate):
    _, client = simulate()
    assert client.call("anthropic", temperature=1).status_code == 200
    request = client.request("anthropic", temperature=1)
    request.headers["anthropic-version"] = "2026-10-21"
    assert "temperature" in client.http.send(request).json()["error"]["message"]


def test_keys_models_and_paths(simulate):
    _, client = simulate(keys=("right",), models=("m-1",))
    refused = client.call("anthropic")
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    request = client.request("anthropic", key="wrong")
    request.headers["authorization"] = "Bearer right"
    assert client.http.send(request).status_code == 401  # x-api-key wins
    del request.headers["x-api-key"]
    assert client.http.send(request).status_code == 200
    client.key = "right"
    assert client.call("anthropic", model="m-2").json()["error"]["type"] == "not_found_error"
    headers = {"x-api-key": "right", "anthropic-version": "2023-06-01"}
    listed = client.http.get("/v1/models", headers=headers).json()
    assert ([model["id"] for model in listed["data"]], listed["has_more"]) == (["m-1"], False)
    assert client.http.get("/v1/nowhere", headers=headers).json()["error"]["type"] == "not_found_error"


def test_input_is_charged_at_admission_and_output_when_produced(simulate, manual_clock):
    simulator, client = simulate(clock=manual_clock.clock(), rpm=50, input_tpm=20_000, output_tpm=17)
    admitted = client.call("anthropic").headers
    assert admitted["anthropic-ratelimit-requests-limit"] == "50"
    assert admitted["anthropic-ratelimit-requests-remaining"] == "49"
    assert admitted["anthropic-ratelimit-input-tokens-remaining"] == "20000"  # 19961, to the nearest thousand
    assert admitted["anthropic-ratelimit-output-tokens-remaining"] == "17"
    assert admitted["anthropic-ratelimit-tokens-limit"] == "17"
    assert admitted["anthropic-ratelimit-requests-reset"] == "2026-09-21T14:13:22Z"
    rejected = client.call("anthropic")
    assert (rejected.status_code, rejected.json()["error"]["type"]) == (429, "rate_limit_error")
    assert rejected.headers["retry-after"] == "4"  # one token in 60/17 s
    assert rejected.headers["anthropic-ratelimit-output-tokens-remaining"] == "0"
    manual_clock.seconds += 4
    assert client.call("anthropic").status_code == 200
    assert simulator.stats()["max_admitted_tokens_in_window"] == 2 * (39 + 17)


TOOLS = [{"name": "add", "input_schema": {"type": "object", "properties": {}}}]
CALLS = "Please call add {} and call add {}."


def results(*ids, text_first=False):
    text = [{"type": "text", "text": "And besides"}]
    found = [{"type": "tool_result", "tool_use_id": one, "content": f"sum of {one}"} for one in ids]
    return {"role": "user", "content": text + found if text_first else found + text}


def test_calls_come_with_the_thinking_that_was_asked_for(simulate):
    _, client = simulate()
    body = client.call("anthropic", text=CALLS, tools=TOOLS, thinking={"type": "adaptive"}).json()
    assert [block["type"] for block in body["content"]] == ["thinking", "tool_use", "tool_use"]
    assert len({block["id"] for block in body["content"][1:]}) == 2
    assert body["stop_reason"] == "tool_use"
    assert body["usage"]["output_tokens_details"]["thinking_tokens"] > 0
    one = client.call(
        "anthropic", text=CALLS, tools=TOOLS, tool_choice={"type": "auto", "disable_parallel_tool_use": True}
    )
    assert len(one.json()["content"]) == 1


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (results("t1", "t2"), None),
        (results("t1"), "messages.1: tool_use ids"),
        (results("t1", "t2", "t3"), "messages.2: unexpected tool_use_id"),
        (results("t1", "t2", text_first=True), "messages.2: tool_result blocks must come first"),
        (None, "messages: tool_use ids"),
    ],
)
def test_every_call_is_answered_in_the_next_turn(simulate, turn, said):
    _, client = simulate()
    asked = [{"type": "tool_use", "id": one, "name": "add", "input": {}} for one in ("t1", "t2")]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": asked}, *([turn] if turn else [])]
    reply = client.call("anthropic", messages=messages, tools=TOOLS)
    if said is None:
        assert reply.json()["content"][0]["text"].startswith("sum of t")
    else:
        assert (reply.status_code, reply.json()["error"]["message"].startswith(said)) == (400, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{}]},
        {"tool_choice": {"type": "any"}},
        {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "subtract"}},
        {"tools": TOOLS, "tool_choice": "any"},
        {"tools": TOOLS, "tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}},
        {"output_config": "low"},
    ],
)
def test_tools_that_make_no_sense_are_refused(simulate, fields):
    _, client = simulate()
    assert client.call("anthropic", **fields).status_code == 400
