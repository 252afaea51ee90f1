"""Every fault, as a client meets it over a real connection."""

import json
import threading
from contextlib import closing

import httpx
import pytest

from callboard.simulator import FaultError

WIRES = ("openai", "anthropic")
TEXT_OUT = "Actors keep jobs in a database. Jobs cost money and actors spend it."
IMPATIENT = httpx.Timeout(20.0, read=0.05)
TERMINAL = {"openai": b"data: [DONE]\n\n", "anthropic": b'event: message_stop\ndata: {"type":"message_stop"}\n\n'}


def text_of(found):
    """The text in the events of a stream, whichever the wire."""
    parts = []
    for _, data in found:
        if isinstance(data, dict) and data.get("choices"):
            parts.append(data["choices"][0]["delta"].get("content") or "")
        elif isinstance(data, dict) and data.get("type") == "content_block_delta":
            parts.append(data["delta"]["text"])
    return "".join(parts)


def collect(response, seen):
    """Add the bytes of a stream to `seen`, which keeps them when the stream breaks."""
    for data in response.iter_raw():
        seen += data


def read_until(chunks, wanted):
    """The bytes of a stream up to and with `wanted`. Takes an iterator: one that is dropped closes its response."""
    seen = b""
    for data in chunks:
        seen += data
        if wanted in seen:
            return seen
    raise AssertionError(seen)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("status", [400, 401, 402, 404, 408, 413, 429, 500, 502, 503, 529])
def test_any_status_has_the_providers_error_body(simulate, wire, status):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "status", "status": status}})
    reply = client.call(wire, stream=True)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]
    assert "retry-after" not in reply.headers
    assert simulator.journal()[0]["outcome"] == "fault:status"


def test_a_status_takes_type_code_waits_and_headers(simulate):
    simulator, client = simulate()
    fault = {"kind": "status", "status": 429, "type": "insufficient_quota", "retry_after": 1.5, "retry_after_ms": 1500}
    simulator.faults({"fault": {**fault, "headers": {"x-should-retry": "false"}}})
    reply = client.call()
    assert (reply.json()["error"]["type"], reply.json()["error"]["code"]) == ("insufficient_quota", None)
    assert [reply.headers[name] for name in ("retry-after", "retry-after-ms", "x-should-retry")] == [
        "1.5",
        "1500",
        "false",
    ]
    simulator.clear_faults()
    simulator.faults({"fault": {"kind": "status", "status": 429, "code": "enforced_spend_limit_reached"}})
    error = client.call("anthropic").json()["error"]
    assert (error["type"], error["details"]) == ("rate_limit_error", {"error_code": "enforced_spend_limit_reached"})


def test_html_empty_and_redirect(simulate):
    simulator, client = simulate()
    simulator.faults(
        {"fault": {"kind": "html"}, "times": 1},
        {"fault": {"kind": "empty", "status": 503}, "times": 1},
        {"fault": {"kind": "empty"}, "times": 1},
        {"fault": {"kind": "redirect", "url": "http://127.0.0.1:1/elsewhere"}, "times": 1},
    )
    page, failed, empty, redirect = (client.call() for _ in range(4))
    assert (page.status_code, page.headers["content-type"]) == (502, "text/html")
    assert page.text.startswith("<html>")
    assert (failed.status_code, failed.content) == (503, b"")
    assert (empty.status_code, empty.content) == (200, b"")
    assert (redirect.status_code, redirect.headers["location"]) == (307, "http://127.0.0.1:1/elsewhere")
    assert client.call().status_code == 200


@pytest.mark.parametrize("wire", WIRES)
def test_malformed_json(simulate, wire):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "malformed_json", "n": 2}})
    reply = client.call(wire)
    assert reply.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json()
    stream = client.call(wire, stream=True).content
    assert stream.endswith(b"\n\n")
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.rstrip().rpartition(b"data: ")[2])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("n", [0, 3])
def test_a_cut_stream_keeps_its_first_events(simulate, wire, n, read_events):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "cut", "n": n}})
    seen = bytearray()
    with closing(client.stream(wire)) as reply, pytest.raises(httpx.RemoteProtocolError):
        collect(reply, seen)
    seen = bytes(seen)
    assert text_of(read_events(seen)) == "".join(["Actors ", "keep ", "jobs "][:n])
    entry = simulator.wait_for(lambda journal: journal and journal[0]["outcome"])[0]
    assert (entry["outcome"], entry["status"]) == ("fault:cut", 200)
    assert TERMINAL[wire] not in seen


def test_a_connection_is_cut_before_its_headers(simulate):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "cut", "n": -1}})
    for stream in (False, True):
        with pytest.raises(httpx.RemoteProtocolError):
            client.call(stream=stream)
    journal = simulator.wait_for(lambda journal: len(journal) == 2 and journal[-1]["outcome"])
    assert {entry["status"] for entry in journal} == {None}


def test_a_body_is_cut_short_of_its_length(simulate):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "cut"}})
    with pytest.raises(httpx.RemoteProtocolError):
        client.call()


@pytest.mark.parametrize("wire", WIRES)
def test_a_stall_is_silent_until_the_client_leaves(simulate, wire, read_events):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "stall", "n": 1}})
    with closing(client.stream(wire)) as reply:
        chunks = reply.iter_raw()
        seen = read_until(chunks, b"Actors ")
        assert simulator.journal()[0]["outcome"] is None
    entry = simulator.wait_for(lambda journal: journal and journal[0]["outcome"])[0]
    assert (entry["outcome"], entry["fault"]) == ("aborted_by_client", "stall")
    assert entry["usage"]["output_tokens"] == 2
    assert b"keep" not in seen


@pytest.mark.parametrize(
    ("fault", "stream"),
    [({"kind": "stall"}, False), ({"kind": "stall"}, True), ({"kind": "ping_only", "interval": 0.001}, True)],
)
def test_silence_before_the_headers_outlasts_the_clients_patience(simulate, fault, stream):
    simulator, client = simulate()
    simulator.faults({"fault": {**fault, "n": -1}})
    client.http.timeout = IMPATIENT
    with pytest.raises(httpx.ReadTimeout):
        client.call(stream=stream)
    assert simulator.wait_for(lambda journal: journal and journal[0]["outcome"])[0]["status"] is None


@pytest.mark.parametrize(("wire", "ping"), [("openai", b": keep-alive\n\n"), ("anthropic", b"event: ping\n")])
def test_pings_go_on_for_ever(simulate, wire, ping):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "ping_only", "n": 1, "interval": 0.001}})
    with closing(client.stream(wire)) as reply:
        chunks = reply.iter_raw()
        read_until(chunks, b"Actors ")
        assert read_until(chunks, ping)
        assert read_until(chunks, ping)
    assert simulator.wait_for(lambda journal: journal and journal[0]["outcome"])[0]["outcome"] == "aborted_by_client"


@pytest.mark.parametrize("wire", WIRES)
def test_no_terminal_ends_cleanly_without_the_marker(simulate, wire, read_events):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "no_terminal"}, "times": 1}, {"fault": {"kind": "no_terminal", "n": 2}})
    whole = client.call(wire, stream=True).content
    assert text_of(read_events(whole)) == TEXT_OUT
    assert whole.count(b'"finish_reason":"stop"') + whole.count(b'"stop_reason":"end_turn"') == 1
    assert TERMINAL[wire] not in whole
    short = client.call(wire, stream=True).content
    assert text_of(read_events(short)) == "Actors keep "
    assert b'"stop"' not in short


@pytest.mark.parametrize("wire", WIRES)
def test_an_unclosed_event_is_the_last(simulate, wire):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "unclosed_event"}, "times": 1}, {"fault": {"kind": "unclosed_event", "n": 1}})
    assert client.call(wire, stream=True).content.endswith(TERMINAL[wire].rstrip())
    assert not client.call(wire, stream=True).content.endswith(b"\n")


@pytest.mark.parametrize(
    ("wire", "kind", "status"), [("openai", "server_error", 500), ("anthropic", "overloaded_error", 529)]
)
def test_an_error_in_the_middle_of_a_stream(simulate, wire, kind, status, read_events):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "error_event", "n": 2}})
    reply = client.call(wire, stream=True)
    found = read_events(reply.content)
    assert reply.status_code == 200
    assert text_of(found) == "Actors keep "
    name, data = found[-1]
    assert (name, data["error"]["type"]) == ("error" if wire == "anthropic" else "", kind)
    assert client.call(wire).status_code == status
    simulator.clear_faults()
    simulator.faults({"fault": {"kind": "error_event", "type": "rate_limit_error", "message": "Slow down."}})
    assert read_events(client.call(wire, stream=True).content)[-1][1]["error"]["message"] == "Slow down."
    assert client.call(wire).status_code == 429


@pytest.mark.parametrize("wire", WIRES)
def test_finishes_without_the_asked_for_text(simulate, wire):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "content_filter"}, "times": 1}, {"fault": {"kind": "refusal"}, "times": 2})
    filtered, refused = client.call(wire).json(), client.call(wire).json()
    stream = client.call(wire, stream=True).text
    if wire == "openai":
        assert filtered["choices"][0]["finish_reason"] == "content_filter"
        message = refused["choices"][0]["message"]
        assert message["content"] is None
        assert message["refusal"]
        assert '"delta":{"refusal":' in stream
    else:
        assert filtered["stop_reason"] == refused["stop_reason"] == "refusal"
        assert '"stop_reason":"refusal"' in stream
    assert {entry["outcome"] for entry in simulator.journal()} == {"completed"}


@pytest.mark.parametrize("wire", WIRES)
def test_usage_is_missing(simulate, wire):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "missing_usage"}})
    assert "usage" not in client.call(wire).json()
    stream = client.call(wire, stream=True, stream_options={"include_usage": True} if wire == "openai" else None).text
    assert '"output_tokens"' not in stream
    assert '"completion_tokens"' not in stream


@pytest.mark.parametrize("wire", WIRES)
def test_a_huge_line(simulate, wire):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "huge_line", "bytes": 300_000}})
    stream = client.call(wire, stream=True).content
    assert max(map(len, stream.split(b"\n"))) > 300_000
    assert stream.endswith(TERMINAL[wire])
    assert len(client.call(wire).content) > 300_000


@pytest.mark.parametrize("wire", WIRES)
def test_other_framings_say_the_same(simulate, wire):
    simulator, client = simulate()
    plain = client.call(wire, stream=True).content
    for kind, mark in (("bom", b"\n"), ("crlf", b"\r\n"), ("cr", b"\r")):
        simulator.clear_faults()
        simulator.faults({"fault": {"kind": kind}})
        stream = client.call(wire, stream=True).content
        assert (stream[:3] == b"\xef\xbb\xbf") is (kind == "bom")
        assert stream.removeprefix(b"\xef\xbb\xbf").count(mark) == plain.count(b"\n")
        body = client.call(wire).content
        assert json.loads(body.removeprefix(b"\xef\xbb\xbf"))["model"] == "m-1"


def test_a_slow_first_byte_comes_after_the_headers_and_a_delay_before(simulate):
    simulator, client = simulate()
    simulator.faults(
        {"fault": {"kind": "slow_first_byte", "seconds": 60}, "times": 1}, {"fault": {"kind": "delay", "seconds": 60}}
    )
    with closing(client.stream()) as reply:
        assert reply.status_code == 200
        assert simulator.journal()[0]["outcome"] is None
    client.http.timeout = IMPATIENT
    with pytest.raises(httpx.ReadTimeout):
        client.call()
    journal = simulator.wait_for(lambda journal: [bool(entry["outcome"]) for entry in journal] == [True, True])
    assert [entry["outcome"] for entry in journal] == ["aborted_by_client"] * 2
    assert [entry["usage"]["output_tokens"] for entry in journal] == [0, 0]


def test_a_barrier_holds_until_enough_are_open(simulate):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "barrier", "n": 3}})
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(client.call().status_code)) for _ in range(3)]
    for thread in threads[:2]:
        thread.start()
    simulator.wait_for(lambda journal: len(journal) == 2)
    assert statuses == []
    threads[2].start()
    for thread in threads:
        thread.join(10)
    assert statuses == [200, 200, 200]
    assert simulator.stats()["in_flight_max"] == 3


def test_who_leaves_a_barrier_is_not_counted_and_clearing_releases_it(simulate):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "barrier", "n": 2}})
    client.http.timeout = IMPATIENT
    for count in (1, 2):  # the second would be let through if the first were still counted
        with pytest.raises(httpx.ReadTimeout):
            client.call()
        simulator.wait_for(
            lambda journal, count=count: [entry["outcome"] for entry in journal] == ["aborted_by_client"] * count
        )
    client.http.timeout = 20.0
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(client.call().status_code))
    thread.start()
    simulator.wait_for(lambda journal: len(journal) == 3)
    simulator.clear_faults()
    thread.join(10)
    assert statuses == [200]


def test_rules_over_http_and_from_python(simulate):
    simulator, client = simulate(faults=({"fault": {"kind": "html"}, "times": 1},))
    assert client.call().status_code == 502
    added = client.http.post(
        "/_simulator/faults", json=[{"match": {"contains": "poison"}, "fault": {"kind": "empty"}}]
    ).json()
    assert [rule["fault"]["kind"] for rule in added] == ["html", "empty"]
    assert client.call(text="poison").content == b""
    assert client.call(text="bread").content
    assert client.http.get("/_simulator/faults").json()[1]["used"] == 1
    bad = client.http.post("/_simulator/faults", json=[{"fault": {"kind": "bom"}}, {"fault": {"kind": "no"}}])
    assert bad.status_code == 400
    assert "fault.kind" in bad.json()["error"]["message"]
    assert client.http.post("/_simulator/faults", content=b"{").status_code == 400
    assert client.http.delete("/_simulator/faults").json() == []
    with pytest.raises(FaultError):
        simulator.faults({"fault": {"kind": "no"}})
    assert simulator.faults() == []


@pytest.mark.parametrize("wire", WIRES)
def test_a_reply_can_be_scripted(simulate, read_events, wire):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "reply", "text": "Paris, of course."}})
    message = client.call(wire).json()
    text = message["choices"][0]["message"]["content"] if wire == "openai" else message["content"][0]["text"]
    assert text == text_of(read_events(client.call(wire, stream=True).content)) == "Paris, of course."
    assert {entry["outcome"] for entry in simulator.journal()} == {"completed"}
