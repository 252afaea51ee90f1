"""What can go wrong below HTTP, each with real sockets: how it is classified, and whether anything may have been paid for.

Names and addresses are in test_network.py; connections that end in the middle of a reply in test_engine.py.
"""

import asyncio
import importlib.util
import json
import shutil
import socket
import ssl
import struct
import subprocess
import threading

import pytest

from callboard.actors.providers import http_client
from callboard.actors.providers.engine import Finished
from callboard.actors.providers.model import Billed, ErrorClass, Message, Request, Scope

WAIT = 10.0
WHOLE = Request(model="m", messages=(Message("user", "hi"),), stream=False)
BODY = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "ok"}}]}).encode()


async def ok(exchange):
    await exchange.reply(BODY, headers=["content-type: application/json"])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *made, *named, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    return path, f"{path}.crt"


@pytest.fixture
def tls(certificate, monkeypatch):
    """A server's context, whose certificate the engine trusts."""
    key, trusted = certificate
    monkeypatch.setattr(http_client, "shared_tls_context", lambda: ssl.create_default_context(cafile=trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, key)
    return context


@pytest.fixture
def listen():
    """Let a function take raw connections, one after the other, in a thread; returns the port."""
    started = []

    def start(handle):
        listener = socket.create_server(("127.0.0.1", 0))

        def run():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(WAIT)
                    handle(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        started.append((listener, thread))
        return listener.getsockname()[1]

    yield start
    for listener, thread in started:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(WAIT)
        assert not thread.is_alive()


def head_of(connection):
    head = b""
    while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
        head += piece
    return head


def reset(connection):
    """End with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_after_the_request(connection):
    head_of(connection)
    reset(connection)


def closed_at_once(connection):
    connection.recv(65536)


def silent_until_it_is_gone(connection):
    while connection.recv(65536):
        pass


def plain_http(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")


def proxy_refusing(status):
    def handle(connection):
        head_of(connection)
        connection.sendall(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())

    return handle


def sure(end, kind=ErrorClass.CONNECT):
    """Nothing was sent to the provider, for certain: another try costs nothing."""
    assert (end.error.kind, end.error.scope) == (kind, Scope.PROVIDER)
    assert (end.error.sent, end.error.billed) == (False, Billed.NO)


def unsure(end):
    """The request may have arrived."""
    assert (end.error.kind, end.error.scope) == (ErrorClass.CONNECT, Scope.PROVIDER)
    assert (end.error.sent, end.error.billed) == (True, Billed.MAYBE)


def test_plain_http_on_a_tls_port(listen, start_engine, call, tls):
    end, _ = call(start_engine(f"https://localhost:{listen(plain_http)}/v1"), WHOLE)
    sure(end)
    assert "TLS handshake with localhost" in end.error.message


def test_tls_on_a_plain_http_port(serve, start_engine, call, tls):
    """The request went out in clear text to whoever listened there: it may have been read, though no TLS server could."""
    end, _ = call(start_engine(f"http://localhost:{serve(ok, tls=tls).port}/v1"), WHOLE)
    unsure(end)


@pytest.mark.parametrize("ending", [closed_at_once, reset])
def test_a_handshake_that_is_broken_off(listen, start_engine, call, tls, ending):
    end, _ = call(start_engine(f"https://localhost:{listen(ending)}/v1"), WHOLE)
    sure(end)


def test_a_handshake_that_stands_still(listen, start_engine, call, tls, monkeypatch):
    monkeypatch.setitem(http_client._TIMEOUTS, "connect", 0.05)
    end, _ = call(start_engine(f"https://localhost:{listen(silent_until_it_is_gone)}/v1"), WHOLE)
    sure(end)


def test_a_server_that_wants_a_certificate_of_ours(serve, start_engine, call, tls):
    tls.verify_mode = ssl.CERT_REQUIRED
    end, _ = call(start_engine(f"https://localhost:{serve(ok, tls=tls).port}/v1"), WHOLE)
    # TLS 1.3 tells of it after the handshake, when the request is on its way already: no server has read it, but that cannot be known.
    unsure(end)


def test_no_cipher_in_common(serve, start_engine, call, tls):
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers("NULL-SHA256:@SECLEVEL=0")
    end, _ = call(start_engine(f"https://localhost:{serve(ok, tls=tls).port}/v1"), WHOLE)
    sure(end)


def test_a_reset_before_the_reply(listen, start_engine, call):
    end, _ = call(start_engine(f"http://127.0.0.1:{listen(reset_after_the_request)}/v1"), WHOLE)
    unsure(end)


def test_a_reset_over_tls(listen, start_engine, call, tls):
    def handle(connection):
        with tls.wrap_socket(connection, server_side=True) as secure:
            head_of(secure)
            reset(secure)

    end, _ = call(start_engine(f"https://localhost:{listen(handle)}/v1"), WHOLE)
    unsure(end)


def test_a_port_where_nobody_listens(start_engine, call):
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    for base in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}"):
        sure(call(start_engine(base), WHOLE)[0])


def test_a_proxy_where_nobody_listens(start_engine, call):
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    for scheme in ("http", "https"):
        end, _ = call(start_engine("https://api.example.org/v1", proxy=f"{scheme}://127.0.0.1:{port}"), WHOLE)
        sure(end)


def test_a_socks_proxy_without_its_package(start_engine, call):
    if importlib.util.find_spec("socksio") is not None:
        pytest.skip("the package is here")
    end, _ = call(start_engine("https://api.example.org/v1", proxy="socks5://127.0.0.1:9"), WHOLE)
    sure(end, ErrorClass.INVALID)
    assert "httpx[socks]" in end.error.message


@pytest.mark.parametrize(
    "handle", [proxy_refusing(403), proxy_refusing(407), proxy_refusing(502), closed_at_once, reset_after_the_request]
)
def test_a_proxy_that_makes_no_tunnel(listen, start_engine, call, handle):
    """What was written was for the proxy alone: the provider has seen nothing."""
    end, _ = call(start_engine("https://api.example.org/v1", proxy=f"http://127.0.0.1:{listen(handle)}"), WHOLE)
    sure(end)


def test_a_proxy_that_loses_a_request_in_clear_text(listen, start_engine, call):
    """Without a tunnel the proxy was given the request itself, and may have passed it on."""
    port = listen(reset_after_the_request)
    end, _ = call(start_engine("http://gpu-box/v1", allow_private=True, proxy=f"http://127.0.0.1:{port}"), WHOLE)
    unsure(end)


def test_a_tunnel_through_a_proxy(serve, start_engine, call, tls):
    asked, server = [], serve(ok, tls=tls)

    async def pump(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def proxy(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n")[0])
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer), return_exceptions=True)
        await asyncio.gather(writer.wait_closed(), upstream_writer.wait_closed(), return_exceptions=True)

    listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(proxy, "127.0.0.1", 0), server.loop).result(WAIT)
    port = listening.sockets[0].getsockname()[1]
    engine = start_engine("https://localhost:9/v1", proxy=f"http://127.0.0.1:{port}")
    for _ in range(2):
        assert isinstance(call(engine, WHOLE)[0], Finished)
    assert asked == [b"CONNECT localhost:9 HTTP/1.1"]  # one tunnel for both
    assert server.seen[0].line == "POST /v1/chat/completions HTTP/1.1"  # and the proxy saw neither it nor the key
    engine.stop()
    server.loop.call_soon_threadsafe(listening.close)


def test_a_provider_that_breaks_off_behind_a_tunnel(listen, start_engine, call, tls):
    def proxy(connection):
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with tls.wrap_socket(connection, server_side=True) as secure:
            head_of(secure)

    end, _ = call(start_engine("https://localhost:9/v1", proxy=f"http://127.0.0.1:{listen(proxy)}"), WHOLE)
    unsure(end)


def test_a_tunnel_that_leads_to_no_tls(listen, start_engine, call, tls):
    def proxy(connection):
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        plain_http(connection)

    end, _ = call(start_engine("https://localhost:9/v1", proxy=f"http://127.0.0.1:{listen(proxy)}"), WHOLE)
    sure(end)
