"""The server around the formats: connections, pace, clients that leave, the endpoints of its own."""

import socket
import time
from contextlib import ExitStack, closing, contextmanager

import httpx
import pytest

from callboard.simulator import Simulator, SimulatorConfig, spawn_simulator


@contextmanager
def raw(simulator):
    host, port = simulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        yield connection


def received(connection):
    """Everything until the server closes."""
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def test_a_client_that_leaves_a_paced_stream_is_noticed_before_the_next_event(simulate):
    simulator, client = simulate(tokens_per_second=0.01)
    with closing(client.stream()):
        assert simulator.stats()["in_flight"] == 1
    entry = simulator.wait_for(lambda journal: journal[0]["outcome"])[0]
    assert (entry["outcome"], entry["usage"]["output_tokens"]) == ("aborted_by_client", 0)
    assert simulator.stats()["in_flight"] == 0
    assert simulator.stats()["aborted_by_client"] == 1


def test_a_client_that_leaves_during_the_latency_is_noticed(simulate):
    simulator, client = simulate(latency=3600.0)
    client.http.timeout = httpx.Timeout(20.0, read=0.05)
    with pytest.raises(httpx.ReadTimeout):
        client.call()
    entry = simulator.wait_for(lambda journal: journal and journal[0]["outcome"])[0]
    assert (entry["outcome"], entry["status"]) == ("aborted_by_client", None)


def test_a_stream_keeps_its_pace(simulate):
    _, client = simulate(tokens_per_second=340.0)  # 17 tokens: 50 ms
    began = time.monotonic()
    client.call(stream=True)
    assert time.monotonic() - began >= 0.05
    began = time.monotonic()
    client.call()
    assert time.monotonic() - began >= 0.05


def test_many_connections_are_served_at_once():
    body = b'{"model": "m-1", "messages": [{"role": "user", "content": "Cats sleep."}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    # A process of its own: both ends of 500 connections would be near the usual limit of open files.
    config = SimulatorConfig(faults=({"fault": {"kind": "barrier", "n": 500}},))
    with ExitStack() as stack:
        child = stack.enter_context(spawn_simulator(config))
        port = int(child.url.rpartition(":")[2])
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(500)
        ]
        for connection in connections:
            connection.sendall(head.encode() + body)
        assert all(received(connection).startswith(b"HTTP/1.1 200 OK") for connection in connections)
        assert httpx.get(f"{child.url}/_simulator/stats").json()["in_flight_max"] == 500


def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order(simulate):
    simulator, _ = simulate()
    with raw(simulator) as connection:
        get = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
        connection.sendall(
            get + get.replace(b"/v1/models", b"/nowhere").replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        )
        answer = received(connection)
    assert answer.index(b"HTTP/1.1 200") < answer.index(b"HTTP/1.1 404")


def test_what_is_not_http_is_refused(simulate):
    simulator, _ = simulate()
    with raw(simulator) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 400")
    assert simulator.journal() == []


def test_a_client_that_waits_to_be_let_on_is_told_to_continue(simulate):
    simulator, client = simulate()
    body = client.request().content
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with raw(simulator) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_body_that_is_too_large_is_refused_in_the_format(simulate):
    _, client = simulate()
    reply = client.http.post("/v1/chat/completions", content=b"x" * (32 * 1024 * 1024 + 1))
    assert (reply.status_code, reply.json()["error"]["type"]) == (413, "invalid_request_error")
    assert client.call().status_code == 200


def test_the_endpoints_of_its_own(simulate):
    simulator, client = simulate(keys=("k",))
    client.call(key="k")
    assert client.http.get("/_simulator/journal").json() == simulator.journal()
    assert client.http.get("/_simulator/stats").json() == simulator.stats()
    assert client.http.get("/_simulator/nothing").status_code == 404
    (entry,) = simulator.journal()
    assert set(entry) == {
        *("n", "at", "wire", "path", "model", "headers", "body", "sha256", "request_id"),
        *("fault", "status", "outcome", "usage", "ended_at"),
    }
    assert (entry["wire"], entry["path"], entry["model"]) == ("openai", "/v1/chat/completions", "m-1")
    assert entry["ended_at"] >= entry["at"]


def test_everything_can_be_read_after_the_end(simulate):
    simulator, client = simulate()
    simulator.faults({"fault": {"kind": "stall", "n": 0}})
    with closing(client.stream()):
        simulator.stop()
    simulator.stop()
    assert simulator.journal()[0]["outcome"] == "stopped"
    assert simulator.stats()["requests"] == 1
    assert simulator.faults()[0]["used"] == 1


def test_waiting_in_vain_shows_the_journal(simulate):
    simulator, client = simulate()
    client.call()
    with pytest.raises(TimeoutError, match="completed"):
        simulator.wait_for(lambda journal: len(journal) == 2, timeout_seconds=0.01)


def test_a_simulator_starts_once_and_one_that_never_did_can_be_stopped():
    simulator = Simulator()
    simulator.stop()
    assert simulator.stats()["requests"] == 0
    with simulator:
        pass
    with pytest.raises(RuntimeError, match="started before"):
        simulator.start()
