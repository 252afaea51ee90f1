"""Where connections go: addresses, redirects, proxies, TLS, and what importing httpx brings along."""

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import sys

import httpcore
import pytest

from callboard.actors.providers import http_client, network
from callboard.actors.providers.engine import Finished
from callboard.actors.providers.model import Billed, ErrorClass, Message, Request, Scope, Timeouts
from callboard.actors.providers.network import CheckedNetwork
from callboard.actors.providers.urls import UnsafeURLError

WHOLE = Request(model="m", messages=(Message("user", "hi"),), stream=False)
BODY = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "ok"}}]}).encode()


async def ok(exchange):
    await exchange.reply(BODY, headers=["content-type: application/json"])


@pytest.fixture
def resolver(monkeypatch):
    """Let names resolve as the test says: no name server is asked. Returns the dictionary and the names that were looked up."""
    names, asked = {}, []

    async def resolve(host, port):
        asked.append(host)
        if host not in names:
            raise socket.gaierror(-2, "Name or service not known")
        return names[host]

    monkeypatch.setattr(network, "_resolve", resolve)
    return names, asked


@pytest.mark.parametrize(
    "addresses",
    [
        ["169.254.169.254"],
        ["10.0.0.1"],
        ["127.0.0.1"],
        ["::1"],
        ["224.0.0.1"],
        ["93.184.215.14", "192.168.0.1"],
        ["not an address"],
    ],
)
def test_a_name_that_turns_out_to_be_inside_is_refused_before_anything_is_sent(resolver, start_engine, call, addresses):
    resolver[0]["api.example.org"] = addresses
    end, _ = call(start_engine("https://api.example.org/v1"), WHOLE)
    assert (end.error.kind, end.error.scope) == (ErrorClass.INVALID, Scope.PROVIDER)
    assert (end.error.sent, end.error.billed) == (False, Billed.NO)
    assert "api.example.org" in end.error.message


def test_metadata_is_refused_even_where_private_addresses_are_allowed(resolver, start_engine, call):
    resolver[0]["gpu-box"] = ["169.254.169.254"]
    end, _ = call(start_engine("http://gpu-box/v1", allow_private=True), WHOLE)
    assert end.error.kind is ErrorClass.INVALID


def test_a_private_name_may_be_allowed(resolver, serve, start_engine, call):
    server = serve(ok)
    resolver[0]["gpu-box"] = ["127.0.0.2", "127.0.0.1"]  # nobody listens at the first: the next is tried
    end, _ = call(start_engine(f"http://gpu-box:{server.port}/v1", allow_private=True), WHOLE)
    assert isinstance(end, Finished)
    assert server.seen[0].headers["Host"] == f"gpu-box:{server.port}"


def test_the_address_that_was_checked_is_the_one_connected_to(resolver, serve, start_engine, call):
    """One lookup for the check and the connection: a second answer (DNS rebinding) is never asked for."""
    server = serve(ok)
    names, asked = resolver
    names["gpu-box"] = ["127.0.0.1"]
    engine = start_engine(f"http://gpu-box:{server.port}/v1", allow_private=True)
    assert isinstance(call(engine, WHOLE)[0], Finished)
    assert asked == ["gpu-box"]


def test_an_unknown_name_is_surely_not_sent(resolver, start_engine, call):
    end, _ = call(start_engine("https://nowhere.example.org/v1"), WHOLE)
    assert (end.error.kind, end.error.sent) == (ErrorClass.CONNECT, False)
    assert "nowhere.example.org" in end.error.message


def test_lookups_are_shared_and_a_failed_one_is_not_kept(resolver):
    names, asked = resolver
    backend = CheckedNetwork(allow_private=True)

    async def run():
        with pytest.raises(httpcore.ConnectError):
            await backend.connect_tcp("gpu-box", 9)
        names["gpu-box"] = ["169.254.169.254"]
        found = await asyncio.gather(*(backend.connect_tcp("gpu-box", 9) for _ in range(20)), return_exceptions=True)
        await backend.close()
        return found

    assert {type(error) for error in asyncio.run(run())} == {UnsafeURLError}
    assert asked == ["gpu-box", "gpu-box"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("wire", ["openai-chat", "anthropic-messages"])
def test_a_redirect_is_refused_and_the_key_goes_nowhere_else(serve, start_engine, call, wire, status):
    other = serve(ok)

    async def redirect(exchange):
        await exchange.reply(b"", status=f"{status} Moved", headers=[f"location: {other.url}/v1/messages"])

    server = serve(redirect)
    end, _ = call(start_engine(server.url, wire=wire), WHOLE)
    assert (end.error.kind, end.error.http, end.error.billed) == (ErrorClass.INVALID, status, Billed.NO)
    assert len(server.seen) == 1
    assert other.connections == 0


def test_cookies_are_not_kept(serve, start_engine, call):
    async def answer(exchange):
        await exchange.reply(BODY, headers=["content-type: application/json", "set-cookie: a=b"])

    server = serve(answer)
    engine = start_engine(server.url)
    call(engine, WHOLE)
    call(engine, WHOLE)
    assert not any("cookie" in exchange.headers for exchange in server.seen)


def test_proxy_variables_are_ignored(serve, start_engine, call, monkeypatch):
    proxy, server = serve(ok), serve(ok)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    assert isinstance(call(start_engine(server.url), WHOLE)[0], Finished)
    assert proxy.connections == 0


def test_a_configured_proxy_is_used(serve, start_engine, call):
    proxy = serve(ok)
    engine = start_engine("http://gpu-box/v1", allow_private=True, proxy=proxy.url)
    for _ in range(2):
        end, _ = call(engine, WHOLE)
        assert isinstance(end, Finished)
    assert proxy.seen[0].line == "POST http://gpu-box/v1/chat/completions HTTP/1.1"
    assert proxy.connections == 1


def test_a_proxy_that_refuses_is_surely_not_sent(serve, start_engine, call):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = serve(ok)

    async def listen():
        return await asyncio.start_server(refuse, "127.0.0.1", 0)

    proxy = asyncio.run_coroutine_threadsafe(listen(), server.loop).result(10)
    try:
        port = proxy.sockets[0].getsockname()[1]
        end, _ = call(start_engine("https://api.example.org/v1", proxy=f"http://127.0.0.1:{port}"), WHOLE)
        assert (end.error.kind, end.error.sent, end.error.billed) == (ErrorClass.CONNECT, False, Billed.NO)
    finally:
        server.loop.call_soon_threadsafe(proxy.close)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *made, *named, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{path}.crt", path)
    return context, f"{path}.crt"


def test_tls(serve, start_engine, call, certificate, monkeypatch):
    context, trusted = certificate
    monkeypatch.setattr(http_client, "shared_tls_context", lambda: ssl.create_default_context(cafile=trusted))

    async def answer(exchange):
        await exchange.reply(
            json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": "x" * 1_000_000}}]}).encode(),
            headers=["content-type: application/json"],
        )

    server = serve(answer, tls=context)
    engine = start_engine(f"https://localhost:{server.port}/v1")
    big = Request(model="m", messages=(Message("user", "y" * 1_000_000),), stream=False)
    for _ in range(2):
        end, _ = call(engine, big)
        assert end.completion.text == "x" * 1_000_000
    assert server.connections == 1


def test_a_certificate_for_another_name_is_refused(serve, start_engine, call, certificate, monkeypatch):
    context, trusted = certificate
    monkeypatch.setattr(http_client, "shared_tls_context", lambda: ssl.create_default_context(cafile=trusted))
    server = serve(ok, tls=context)
    end, _ = call(start_engine(f"https://127.0.0.1:{server.port}/v1"), WHOLE)
    assert (end.error.kind, end.error.sent, end.error.billed) == (ErrorClass.CONNECT, False, Billed.NO)
    assert server.seen == []


def test_a_certificate_that_nobody_vouches_for_is_refused(serve, start_engine, call, certificate):
    server = serve(ok, tls=certificate[0])
    end, _ = call(start_engine(f"https://localhost:{server.port}/v1"), WHOLE)
    assert (end.error.kind, end.error.sent) == (ErrorClass.CONNECT, False)
    assert "certificate" in end.error.message
    assert server.seen == []


def test_abort_in_a_stream_over_tls(serve, start_engine, listener, certificate, monkeypatch):
    context, trusted = certificate
    monkeypatch.setattr(http_client, "shared_tls_context", lambda: ssl.create_default_context(cafile=trusted))

    async def answer(exchange):
        await exchange.open_stream(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
        await exchange.gone()

    server = serve(answer, tls=context)
    engine = start_engine(f"https://localhost:{server.port}/v1")
    heard = listener()
    engine.submit("k", Request(model="m", messages=WHOLE.messages), Timeouts(), heard)
    heard.next()
    engine.abort("k")
    assert heard.end().error.kind is ErrorClass.CANCELLED
    assert server.disconnected.wait(10)


def modules_after(code):
    done = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_httpx_loads_late_and_without_its_command_line():
    loaded = modules_after("import callboard.actors.providers.engine")
    assert not {"httpx", "httpcore", "callboard.actors.providers.http_client"} & loaded
    loaded = modules_after(
        "from callboard.actors.providers.transport import import_httpx; import_httpx(own_process=True)"
    )
    assert "httpx" in loaded
    assert not {"rich", "click", "httpx._main"} & loaded
    loaded = modules_after(
        "from callboard.actors.providers.transport import import_httpx; import_httpx(own_process=False)"
    )
    assert "httpx._main" in loaded
