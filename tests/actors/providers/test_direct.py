"""Requests straight over a connection: when one is used again, what may not be sent, and a refusal that comes before the request is through."""

import asyncio
import socket
import threading

import httpx
import pytest

from callboard.actors.providers.adapter import HttpRequest
from callboard.actors.providers.direct import DirectClient
from callboard.actors.providers.engine import Finished
from callboard.actors.providers.model import ErrorClass, Message, Request, Timeouts
from callboard.actors.providers.network import CheckedNetwork
from callboard.actors.providers.transport import Sending

WHOLE = Request(model="m", messages=(Message("user", "hi"),), stream=False)
BODY = b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "ok"}}]}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(BODY)


@pytest.mark.parametrize(
    ("reply", "connections"),
    [
        (HEAD + b"\r\n" + BODY, 1),
        (HEAD + b"connection: close\r\n\r\n" + BODY, 3),
        (
            HEAD + b"\r\n" + BODY + b"HTTP/1.1 200 OK\r\n",
            3,
        ),  # what nobody asked for must not become the next call's answer
        (HEAD.replace(b"1.1", b"1.0") + b"\r\n" + BODY, 3),
    ],
)
def test_a_connection_is_used_again_if_the_server_keeps_it_open_and_its_reply_ended_where_it_said(
    serve, start_engine, call, reply, connections
):
    async def answer(exchange):
        await exchange.send(reply)

    server = serve(answer)
    engine = start_engine(server.url)
    for _ in range(3):
        end, _ = call(engine, WHOLE)
        assert isinstance(end, Finished)
        while engine.in_flight:  # its connection is given back right after its end is told
            pass
    assert server.connections == connections


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-note", "a\r\nx-evil: b"),
        ("x-note", "a\x00b"),
        ("x-note", "ä"),
        ("x note", "a"),
        ("x-note\r\nx-evil", "a"),
        ("", "a"),
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
        ("host", "elsewhere"),
    ],
)
def test_a_header_that_would_change_the_request_is_never_sent(name, value):
    """The settings refuse it before; this is the last line."""
    client = DirectClient("http://127.0.0.1:9", None, CheckedNetwork(allow_private=True))
    sending = Sending()
    with pytest.raises(httpx.LocalProtocolError):
        asyncio.run(client.send(HttpRequest("POST", "/x", ((name, value),), b"{}"), sending))
    assert not sending.started


def test_a_refusal_is_heard_although_the_server_did_not_read_the_request_to_its_end(serve, start_engine, call):
    """As servers refuse what is too large: they answer, and close."""
    refusal = b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"

    def refuse(listening):
        connection, _ = listening.accept()
        with connection:
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(1000)
            connection.sendall(refusal)
            while connection.recv(1 << 20):  # or the reset would overtake the answer
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=refuse, args=(listening,))
        server.start()
        engine = start_engine(f"http://127.0.0.1:{listening.getsockname()[1]}")
        big = Request(model="m", messages=(Message("user", "x" * 4_000_000),), stream=False)
        end, _ = call(engine, big, Timeouts(total=10))
        server.join(10)
    assert (end.error.kind, end.error.http) == (ErrorClass.TOO_LARGE, 413)
