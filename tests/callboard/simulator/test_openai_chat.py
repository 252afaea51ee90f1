import json

import pytest

from callboard.simulator.openai_chat import go_duration

TEXT_OUT = "Actors keep jobs in a database. Jobs cost money and actors spend it."


def test_a_reply_has_every_field_of_the_format(simulate):
    _, client = simulate()
    reply = client.call()
    body = reply.json()
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"] == "req_sim_1"
    assert reply.headers["openai-version"] == "2020-10-01"
    assert (body["object"], body["model"], type(body["created"])) == ("chat.completion", "m-1", int)
    message = {"role": "assistant", "content": TEXT_OUT, "refusal": None}
    assert body["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (39, 17, 56)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_stream_is_role_text_finish_usage_done(simulate, read_events):
    _, client = simulate()
    reply = client.call(stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in reply.headers
    names, chunks = zip(*read_events(reply.content), strict=True)
    assert set(names) == {""}
    *chunks, usage, done = chunks
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 17
    assert all(chunk["usage"] is None and chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert len({chunk["id"] for chunk in [*chunks, usage]}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(choice["delta"]["content"] for choice in choices[1:-1]) == TEXT_OUT
    assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "stop")
    assert {choice["finish_reason"] for choice in choices[:-1]} == {None}


def test_a_stream_that_did_not_ask_for_usage_has_none(simulate):
    _, client = simulate()
    assert "usage" not in client.call(stream=True).text


def test_the_limit_and_stop_sequences_end_the_text(simulate):
    _, client = simulate(default_max_tokens=4)
    assert client.call().json()["choices"][0]["finish_reason"] == "length"
    for field in ("max_tokens", "max_completion_tokens"):
        choice = client.call(**{field: 2}).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("Actors", "length")
    choice = client.call(max_tokens=100, stop=["jobs"]).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Actors keep ", "stop")


def test_the_last_user_message_is_what_is_answered(simulate):
    _, client = simulate()
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "First."},
        {"role": "assistant", "content": None},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Second."}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
    ]
    assert client.call(messages=messages).json()["choices"][0]["message"]["content"] == "Second."


def test_line_separators_in_a_text_are_sent_raw(simulate):
    _, client = simulate()
    assert 'one\u2028"'.encode() in client.call(text="one\u2028two.", stream=True).content


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", None),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_type"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens", "invalid_type"),
        ({"n": 2}, "n", "unsupported_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
    ],
)
def test_an_invalid_request_is_refused_in_the_format(simulate, fields, param, code):
    simulator, client = simulate()
    reply = client.call(**fields)
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert error["message"]
    assert simulator.journal()[0]["outcome"] == "rejected"
    assert simulator.stats()["invalid"] == 1


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(simulate, body):
    _, client = simulate()
    reply = client.http.post("/v1/chat/completions", content=body)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_keys_models_and_paths(simulate):
    _, client = simulate(keys=("right",), models=("m-1", "m-2"))
    refused = client.call(key="wrong")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "wrong" not in refused.text
    assert client.http.get("/v1/models").status_code == 401
    client.key = "right"
    assert client.call().status_code == 200
    unknown = client.call(model="m-3")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    listed = client.http.get("/v1/models", headers={"authorization": "Bearer right"}).json()
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["m-1", "m-2"])
    nowhere = client.http.get("/v1/nowhere")
    assert (nowhere.status_code, nowhere.json()["error"]["type"]) == (404, "invalid_request_error")
    assert client.http.get("/v1/chat/completions", headers={"authorization": "Bearer right"}).status_code == 405


def test_limits_are_reported_and_enforced_by_the_charge_at_admission(simulate, manual_clock):
    simulator, client = simulate(clock=manual_clock.clock(), rpm=10, tpm=1000)
    headers = client.call(max_tokens=600).headers
    assert headers["x-ratelimit-limit-requests"] == "10"
    assert headers["x-ratelimit-remaining-requests"] == "9"
    assert headers["x-ratelimit-reset-requests"] == "6s"
    assert headers["x-ratelimit-remaining-tokens"] == "400"
    assert headers["x-ratelimit-reset-tokens"] == "36s"
    assert client.call(max_tokens=0).headers["x-ratelimit-remaining-requests"] == "9"  # refused, and not charged
    rejected = client.call(max_tokens=600)
    error = rejected.json()["error"]
    assert rejected.status_code == 429
    assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
    assert (rejected.headers["retry-after"], rejected.headers["retry-after-ms"]) == ("12", "12000")
    assert rejected.headers["x-ratelimit-remaining-tokens"] == "400"
    manual_clock.seconds += 11.999
    assert client.call(max_tokens=600).status_code == 429
    manual_clock.seconds += 0.001
    assert client.call(max_tokens=600).status_code == 200
    stats = simulator.stats()
    assert [stats[name] for name in ("requests", "completed", "rejected", "invalid")] == [5, 2, 2, 1]
    assert (stats["max_requests_in_window"], stats["max_admitted_requests_in_window"]) == (5, 2)
    assert (stats["max_tokens_in_window"], stats["max_admitted_tokens_in_window"]) == (2400, 1200)


def test_a_request_larger_than_the_limit_is_not_told_to_come_back(simulate):
    _, client = simulate(tpm=100)
    rejected = client.call(max_tokens=101)
    assert rejected.status_code == 429
    assert "retry-after" not in rejected.headers


def test_every_key_and_model_has_limits_of_its_own(simulate):
    _, client = simulate(rpm=1)
    statuses = [client.call(key=key, model=model).status_code for key in "ab" for model in ("m-1", "m-2", "m-1")]
    assert statuses == [200, 200, 429, 200, 200, 429]


def test_a_window_can_be_made_short(simulate, manual_clock):
    _, client = simulate(clock=manual_clock.clock(), rpm=1, window_seconds=2.0)
    assert client.call().status_code == 200
    assert client.call().headers["retry-after-ms"] == "2000"
    manual_clock.seconds += 2.0
    assert client.call().status_code == 200


def test_concurrency_is_limited(simulate):
    simulator, client = simulate(concurrency=1)
    simulator.faults({"fault": {"kind": "stall"}, "times": 1})
    held = client.stream()
    assert client.call().status_code == 429
    held.close()
    simulator.wait_for(lambda journal: journal[0]["outcome"] is not None)
    assert client.call().status_code == 200
    assert simulator.stats()["in_flight_max"] == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "1ms"),
        (0.012, "12ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (90.951, "1m30.951s"),
        (360, "6m0s"),
        (7325, "2h2m5s"),
    ],
)
def test_durations_are_gos(seconds, text):
    assert go_duration(seconds) == text


def test_the_journal_holds_no_key(simulate):
    simulator, client = simulate()
    client.call(key="secret-key-1")
    client.call("anthropic", key="secret-key-1")
    first, second = simulator.journal()
    assert "secret-key-1" not in json.dumps([first, second])
    assert first["headers"]["authorization"] == second["headers"]["x-api-key"]
    assert first["headers"]["authorization"].startswith("<redacted>")


ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def test_calls_whole_and_in_pieces(simulate, read_events):
    _, client = simulate()
    asked = {"text": 'call add {"a": 1, "b": "two words"} then call add', "tools": [ADD]}
    choice = client.call(**asked).json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    calls = choice["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"a": 1, "b": "two words"}, {}]
    assert len({call["id"] for call in calls}) == 2
    chunks = [data for _, data in read_events(client.call(stream=True, **asked).content) if data != "[DONE]"]
    deltas = [delta for chunk in chunks for delta in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [(d["index"], d["function"]["name"]) for d in deltas if "id" in d] == [(0, "add"), (1, "add")]
    pieces = [d["function"]["arguments"] for d in deltas if d["index"] == 0]
    assert len(pieces) > 2
    assert json.loads("".join(pieces)) == {"a": 1, "b": "two words"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    one = client.call(parallel_tool_calls=False, **asked).json()["choices"][0]["message"]
    assert len(one["tool_calls"]) == 1


def test_what_follows_a_tools_result(simulate):
    _, client = simulate()
    messages = [
        {"role": "user", "content": "call add"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "It is 2."},
    ]
    choice = client.call(messages=messages, tools=[ADD]).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("It is 2.", "stop")


def test_reasoning_and_images_are_counted(simulate):
    _, client = simulate()
    plain = client.call().json()["usage"]
    reasoned = client.call(reasoning_effort="low").json()["usage"]
    assert reasoned["completion_tokens_details"]["reasoning_tokens"] == 16
    assert reasoned["completion_tokens"] == plain["completion_tokens"] + 16
    assert client.call(reasoning_effort="none").json()["usage"] == plain
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    content = [{"type": "text", "text": "x"}, image, image]
    one = client.call(messages=[{"role": "user", "content": "x"}]).json()["usage"]["prompt_tokens"]
    assert client.call(messages=[{"role": "user", "content": content}]).json()["usage"]["prompt_tokens"] == one + 512


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tools": "x"}, "'tools'"),
        ({"tools": [{"type": "function", "name": "flat"}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "only allowed when 'tools'"),
        ({"parallel_tool_calls": False}, "only allowed when 'tools'"),
        ({"tools": [ADD], "tool_choice": "perhaps"}, "tool_choice"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format"),
    ],
    ids=str,
)
def test_tools_and_schemas_that_are_refused(simulate, fields, said):
    _, client = simulate()
    reply = client.call(**fields)
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]
